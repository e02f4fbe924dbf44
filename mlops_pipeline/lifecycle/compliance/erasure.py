"""Finding and erasing one person: the order of the steps, under the lease of each use case.

The tombstone comes first, so that nothing brings the person back (ingestion compares rows with it);
then the lake (erasure_lake.py), the online store, MLflow and the log of predictions. Each step
finds for itself what is left: a run that was killed is run again.
"""

import csv
import io
import re
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.audit.chain import NewAuditEvent
from mlops_pipeline.core.rollout.approvals import Signed, signed
from mlops_pipeline.errors import DataError, NotFoundError, SourceError
from mlops_pipeline.lifecycle.bookkeeping import get_pointer, set_pointer
from mlops_pipeline.lifecycle.compliance.erasure_lake import PersonRows
from mlops_pipeline.lifecycle.context import Accepted, AcceptedSource, Context, open_context
from mlops_pipeline.lifecycle.features.online import layout
from mlops_pipeline.lifecycle.features.online.materialize import open_writer, stored_tables
from mlops_pipeline.lifecycle.ingest.accepted import TABLES, accepted_tables, pinned_tables
from mlops_pipeline.lifecycle.ingest.ingestion import EVERY
from mlops_pipeline.lifecycle.project import project
from mlops_pipeline.stores.lake.engine import literal, quoted
from mlops_pipeline.stores.models.address import is_in_use
from mlops_pipeline.stores.models.mlflow import open_tracking
from mlops_pipeline.stores.online.interface import OnlineStore, OnlineTable
from mlops_pipeline.stores.ops import HeldLease, Ledger, OpsDatabase, Tombstone
from mlops_pipeline.stores.predictions import PredictionLog
from mlops_pipeline.stores.settings import Settings, pseudonymiser
from mlops_pipeline.stores.source_files import readable
from mlops_pipeline.stores.sources import open_delivery

KEY = ("entity", "pseudonym", "use_case")  # of a tombstone
HASHED = "entity_hash"  # the first column of an MLflow file that holds rows of entities


@dataclass(frozen=True)
class Person:
    """Whom to forget, in which use cases; `scope` is the tombstone's: one of them, or all."""

    entity: str
    entity_id: str
    pseudonym: str
    use_cases: tuple[UseCase, ...]
    scope: str


@dataclass(frozen=True)
class Found:
    """Where a use case holds a person."""

    use_case: str
    rows: Mapping[str, int]  # in the lake, by table
    in_mlflow: int  # rows in files of runs
    logged: int  # answers of the prediction service
    delivered: Mapping[str, int | None]  # rows of files, which stay; None: they cannot be read
    model_versions: Mapping[int, Sequence[str]]  # whose recorded data (`source@n`) hold the person
    unsearched: tuple[str, ...]  # tables without the entity's key

    @property
    def is_anywhere(self) -> bool:
        """Whether the use case, or a file that it reads, knows the person."""
        return bool(self.rows or self.in_mlflow or self.logged or any(self.delivered.values()))


@dataclass(frozen=True)
class Erased:
    """What was removed from a use case, and what it had been in."""

    found: Found
    online: int
    model_versions: tuple[int, ...]


def person_of(
    settings: Settings, use_cases: Sequence[UseCase], entity_id: str, scope: str
) -> Person:
    """Return whom an id means."""
    texts = {_key_text(use_case, entity_id) for use_case in use_cases}
    if len(texts) > 1:
        raise DataError(
            "the id means different keys in different use cases",
            where=", ".join(use_case.name for use_case in use_cases),
            expected="keys of one type",
            way_out="name the use case with --use-case",
        )
    text = texts.pop()
    pseudonym = pseudonymiser(settings)(text)
    return Person(use_cases[0].entity.name, text, pseudonym, tuple(use_cases), scope)


def find(person: Person, settings: Settings) -> list[Found]:
    """Look for a person in every use case; nothing is changed."""
    found = []
    for use_case in person.use_cases:
        with open_context(use_case, settings) as context:
            rows = PersonRows(context, person.entity_id)
            found.append(
                Found(
                    use_case.name,
                    rows.counts(),
                    _rows_in_mlflow(settings, use_case, person.pseudonym),
                    _logged(settings, use_case, person.entity_id),
                    _rows_delivered(context, person.entity_id),
                    rows.model_versions(),
                    tuple(rows.without_key()),
                )
            )
    return found


def forget(
    person: Person, settings: Settings, ops: OpsDatabase, *, by: str, reason: str
) -> list[Erased]:
    """Remove a person from every store, and keep them out."""
    said = signed(by, reason, settings.now())
    holder = f"forget {uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        leases = [
            stack.enter_context(
                HeldLease(ops, f"lifecycle:{item.name}", holder, clock=lambda: datetime.now(UTC))
            )
            for item in person.use_cases
        ]
        found = find(person, settings)
        before = get_tombstone(ops, person.entity, person.pseudonym, person.scope)
        if before is None and not any(item.is_anywhere for item in found):
            raise NotFoundError(  # the id is not repeated
                f"nothing is known of a {person.entity} with this id",
                where=", ".join(use_case.name for use_case in person.use_cases),
                expected="rows in the lake, in MLflow or in a delivered file",
                found="none",
                way_out="look at the id; nothing was changed",
            )
        tombstone = set_tombstone(
            ops,
            person.entity,
            person.pseudonym,
            use_case=person.scope,
            model_versions={
                item.use_case: list(item.model_versions) for item in found if item.model_versions
            },
            found=_counts(found),
            said=said,
        )
        erased = []
        for use_case, item, lease in zip(person.use_cases, found, leases, strict=True):
            online = _erase(person, use_case, settings, ops, lease)
            versions = tuple(tombstone.model_versions.get(use_case.name, ()))
            erased.append(Erased(item, online, versions))
        removed = {**_counts(found), "online": sum(item.online for item in erased)}
        finish_tombstone(ops, tombstone, removed, by=said.by, now=settings.now())
    for use_case in person.use_cases:
        project(ops, settings, use_case, reason=holder, now=settings.now())
    return erased


def _counts(found: Sequence[Found]) -> dict[str, int]:
    return {
        "rows": sum(sum(item.rows.values()) for item in found),
        "mlflow": sum(item.in_mlflow for item in found),
        "predictions": sum(item.logged for item in found),
    }


def set_tombstone(
    ops: Ledger,
    entity: str,
    pseudonym: str,
    *,
    use_case: str,
    model_versions: Mapping[str, Sequence[int]],
    found: Mapping[str, int],
    said: Signed,
) -> Tombstone:
    """Say that a person is being forgotten, with an audit event; again adds model versions."""
    with ops.write(f"tombstone:{entity}") as tx:
        row = get_tombstone(tx, entity, pseudonym, use_case)
        row = row or Tombstone(entity, pseudonym, use_case, {}, said.by, said.reason, said.at, None)
        before = row.model_versions
        named = {
            name: sorted({*before.get(name, ()), *model_versions.get(name, ())})
            for name in {*before, *model_versions}
        }
        row = replace(row, model_versions=named, finished_at=None)
        tx.replace(row)
        detail = {"reason": said.reason, "model_versions": named, "found": dict(found)}
        tx.append([_event("forget", row, detail, said.by, said.at)])
        return row


def finish_tombstone(
    ops: Ledger, held: Tombstone, removed: Mapping[str, int], *, by: str, now: datetime
) -> Tombstone:
    """Say that every store was cleaned, with an event that counts what all attempts removed."""
    with ops.write(f"tombstone:{held.entity}") as tx:
        counts = dict(removed)
        for event in tx.events_after(0, kind=("forget", "forgotten")):
            if all(event.detail[name] == getattr(held, name) for name in KEY):
                found = event.detail.get("found", {}) if event.kind == "forget" else None
                counts = (
                    dict(removed)
                    if found is None
                    else {name: max(count, found.get(name, 0)) for name, count in counts.items()}
                )
        done = tx.change(held, finished_at=now)
        tx.append([_event("forgotten", held, counts, by, now)])
        return done


def get_tombstone(ops: Ledger, entity: str, pseudonym: str, use_case: str) -> Tombstone | None:
    """Return the tombstone that was set with just this scope."""
    return ops.find(Tombstone, entity=entity, pseudonym=pseudonym, use_case=use_case)


def _event(
    kind: str, row: Tombstone, detail: Mapping[str, Any], by: str, now: datetime
) -> NewAuditEvent:
    key = {name: getattr(row, name) for name in KEY}
    scope = None if row.use_case == EVERY else row.use_case
    return NewAuditEvent(kind, {**key, **detail}, scope, by, now)


def _erase(
    person: Person, use_case: UseCase, settings: Settings, ops: OpsDatabase, lease: HeldLease
) -> int:
    """Remove a person from the stores of one use case; return how much was online."""
    with open_context(use_case, settings) as context:
        rows = PersonRows(context, person.entity_id, lease.check)
        pointer = get_pointer(ops, use_case.name, "accepted")
        stored = pointer.value if pointer else {}
        accepted = {name: AcceptedSource.from_dict(item) for name, item in stored.items()}
        renewed = rows.erase_sources(accepted)
        if renewed != accepted:
            lease.check()
            document = {name: item.to_dict() for name, item in renewed.items()}
            now = settings.now()
            set_pointer(
                ops, use_case.name, "accepted", document, run_id=lease.lease.holder, now=now
            )
        rows.erase_periods()
        _pin_tables(context, ops, renewed, lease)
        rows.purge(renewed)
        _pin_tables(context, ops, renewed, lease)  # values were taken out of logs
    with open_writer(settings) as store:
        online = _erase_online(use_case, store, person.entity_id)
    _rows_in_mlflow(settings, use_case, person.pseudonym, erase=True)
    _logged(settings, use_case, person.entity_id, erase=True)
    return online


def _pin_tables(context: Context, ops: OpsDatabase, accepted: Accepted, lease: HeldLease) -> None:
    """Pin the tables that were pinned, as they are without the person."""
    name, lake = context.use_case.name, context.lake
    before = get_pointer(ops, name, TABLES)
    if before is None:
        return
    newest = {table: lake.state(lake.table_uri(name, table)) for table in before.value}
    versions = {table: state.version for table, state in newest.items() if state}
    pins = pinned_tables(ops, lake, name, {**versions, **accepted_tables(accepted)}, fresh=True)
    lease.check()
    now, holder = context.settings.now(), lease.lease.holder
    set_pointer(ops, name, TABLES, pins, run_id=holder, now=now)


def _logged(settings: Settings, use_case: UseCase, entity_id: str, *, erase: bool = False) -> int:
    with PredictionLog(settings.predictions_url) as log:
        ask = log.forget if erase else log.count
        return ask(use_case.name, entity_id)


def _erase_online(use_case: UseCase, store: OnlineStore, entity_id: str) -> int:
    """Remove an entity's records and events, from checkpoints too; return how many there were."""
    records = layout.online_layout(use_case).records()
    names = {*stored_tables(store, use_case.name), *([records[0].name] if records else [])}
    for name in sorted(name for name in names if name.startswith("records_")):
        table = OnlineTable(use_case.name, name)
        found = layout.read_checkpoint(store, table, layout.RecordsCheckpoint)
        if found is not None and found.last == entity_id:
            store.set_checkpoint(table, layout.checkpoint_text(replace(found, last=None, rows=0)))
    return store.forget(use_case.name, entity_id)


def _rows_in_mlflow(
    settings: Settings, use_case: UseCase, pseudonym: str, *, erase: bool = False
) -> int:
    """Count the rows of MLflow's files that are a person's; with `erase`, take them out."""
    if not is_in_use(settings):
        return 0  # nothing was ever trained
    tracking, count = open_tracking(settings, use_case.name), 0
    for run, name, text in tracking.texts(".csv"):
        if not text.startswith(HASHED):
            continue
        rows = list(csv.reader(io.StringIO(text)))
        kept = [row for row in rows if row[0] != pseudonym]
        count += len(rows) - len(kept)
        if erase and len(kept) < len(rows):
            out = io.StringIO()
            csv.writer(out, lineterminator="\n").writerows(kept)
            tracking.log_files(run, {name: out.getvalue()})
    return count


def _rows_delivered(context: Context, entity_id: str) -> dict[str, int | None]:
    """Count an entity's rows in the delivered files, by source; None where they cannot be read."""
    key = context.use_case.entity.key
    found: dict[str, int | None] = {}
    for name, source in context.use_case.sources.items():
        if key not in source.columns:
            continue
        try:
            delivery = open_delivery(context.engine, context.settings, context.use_case, name)
            with readable(source, delivery.found.paths):
                count = context.engine.query(
                    f"SELECT count(*) FROM ({delivery.select}) "
                    f"WHERE {quoted(key)}::VARCHAR = {literal(entity_id)}"
                )[0][0]
        except SourceError:
            found[name] = None
        else:
            found[name] = int(count)
    return found


def _key_text(use_case: UseCase, given: str) -> str:
    key = use_case.entity.key
    if use_case.sources[use_case.population.source].column(key).type == "string":
        return given
    if not re.fullmatch(r"-?[0-9]{1,19}", given):
        raise DataError(
            "the id is not of the key's type",
            where=f"{use_case.name}: {key}",
            expected="a whole number",
            found="other text",
        )
    return str(int(given))
