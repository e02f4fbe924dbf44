"""Incremental ingestion of a source into its raw Delta table.

A row's identity is its content and, for true duplicates, its occurrence: a delivery is compared
as a bag with what is stored, so a second run on the same files adds nothing. For a source with a
key, a row with a known key and other content is a revision: it closes the earlier row at the
time the revision could be known, so that every as_of still sees what was known then. The newest
version is the one of the latest declared availability, then of the latest arrival.

Stored beside the declared columns:

    _row_no         position of the row in the table's history, from 0: by ingestion, event time,
                    availability, then the order in which the rows were delivered
    _available_at   when the row counts as known: its declared availability (a date: the end of
                    the day); for a row that arrives behind the watermark, when it was ingested
    _ingested_at    the Clock at ingestion
    _superseded_at  when a revision replaced it, or null
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mlops_pipeline.config.tables import ALWAYS, Source
from mlops_pipeline.lifecycle.context import Context, RunContext
from mlops_pipeline.lifecycle.features.offline import finished_through
from mlops_pipeline.lifecycle.ingest import deliveries
from mlops_pipeline.lifecycle.ingest.accepted import superseded_at
from mlops_pipeline.stores.lake.engine import Engine, content_hash, quoted, sql_timestamp
from mlops_pipeline.stores.lake.tables import TableState
from mlops_pipeline.stores.ops import Ledger, Tombstone
from mlops_pipeline.stores.settings import LENGTH, pads
from mlops_pipeline.stores.source_files import readable
from mlops_pipeline.stores.sources import known_at, open_delivery

INTERNAL = ("_row_no", "_available_at", "_ingested_at", "_superseded_at")
NONE = deliveries.Permits()
EVERY = "*"  # in a tombstone: every use case that has the entity, also those to come


@dataclass(frozen=True)
class Ingested:
    """What one run did to one source."""

    source: str
    uri: str
    version: int
    rows: int
    rows_added: int
    rows_late: int
    rows_revised: int
    rows_too_late: int
    rows_held_back: int
    rows_erased: int
    watermark: datetime | None
    content_hash: str
    copies: tuple[tuple[str, str], ...]

    @property
    def left_out(self) -> str:
        """What of the delivery is not in the table though it is known already; empty: nothing."""
        late = [f"{self.rows_too_late:,} rows too late"] if self.rows_too_late else []
        copies = [f"{file}, whose content is that of {first}" for file, first in self.copies]
        return "; ".join([*late, *copies])


def ingest_sources(run: RunContext, permits: deliveries.Permits = NONE) -> list[Ingested]:
    """Ingest every source; rows of people who were erased stay out."""
    deliveries.record_permits(run, permits)
    finished = finished_through(run)
    erased = forgotten_pseudonyms(run.ops, run.use_case.name, run.use_case.entity.name)
    done = []
    for name in run.use_case.sources:
        found = ingest(
            *(run, name), now=run.now, finished_through=finished, erased=erased, permits=permits
        )
        run.log.info(f"{name}: {found.rows_added:,} of {found.rows:,} rows new")
        done.append(found)
    deliveries.say_left_out(run, {item.source: item.left_out for item in done})
    return done


def ingest(
    context: Context,
    name: str,
    *,
    now: datetime,
    finished_through: datetime | None,
    erased: Collection[str] = (),
    permits: deliveries.Permits = NONE,
) -> Ingested:
    """Bring what is new in a source's files into its raw table."""
    engine, source = context.engine, context.use_case.sources[name]
    engine.keep_order()
    engine.plan_wide()
    delivery = open_delivery(engine, context.settings, context.use_case, name)
    uri = context.lake.table_uri(context.use_case.name, "raw", name)
    state = deliveries.evolve(context, name, uri)
    with readable(source, delivery.found.paths):
        kept, dropped = without_erased(context, name, delivery.placed, erased)
        held_back = _hold_back(engine, source, kept, now)
        too_late = _stage(engine, source, state, restate=name in permits.restate)
        if name not in permits.accept_jump:
            deliveries.refuse_jump(context, name, state, now=now)
        increment = _facts(engine, source, state, now=now, finished_through=finished_through)
    added = int(increment["rows_added"])
    if state is not None and added == 0:
        version, facts = state.version, {**state.facts, "rows_late": 0, "rows_revised": 0}
    else:
        version, facts = _write(context, source, state, increment, uri=uri), increment
    return Ingested(
        source=name,
        uri=uri,
        version=version,
        rows=int(facts["rows"]),
        rows_added=added,
        rows_late=int(facts["rows_late"]),
        rows_revised=int(facts["rows_revised"]),
        rows_too_late=too_late,
        rows_held_back=held_back,
        rows_erased=dropped,
        watermark=_parse(facts.get("watermark")),
        content_hash=str(facts["content_hash"]),
        copies=delivery.found.copies,
    )


def forgotten_pseudonyms(ops: Ledger, use_case: str, entity: str) -> frozenset[str]:
    """Return the pseudonyms of the people whom a use case keeps out."""
    rows = ops.all(Tombstone, entity=entity, use_case=(use_case, EVERY))
    return frozenset(row.pseudonym for row in rows)


def without_erased(
    context: Context, source: str, select: str, erased: Collection[str]
) -> tuple[str, int]:
    """Return a query of a source's rows without erased entities, and how many it drops."""
    key = context.use_case.entity.key
    if not erased or key not in context.use_case.sources[source].columns:
        return select, 0
    engine, name, gone = context.engine, quoted(key), quoted(f"_erased_{source}")
    engine.create_table(
        "_tombstones",
        "SELECT unnest(?::VARCHAR[]) AS pseudonym, ?::BLOB AS inside, ?::BLOB AS outside",
        [sorted(erased), *pads(context.settings)],
    )
    pseudonym = (
        f"left(sha256(outside || unhex(sha256(inside || encode({name}::VARCHAR)))), {LENGTH})"
    )
    engine.create_table(
        f"_erased_{source}",
        f"SELECT {name} FROM (SELECT {name}, {pseudonym} AS pseudonym FROM "
        f"(SELECT DISTINCT {name} FROM ({select}) WHERE {name} IS NOT NULL), "
        "(SELECT DISTINCT inside, outside FROM _tombstones)) "
        "SEMI JOIN _tombstones USING (pseudonym)",
    )
    (dropped,) = engine.query(f"SELECT count(*) FROM ({select}) SEMI JOIN {gone} USING ({name})")[0]
    if not dropped:
        return select, 0
    return f"SELECT * FROM ({select}) ANTI JOIN {gone} USING ({name})", int(dropped)


def _hold_back(engine: Engine, source: Source, select: str, now: datetime) -> int:
    """Make `_delivery` without rows after the Clock: they are taken in when their time has come."""
    if source.availability == ALWAYS:
        engine.create_view("_delivery", select)
        return 0
    later = f"{quoted(source.availability)} > {sql_timestamp(now)}"
    engine.create_view("_delivery", f"SELECT * FROM ({select}) WHERE ({later}) IS NOT TRUE")
    return int(engine.query(f"SELECT count(*) FROM ({select}) WHERE {later}")[0][0])


def _stage(engine: Engine, source: Source, state: TableState | None, *, restate: bool) -> int:
    """Make `_staged`, the rows that the table lacks; count those too late, unless `restate`."""
    engine.drop_table("_increment")
    if state is None:
        engine.create_view("_staged", "SELECT * FROM _delivery")
        return 0
    availability = quoted(source.availability)
    recent = "TRUE"
    if state.facts.get("watermark") and not restate:
        watermark = datetime.fromisoformat(state.facts["watermark"])
        cut = sql_timestamp(watermark - timedelta(days=source.lateness_days))
        recent = f"({availability} IS NULL OR {availability} >= {cut})"
    stored = engine.scan(state)
    engine.create_table("_increment", deliveries.lacking(engine, source, state, recent))
    engine.create_view("_staged", _placed(engine, source, recent))
    if recent == "TRUE":
        return 0
    # usually the old part of a delivery is absent or unchanged: a sum of hashes says so quickly
    behind = f"NOT {recent}"
    delivered = engine.content(f"_delivery WHERE {behind}", source.stored)
    if delivered[0] == 0 or delivered == engine.content(f"{stored} WHERE {behind}", source.stored):
        return 0
    missed = deliveries.lacking(engine, source, state, behind)
    return int(engine.query(f"SELECT count(*) FROM ({missed})")[0][0])


def _placed(engine: Engine, source: Source, recent: str) -> str:
    """Return the query of the increment with places: of equal rows, those of the last ones."""
    if not engine.holds("SELECT 1 FROM _increment"):
        return "SELECT *, 0 AS _place FROM _increment"
    names = list(map(quoted, source.stored))
    same = " AND ".join(f"d.{name} IS NOT DISTINCT FROM i.{name}" for name in names)
    group, parts = ", ".join(names), ", ".join(f"d.{name}" for name in names)
    engine.create_table(
        "_placed_increment",
        f"SELECT d.* FROM (SELECT * FROM _delivery WHERE {recent}) AS d JOIN "
        f"(SELECT {group}, count(*) AS _many FROM _increment GROUP BY ALL) AS i ON {same} "
        f"QUALIFY row_number() OVER (PARTITION BY {parts} ORDER BY d._place DESC) <= i._many",
    )
    return "SELECT * FROM _placed_increment"


def _facts(
    engine: Engine,
    source: Source,
    state: TableState | None,
    *,
    now: datetime,
    finished_through: datetime | None,
) -> dict[str, Any]:
    """Return the commit's facts; they are known before the rows are written."""
    before = dict(state.facts) if state else {}
    watermark = _parse(before.get("watermark"))
    ends = [time for time in (watermark, finished_through) if time and state]
    late_before, availability = max(ends, default=None), quoted(source.availability)
    late = f"{availability} < {sql_timestamp(late_before)}" if late_before else "FALSE"
    added, newest, late_rows, digest = engine.query(  # in one pass over what may be CSV
        f"SELECT count(*), max({availability}) FILTER ({availability} <= {sql_timestamp(now)}), "
        f"count(*) FILTER ({late}), coalesce(sum(hash({quoted(*source.stored)})::HUGEINT), 0) "
        "FROM _staged"
    )[0]
    newest = newest.replace(tzinfo=UTC) if newest else None
    marks = [time for time in (watermark, newest) if time]
    previous = int(before.get("content_hash", "0"), 16)
    return {
        "rows": int(before.get("rows", 0)) + int(added),
        "rows_added": int(added),
        "rows_late": int(late_rows),
        "rows_revised": 0,
        "has_revisions": bool(before.get("has_revisions", False)),
        "watermark": max(marks).isoformat() if marks else None,
        "late_before": late_before.isoformat() if late_before else None,
        "content_hash": content_hash(previous + int(digest)),
        "ingested_at": now.isoformat(),
        "removed": int(before.get("removed", 0)),
        **deliveries.kept_facts(source, before),
    }


def _write(
    context: Context, source: Source, state: TableState | None, facts: dict[str, Any], *, uri: str
) -> int:
    engine, lake = context.engine, context.lake
    repeats, has_revisions = _repeated_keys(engine, source, state)
    select = _select_new(source, facts)
    facts["keys_repeat"] = repeats or (
        state is not None and bool(state.facts.get("keys_repeat", True))
    )
    first = int(facts["rows"]) - int(facts["rows_added"]) + int(facts["removed"])
    if not has_revisions:
        ordered = f"SELECT * EXCLUDE (_place) FROM ({select}) ORDER BY {_order(source)}"
        return lake.write(uri, _numbered(engine.batches(ordered), first), facts, "extend")
    facts["has_revisions"] = True
    number = (
        f"SELECT * EXCLUDE (_place), {first} + row_number() OVER (ORDER BY {_order(source)}) - 1 "
        "AS _row_no"
    )
    versions = _versions(engine, f"{number} FROM ({select})", source, state)
    facts["rows_revised"] = int(
        engine.query(f"SELECT count(_superseded_at) FROM ({versions})")[0][0]
    )
    if state is None:
        every = f"SELECT * EXCLUDE (_is_stored) FROM ({versions})"
        return lake.write(uri, engine.batches(every), facts, "append")
    return lake.supersede(uri, engine.arrow(versions), facts)


def _numbered(batches: Any, first: int) -> Any:
    """Return the stream of rows with `_row_no`, in the order in which they come."""
    import numpy as np
    import pyarrow as pa

    at = len(batches.schema) - len(INTERNAL) + 1  # behind the declared columns
    schema = batches.schema.insert(at, pa.field("_row_no", pa.int64()))

    def rows() -> Iterator[Any]:
        number = first
        for batch in batches:
            numbers = pa.array(np.arange(number, number + len(batch)))
            number += len(batch)
            columns = batch.columns
            yield pa.record_batch([*columns[:at], numbers, *columns[at:]], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, rows())


def _select_new(source: Source, facts: dict[str, Any]) -> str:
    availability, now = quoted(source.availability), datetime.fromisoformat(facts["ingested_at"])
    effective = known_at(source, source.availability)
    if late_before := _parse(facts["late_before"]):
        known = sql_timestamp(max(now, late_before))
        is_late = f"{availability} < {sql_timestamp(late_before)}"
        effective = f"CASE WHEN {is_late} THEN {known} ELSE {effective} END"
    return (
        f"SELECT {quoted(*source.stored)}, {effective} AS _available_at, "
        f"{sql_timestamp(now)} AS _ingested_at, CAST(NULL AS TIMESTAMP) AS _superseded_at, _place "
        "FROM _staged"
    )


def _order(source: Source) -> str:
    """Return SQL of the order of rows' numbers: by time, and as delivered where times are equal."""
    times = dict.fromkeys((source.happened, source.availability))
    return f"{quoted(*times)}, _place"


def _repeated_keys(engine: Engine, source: Source, state: TableState | None) -> tuple[bool, bool]:
    """Whether a key occurs again, in what is new or beside what is stored; and at another time."""
    if not source.key:
        return False, False
    keys, availability = quoted(*source.key), quoted(source.availability)
    groups = f"SELECT 1 FROM _staged GROUP BY {keys} HAVING"
    repeats = not engine.are_distinct("_staged", keys) and engine.holds(f"{groups} count(*) > 1")
    if repeats and engine.holds(f"{groups} min({availability}) <> max({availability})"):
        return True, True
    if state is None:
        return repeats, False
    stored = f"{engine.scan(state)} AS stored"
    is_stored = engine.holds(f"SELECT 1 FROM _staged SEMI JOIN {stored} USING ({keys})")
    return repeats or is_stored, is_stored


def _versions(engine: Engine, select: str, source: Source, state: TableState | None) -> str:
    """Return the new rows, and the stored rows that they close at another time than before."""
    columns = quoted(*source.stored, *INTERNAL[:-1])
    every = f"SELECT *, _superseded_at AS _closed, FALSE AS _is_stored FROM ({select})"
    if state is not None:
        every += (
            f" UNION ALL BY NAME SELECT *, _superseded_at AS _closed, TRUE AS _is_stored "
            f"FROM {engine.scan(state)} SEMI JOIN _staged USING ({quoted(*source.key)})"
        )
    return (
        f"SELECT {columns}, _until AS _superseded_at, _is_stored "
        f"FROM (SELECT *, {superseded_at(source)} AS _until FROM ({every})) "
        "WHERE NOT _is_stored OR _until IS DISTINCT FROM _closed ORDER BY _row_no"
    )


def _parse(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
