"""What may be read: the accepted version of every source, its rows, and the as_of of a run.

Which versions are accepted is decided in validation.py; the records are context.py's. Belongs here
too: which bytes were accepted. The files of a Delta table never change, so each is read once, when
a version that has it is accepted, and again by `mlops audit verify`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mlops_pipeline.config.tables import ALWAYS, Source
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.periods import default_as_of, floor_to, step_of
from mlops_pipeline.core.features.frames import RowGuarantees
from mlops_pipeline.errors import DataError, NotFoundError
from mlops_pipeline.lifecycle.bookkeeping import get_pointer
from mlops_pipeline.lifecycle.context import Accepted, AcceptedSource, Context, Snapshot
from mlops_pipeline.stores.lake.engine import Engine, quoted
from mlops_pipeline.stores.lake.tables import VERSIONED, Lake, TableState
from mlops_pipeline.stores.ops import Ledger, OpsDatabase

TABLES = "tables"  # the name of the pointer {layer/name: version, digests of its files}
Pins = dict[str, dict[str, Any]]
NEVER_BEHIND = datetime.max.replace(tzinfo=UTC)


def accepted_sources(ops: OpsDatabase, use_case: UseCase) -> dict[str, AcceptedSource]:
    """Return the accepted version of every source; NotFoundError when nothing was accepted yet."""
    pointer = get_pointer(ops, use_case.name, "accepted")
    if pointer is None:
        raise NotFoundError(
            "there are no accepted data yet",
            where=use_case.name,
            way_out=f"mlops run {use_case.name}, or materialize {use_case.name}/validated_data",
        )
    return {name: AcceptedSource.from_dict(item) for name, item in pointer.value.items()}


def take_snapshot(
    use_case: UseCase, accepted: Accepted, as_of: datetime | None, *, now: datetime
) -> Snapshot:
    """Return what a run sees as of a point of the grid (UTC); default the last complete one."""
    step = step_of(use_case.grid)
    if as_of is None:
        marks = decisive_marks(use_case, {name: item.watermark for name, item in accepted.items()})
        if not marks:
            raise DataError("no accepted source holds a row", where=use_case.name)
        return Snapshot(default_as_of(use_case.grid, now, marks), accepted)
    if as_of > now:
        raise DataError(
            "as_of is in the future",
            expected=f"at most {now.isoformat()}",
            found=as_of.isoformat(),
            way_out="give an earlier --as-of",
        )
    if floor_to(as_of, step) != as_of:
        raise DataError(
            f"as_of is not the start of a {step}",
            expected=floor_to(as_of, step).date().isoformat(),
            found=as_of.isoformat(),
            way_out=f"give the start of a {step} (UTC)",
        )
    return Snapshot(as_of, accepted)


def decisive_marks(use_case: UseCase, marks: Mapping[str, datetime | None]) -> list[datetime]:
    """Return the watermarks that as_of waits for: of sparse sources only if no other has one."""
    present = {
        name: NEVER_BEHIND if use_case.sources[name].availability == ALWAYS else mark
        for name, mark in marks.items()
        if mark is not None
    }
    dense = [mark for name, mark in present.items() if not use_case.sources[name].sparse]
    return dense or list(present.values())


def with_revisions(accepted: Accepted) -> frozenset[str]:
    """Return the sources that hold revisions."""
    return frozenset(name for name, item in accepted.items() if item.has_revisions)


def row_guarantees(use_case: UseCase, accepted: Accepted) -> RowGuarantees:
    """Return what queries may rely on about the accepted rows."""
    unique = set()
    for name, item in accepted.items():
        source = use_case.sources[name]
        covers = set(source.key) <= {use_case.entity.key, source.happened}
        if source.key and covers and not item.has_repeated_keys:
            unique.add(name)
    return RowGuarantees(revised=with_revisions(accepted), unique=frozenset(unique))


def register_accepted(context: Context, accepted: Accepted) -> dict[str, Any]:
    """Return {source: Ibis table of its accepted rows}, at the accepted versions."""
    tables = {}
    lake, use_case = context.lake, context.use_case
    for name, item in accepted.items():
        versions = {"raw": item.version, "quarantine": item.quarantine_version}
        found: dict[str, TableState] = {}
        for layer, version in versions.items():
            if version is None:
                continue
            state = lake.state(lake.table_uri(use_case.name, layer, name), version)
            if state is None:
                raise NotFoundError(
                    "an accepted version is gone, or was erased with a person",
                    where=f"source {name}",
                    way_out="materialize raw_data, validated_data and what comes after them again",
                )
            found[layer] = state
        source = use_case.sources[name]
        revised = source if item.has_revisions and source.key else None
        rows = _accepted_rows(context.engine, found["raw"], found.get("quarantine"), revised)
        tables[name] = context.engine.register(name, rows)
    return tables


def _accepted_rows(
    engine: Engine, state: TableState, quarantine: TableState | None, revised: Source | None
) -> str:
    """Return the FROM item without quarantined rows; a quarantined revision closes nothing."""
    if quarantine is None:
        return engine.scan(state)
    broken = engine.scan(quarantine)
    kept = f"SELECT * FROM {engine.scan(state)} ANTI JOIN {broken} AS broken USING (_row_no)"
    if revised is None:
        return f"({kept})"
    keys = quoted(*revised.key)
    return (
        f"(WITH kept AS ({kept}) SELECT * FROM kept ANTI JOIN {broken} AS broken USING ({keys}) "
        f"UNION ALL BY NAME SELECT * REPLACE ({superseded_at(revised)} AS _superseded_at) "
        f"FROM kept SEMI JOIN {broken} AS broken USING ({keys}))"
    )


def superseded_at(source: Source) -> str:
    """Return SQL for when a row's next version was known, over all versions of its key."""
    return (
        f"CASE WHEN {has_key(source)} THEN min(_available_at) OVER ("
        f"PARTITION BY {quoted(*source.key)} ORDER BY {quoted(source.availability)}, "
        "_available_at GROUPS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) END"
    )


def has_key(source: Source) -> str:
    """Return SQL for whether no part of a row's key is missing."""
    return " AND ".join(f"{quoted(column)} IS NOT NULL" for column in source.key)


def pinned_tables(
    ops: Ledger, lake: Lake, use_case: str, versions: Mapping[str, int], *, fresh: bool = False
) -> Pins:
    """Return the pointer with these tables in place of their layers'; `fresh` reads all files."""
    before = get_pointer(ops, use_case, TABLES)
    pins: Pins = dict(before.value) if before else {}
    layers = {name.partition("/")[0] for name in versions}
    kept = {name: pin for name, pin in pins.items() if name.partition("/")[0] not in layers}
    for name, version in versions.items():
        known: Mapping[str, str] = pins.get(name, {}).get("files", {})
        if fresh:
            known = {path: digest for path, digest in known.items() if "_delta_log" not in path}
        found = lake.digests(lake.table_uri(use_case, name), version, known)
        kept[name] = {"version": version, "files": found}
    return kept


def accepted_tables(accepted: Accepted) -> dict[str, int]:
    """Return the raw and quarantine tables of what is accepted, with their versions."""
    numbers = {
        f"{layer}/{name}": number
        for name, item in accepted.items()
        for layer, number in zip(VERSIONED, (item.version, item.quarantine_version), strict=True)
    }
    return {name: number for name, number in numbers.items() if number is not None}
