"""Incremental ingestion of a source into its raw Delta table.

A row's identity is its content and, for true duplicates, its occurrence: a delivery is compared
as a bag with what is stored, so a second run on the same files adds nothing. For a source with a
key, a row with a known key and other content is a revision: it closes the earlier row at the
moment the revision could be known, so that every as_of still sees what was known then. The newest
version is the one of the latest declared availability, then of the latest arrival.

Stored beside the declared columns:

    _row_no         position of the row in the table's history, from 0
    _available_at   when the row counts as known: its declared availability; for a row that
                    arrives behind the watermark, the time of its ingestion
    _ingested_at    the Clock at ingestion
    _superseded_at  when a revision replaced it, or null

A little over 300 lines: identity, lateness and revisions are one argument, read in one place.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mlops_pipeline.config.tables import Source
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.ingest.erased import without_forgotten
from mlops_pipeline.stores.lake.engine import Engine, literal, quoted
from mlops_pipeline.stores.lake.tables import TableState
from mlops_pipeline.stores.sources.files import Delivery, open_delivery, readable

INTERNAL = ("_row_no", "_available_at", "_ingested_at", "_superseded_at")


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
    rows_forgotten: int
    watermark: datetime | None
    content_hash: str
    files: tuple[str, ...]


def ingest(
    context: Context,
    name: str,
    *,
    now: datetime,
    finished_through: datetime | None,
    forgotten: Collection[str] = (),
) -> Ingested:
    """Bring what is new in a source's files into its raw table.

    Parameters
    ----------
    now : datetime
        The Clock, UTC.
    finished_through : datetime or None
        The newest finished feature period: a row that becomes known only now counts from now.
    forgotten : collection of str
        Pseudonyms of entities whose rows are dropped as if they were not delivered.

    Raises
    ------
    SourceError
        For files that cannot be used; the table is then untouched.
    """
    engine, source = context.engine, context.use_case.sources[name]
    delivery = open_delivery(engine, context.settings, context.use_case, name)
    uri = context.lake.table_uri(context.use_case.name, "raw", name)
    state = context.lake.state(uri)
    with readable(source, ", ".join(delivery.files)):
        kept = without_forgotten(context, name, delivery.select, forgotten)
        engine.sql.execute(f"CREATE OR REPLACE TEMP VIEW _delivery AS {kept.select}")
        too_late = _stage(engine, source, state)
        increment = _facts(engine, source, state, now=now, finished_through=finished_through)
    counts = {"missed": too_late, "forgotten": kept.dropped, "added": increment["rows_added"]}
    if state is not None and increment["rows_added"] == 0:
        return _result(name, delivery, state.facts, uri=uri, version=state.version, **counts)
    version = _write(context, source, state, increment, uri=uri)
    return _result(name, delivery, increment, uri=uri, version=version, **counts)


def _stage(engine: Engine, source: Source, state: TableState | None) -> int:
    """Make `_staged` = the rows of the delivery that the table lacks; count those too late."""
    engine.sql.execute("DROP TABLE IF EXISTS _increment")
    if state is None:
        engine.sql.execute("CREATE OR REPLACE TEMP VIEW _staged AS SELECT * FROM _delivery")
        return 0
    columns = ", ".join(quoted(column) for column in source.columns)
    availability = quoted(source.availability)
    recent = "TRUE"
    if state.facts.get("watermark"):
        watermark = datetime.fromisoformat(state.facts["watermark"])
        cut = _timestamp(watermark - timedelta(days=source.lateness_days))
        recent = f"({availability} IS NULL OR {availability} >= {cut})"
    stored = engine.scan(state)
    engine.sql.execute(
        f"CREATE TEMP TABLE _increment AS "
        f"SELECT {columns} FROM _delivery WHERE {recent} "
        f"EXCEPT ALL SELECT {columns} FROM {stored} WHERE {recent}"
    )
    engine.sql.execute("CREATE OR REPLACE TEMP VIEW _staged AS SELECT * FROM _increment")
    return 0 if recent == "TRUE" else _missed(engine, columns, stored, f"NOT {recent}")


def _missed(engine: Engine, columns: str, stored: str, behind: str) -> int:
    """Count rows of the delivery that came too late to be added and that the table does not hold.

    Usually the old part of a delivery is absent or unchanged: a sum of hashes says so quickly.
    """
    bag = f"count(*), sum(hash({columns})::HUGEINT)"
    delivered = engine.query(f"SELECT {bag} FROM _delivery WHERE {behind}")[0]
    if (
        delivered[0] == 0
        or delivered == engine.query(f"SELECT {bag} FROM {stored} WHERE {behind}")[0]
    ):
        return 0
    return int(
        engine.query(
            f"SELECT count(*) FROM (SELECT {columns} FROM _delivery WHERE {behind} "
            f"EXCEPT ALL SELECT {columns} FROM {stored} WHERE {behind})"
        )[0][0]
    )


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
    late_before = max(
        (moment for moment in (watermark, finished_through) if moment and state), default=None
    )
    availability = quoted(source.availability)
    late = f"{availability} < {_timestamp(late_before)}" if late_before else "FALSE"
    columns = ", ".join(quoted(column) for column in source.columns)
    added, newest, late_rows, digest = engine.query(
        f"SELECT count(*), max({availability}) FILTER ({availability} <= {_timestamp(now)}), "
        f"count(*) FILTER ({late}), coalesce(sum(hash({columns})::HUGEINT), 0) FROM _staged"
    )[0]
    newest = newest.replace(tzinfo=UTC) if newest else None
    marks = [moment for moment in (watermark, newest) if moment]
    modulus = 2**64
    previous = int(before.get("content_hash", "0"), 16)
    return {
        "rows": int(before.get("rows", 0)) + int(added),
        "rows_added": int(added),
        "rows_late": int(late_rows),
        "rows_revised": 0,
        "has_revisions": bool(before.get("has_revisions", False)),
        "watermark": max(marks).isoformat() if marks else None,
        "late_before": late_before.isoformat() if late_before else None,
        "content_hash": f"{(previous + int(digest)) % modulus:016x}",
        "ingested_at": now.isoformat(),
        "removed": int(before.get("removed", 0)),
    }


def _write(
    context: Context, source: Source, state: TableState | None, facts: dict[str, Any], *, uri: str
) -> int:
    engine, lake = context.engine, context.lake
    repeats = bool(source.key) and _keys_repeat(engine, source, state)
    select = _select_new(source, facts, keys_repeat=repeats)
    before = state is not None and bool(state.facts.get("keys_repeat", True))
    facts["keys_repeat"] = repeats or before
    first = int(facts["rows"]) - int(facts["rows_added"]) + int(facts["removed"])
    if not repeats or not _has_revisions(engine, source, state):
        return lake.write(uri, _numbered(engine.batches(select), first), facts, "append")
    facts["has_revisions"] = True
    order = ", ".join(_order(source, keys_repeat=True))
    number = f"SELECT *, {first} + row_number() OVER (ORDER BY {order}) - 1 AS _row_no"
    versions = _versions(engine, f"{number} FROM ({select})", source, state)
    facts["rows_revised"] = int(
        engine.query(f"SELECT count(_superseded_at) FROM ({versions})")[0][0]
    )
    if state is None:
        every = f"SELECT * EXCLUDE (_is_stored) FROM ({versions})"
        return lake.write(uri, engine.batches(every), facts, "append")
    return lake.supersede(uri, engine.sql.sql(versions).to_arrow_table(), facts)


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


def _select_new(source: Source, facts: dict[str, Any], *, keys_repeat: bool) -> str:
    """Return the query of the new rows, in the order of their numbers."""
    columns = ", ".join(quoted(column) for column in source.columns)
    availability = quoted(source.availability)
    effective = availability
    if facts["late_before"]:
        late_before = _timestamp(datetime.fromisoformat(facts["late_before"]))
        known = max(
            datetime.fromisoformat(facts["ingested_at"]),
            datetime.fromisoformat(facts["late_before"]),
        )
        effective = (
            f"CASE WHEN {availability} < {late_before} THEN {_timestamp(known)} "
            f"ELSE {availability} END"
        )
    order = ", ".join(_order(source, keys_repeat=keys_repeat))
    now = _timestamp(datetime.fromisoformat(facts["ingested_at"]))
    return (
        f"SELECT {columns}, {effective} AS _available_at, {now} AS _ingested_at, "
        f"CAST(NULL AS TIMESTAMP) AS _superseded_at FROM _staged ORDER BY {order}"
    )


def _order(source: Source, *, keys_repeat: bool) -> list[str]:
    """Return SQL that puts rows into one order; rows that are equal in it are equal rows."""
    columns = [quoted(column) for column in source.columns]
    first = map(quoted, (source.event_time, source.availability, *source.key))
    ties = columns if keys_repeat else [] if source.key else [f"hash({', '.join(columns)})"]
    return list(dict.fromkeys([*first, *ties]))


def _keys_repeat(engine: Engine, source: Source, state: TableState | None) -> bool:
    """Whether a key occurs more than once, in what is new or beside what is stored."""
    keys = ", ".join(quoted(column) for column in source.key)
    if not engine.are_distinct("_staged", keys) and engine.query(
        f"SELECT 1 FROM _staged GROUP BY {keys} HAVING count(*) > 1 LIMIT 1"
    ):
        return True
    if state is None:
        return False
    stored = engine.scan(state)
    shared = f"SELECT 1 FROM _staged SEMI JOIN {stored} AS stored USING ({keys}) LIMIT 1"
    return bool(engine.query(shared))


def _has_revisions(engine: Engine, source: Source, state: TableState | None) -> bool:
    """Whether a key occurs again, in the delivery or beside the stored rows, at another time."""
    keys = ", ".join(quoted(column) for column in source.key)
    availability = quoted(source.availability)
    repeated = engine.query(
        f"SELECT 1 FROM _staged GROUP BY {keys} "
        f"HAVING min({availability}) <> max({availability}) LIMIT 1"
    )
    if repeated or state is None:
        return bool(repeated)
    return bool(
        engine.query(
            f"SELECT 1 FROM _staged SEMI JOIN {engine.scan(state)} AS stored USING ({keys}) LIMIT 1"
        )
    )


def _versions(engine: Engine, select: str, source: Source, state: TableState | None) -> str:
    """Return the new rows, and the stored rows that they close at another moment than before."""
    keys = ", ".join(quoted(column) for column in source.key)
    columns = ", ".join(quoted(column) for column in (*source.columns, *INTERNAL[:-1]))
    every = f"SELECT *, _superseded_at AS _closed, FALSE AS _is_stored FROM ({select})"
    if state is not None:
        every += (
            f" UNION ALL BY NAME SELECT *, _superseded_at AS _closed, TRUE AS _is_stored "
            f"FROM {engine.scan(state)} SEMI JOIN _staged USING ({keys})"
        )
    return (
        f"SELECT {columns}, _until AS _superseded_at, _is_stored "
        f"FROM (SELECT *, {superseded_at(source)} AS _until FROM ({every})) "
        "WHERE NOT _is_stored OR _until IS DISTINCT FROM _closed ORDER BY _row_no"
    )


def superseded_at(source: Source) -> str:
    """Return SQL for when a row's next version was known, over all versions of its key."""
    keys = [quoted(column) for column in source.key]
    has_key = " AND ".join(f"{key} IS NOT NULL" for key in keys)
    return (
        f"CASE WHEN {has_key} THEN min(_available_at) OVER (PARTITION BY {', '.join(keys)} "
        f"ORDER BY {quoted(source.availability)}, _available_at "
        "GROUPS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) END"
    )


def _result(
    name: str,
    delivery: Delivery,
    facts: Mapping[str, Any],
    *,
    uri: str,
    version: int,
    missed: int,
    forgotten: int,
    added: int,
) -> Ingested:
    return Ingested(
        source=name,
        uri=uri,
        version=version,
        rows=int(facts["rows"]),
        rows_added=added,
        rows_late=int(facts["rows_late"]) if added else 0,
        rows_revised=int(facts["rows_revised"]) if added else 0,
        rows_too_late=missed,
        rows_forgotten=forgotten,
        watermark=_parse(facts.get("watermark")),
        content_hash=str(facts["content_hash"]),
        files=delivery.files,
    )


def _parse(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _timestamp(moment: datetime) -> str:
    naive = moment.astimezone(UTC).replace(tzinfo=None)
    return f"TIMESTAMP {literal(naive.isoformat(sep=' '))}"
