"""Materialization: the newest features of every entity, and recent events, into the online store.

Records are written in the order of the entities, chunk by chunk, each with a checkpoint: a killed
run goes on behind its last chunk, a finished one is not repeated, and runs may overlap. Values are
those of the feature table, or (daily views of an event grid) are computed as of the last complete
midnight, for every entity that has an accepted row in any source. An entity that left the
population keeps its last record until that expires. A table that the present definitions no longer
use stays for a day, for services of the earlier configuration, and is dropped by the next run.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import repeat
from typing import Any

from mlops_pipeline.config.tables import Grid
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.periods import Period, default_as_of
from mlops_pipeline.core.features.frames import EVENT_ROW, entity_frame
from mlops_pipeline.errors import DataError, NotFoundError
from mlops_pipeline.lifecycle.bookkeeping import get_pointer
from mlops_pipeline.lifecycle.context import Accepted, Context
from mlops_pipeline.lifecycle.features import offline
from mlops_pipeline.lifecycle.features.history import select_features
from mlops_pipeline.lifecycle.features.online.layout import (
    DAY_US,
    EventStream,
    OnlineLayout,
    RecordsCheckpoint,
    StreamCheckpoint,
    checkpoint_text,
    from_us,
    online_layout,
    read_checkpoint,
    to_us,
)
from mlops_pipeline.lifecycle.ingest.accepted import (
    accepted_sources,
    decisive_marks,
    register_accepted,
    row_guarantees,
)
from mlops_pipeline.stores.lake.engine import literal, quoted, sql_timestamp
from mlops_pipeline.stores.online.codec import RecordSchema
from mlops_pipeline.stores.online.interface import (
    OnlineStore,
    OnlineTable,
    StoredRecord,
    open_online_store,
)
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings, parse_time

EVENT_SLICE_ROWS = 200_000  # rows of a source between two checkpoints of its stream
RETIRED_US = DAY_US  # time enough to bring a new configuration to every service
IN_FORCE = "in_force"  # the name under which the list of tables is kept
CHUNK_ROWS = 20_000  # written at once: some megabytes
SLICE_ROWS = 100_000  # entities that are read or computed at once: memory does not grow with them
WRITE_TIMEOUT_MS = 30_000  # a chunk waits for other writers
TICK = timedelta(microseconds=1)
MIDNIGHTS = Grid(every="day")


@dataclass(frozen=True)
class Materialized:
    """What one run did: `rows` and `events` were written."""

    rows: int
    feature_time: datetime | None
    table: str  # of records, or the first stream
    is_new: bool
    events: int = 0
    entities: int = 0  # that have a record of `feature_time`, by this run or an earlier one
    stale_views: tuple[str, ...] = ()  # stored ones, older now than their `freshness_days`


@dataclass(frozen=True)
class _Run:
    """What a run works with; `through` as in `accepted_through`."""

    context: Context
    accepted: Accepted
    store: OnlineStore
    layout: OnlineLayout
    through: datetime
    now_us: int
    chunk_rows: int
    key: str  # of the entity, as an SQL identifier
    is_by_event: bool


def open_writer(settings: Settings) -> OnlineStore:
    """Open the online store for writing chunks."""
    return open_online_store(settings.online_url, timeout_ms=WRITE_TIMEOUT_MS)


def accepted_through(ops: OpsDatabase, use_case: UseCase) -> datetime | None:
    """Return the as_of up to which these definitions passed the leak check; None: never yet."""
    pointer = get_pointer(ops, use_case.name, "features")
    if pointer is None or pointer.value["definitions"] != offline.definitions_hash(use_case):
        return None
    return datetime.fromisoformat(pointer.value["as_of"])


def materialize_accepted(
    context: Context, ops: OpsDatabase, store: OnlineStore, *, now: datetime
) -> Materialized:
    """Materialize what the pointers accept: a period that failed the leak check stays out."""
    through = accepted_through(ops, context.use_case)
    if through is None:
        raise NotFoundError(
            f"{context.use_case.name} has no accepted features of the present definitions",
            expected="a features run that passed the leak check",
            way_out=f"mlops run {context.use_case.name}",
        )
    accepted = accepted_sources(ops, context.use_case)
    return materialize(context, accepted, store, through=through, now=now)


def materialize(
    context: Context,
    accepted: Accepted,
    store: OnlineStore,
    *,
    through: datetime,
    now: datetime,
    chunk_rows: int = CHUNK_ROWS,
) -> Materialized:
    """Bring the online store up to the newest accepted features; again changes nothing."""
    use_case = context.use_case
    layout = online_layout(use_case)
    streams = [EventStream(use_case, source) for source in layout.sources]
    records = layout.records()
    tables = [*([records[0]] if records else []), *(stream.table for stream in streams)]
    if not tables:  # everything comes with the request
        return Materialized(rows=0, feature_time=None, table="", is_new=False)
    key, is_by_event = quoted(use_case.entity.key), use_case.grid.every == "event"
    run = _Run(context, accepted, store, layout, through, to_us(now), chunk_rows, key, is_by_event)
    if run.is_by_event:
        register_accepted(context, accepted)
    events = sum(_append_events(run, stream) for stream in streams)
    done = Materialized(0, None, tables[0].name, is_new=events > 0, events=events)
    if records:
        rows, written = _write_newest(run, *records)
        age_us = run.now_us - written.feature_time_us
        ages = {name: use_case.views[name].freshness_days for name in layout.stored}
        stale = (name for name, days in ages.items() if days is not None and age_us > days * DAY_US)
        done = replace(
            done,
            rows=rows,
            feature_time=from_us(written.feature_time_us),
            is_new=bool(rows or events),
            entities=written.rows,
            stale_views=tuple(stale),
        )
    _put_in_force(run, tables)
    return done


@dataclass(frozen=True)
class _InForce:
    """Names of the tables in force, and of those retired with the time of it."""

    tables: list[str] = field(default_factory=list)
    retired: dict[str, int] = field(default_factory=dict)


def stored_tables(store: OnlineStore, use_case: str) -> list[str]:
    """Return the names of the tables in force, and of those retired."""
    listed = read_checkpoint(store, OnlineTable(use_case, IN_FORCE), _InForce) or _InForce()
    return [*listed.tables, *listed.retired]


def _put_in_force(run: _Run, tables: Iterable[OnlineTable]) -> None:
    """Say that these tables are complete; retire the others, drop those retired long ago."""
    place = OnlineTable(run.context.use_case.name, IN_FORCE)
    before = read_checkpoint(run.store, place, _InForce) or _InForce()
    after = _InForce([table.name for table in tables])
    for name in (*before.tables, *before.retired):
        since_us = before.retired.get(name, run.now_us)
        if name in after.tables:
            continue
        if run.now_us - since_us >= RETIRED_US:
            run.store.drop(place._replace(name=name))
        else:
            after.retired[name] = since_us
    if after != before:
        run.store.set_checkpoint(place, checkpoint_text(after))


def _write_newest(
    run: _Run, table: OnlineTable, schema: RecordSchema
) -> tuple[int, RecordsCheckpoint]:
    """Write the newest values that the table lacks; return how many, and what is there now."""
    if run.layout.expiry_days is not None:
        run.store.purge(table, now_us=run.now_us)
    found, newest_us = read_checkpoint(run.store, table, RecordsCheckpoint), _newest_us(run)
    was_complete = found is not None and found.was_complete
    begun = RecordsCheckpoint(newest_us, None, False, was_complete, run.layout.expiry_days, 0)
    if found is not None:  # go on with a run that was killed, but behind values of another time
        is_same = (found.feature_time_us, found.expiry_days) == (newest_us, begun.expiry_days)
        begun = found if is_same or found.feature_time_us > newest_us else begun
    if begun.is_done:
        return 0, begun
    reached = begun
    time_us, days = begun.feature_time_us, begun.expiry_days
    expires_at_us = None if days is None else time_us + days * DAY_US
    for batch in _snapshot(run, from_us(time_us), after=begun.last):
        keys = batch.column(0).cast("string").to_pylist()
        blobs = schema.encode_batch(batch, time_us)
        chunk = list(map(StoredRecord, keys, repeat(time_us), repeat(expires_at_us), blobs))
        reached = replace(reached, last=keys[-1], rows=reached.rows + len(chunk))
        text = checkpoint_text(reached)
        run.store.write_records(table, chunk, now_us=run.now_us, checkpoint=text)
    done = replace(reached, last=None, is_done=True, was_complete=True)
    run.store.set_checkpoint(table, checkpoint_text(done))
    return done.rows - begun.rows, done


def _newest_us(run: _Run) -> int:
    """Return the newest time whose values are final: a finished period's, or a midnight."""
    use_case = run.context.use_case
    if not run.is_by_event:
        starts = (parse_time(name) for name in offline.finished_periods(run.context))
        newest = max((start for start in starts if start <= run.through), default=None)
        if newest is None:
            raise NotFoundError(
                "there are no features",
                where=offline.features_uri(run.context),
                way_out=f"materialize {use_case.name}/features first",
            )
        return to_us(newest)
    names = {use_case.views[name].source for name in run.layout.stored}
    marks = decisive_marks(use_case, {name: run.accepted[name].watermark for name in names})
    if not marks:
        raise DataError("no source of a daily view holds a row", where=use_case.name)
    return to_us(default_as_of(MIDNIGHTS, from_us(run.now_us), marks))


def _snapshot(run: _Run, as_of: datetime, *, after: str | None) -> Iterator[Any]:
    """Yield Arrow batches in the order of the key, behind `after`: the key, the stored features."""
    key, engine, use_case = run.key, run.context.engine, run.context.use_case
    if run.is_by_event:  # every entity that a source of a view has
        names = dict.fromkeys(view.source for view in use_case.views.values())
        keys = " UNION ".join(f"SELECT DISTINCT {key} FROM {quoted(name)}" for name in names)
    else:
        keys = _finished(run, as_of, key)
    behind = ""
    if after is not None:
        kind = use_case.sources[use_case.population.source].column(use_case.entity.key).type
        behind = f"AND {key} > {int(after) if kind == 'int64' else literal(after)}"
    engine.create_table(
        "_online_keys",
        f"SELECT {key}, {sql_timestamp(as_of)} AS as_of, "
        f"row_number() OVER (ORDER BY {key}) - 1 AS {EVENT_ROW} FROM ({keys}) "
        f"WHERE {key} IS NOT NULL {behind}",
    )
    count = int(engine.query("SELECT count(*) FROM _online_keys")[0][0])
    statement = ""
    for start in range(0, count, SLICE_ROWS):
        places = f"{EVENT_ROW} >= {start} AND {EVENT_ROW} < {start + SLICE_ROWS}"
        engine.create_view("_online_slice", f"SELECT * FROM _online_keys WHERE {places}")
        statement = statement or _of_slice(run, as_of)
        yield from engine.batches(statement, run.chunk_rows)


def _finished(run: _Run, as_of: datetime, columns: str) -> str:
    rows = run.context.engine.scan(offline.feature_table(run.context))
    return f"SELECT {columns} FROM {rows} WHERE as_of = {sql_timestamp(as_of)}"


def _of_slice(run: _Run, as_of: datetime) -> str:
    """Return the query of the entities in `_online_slice`; accepted sources are registered."""
    engine, names, key = run.context.engine, run.layout.stored_names, run.key
    if not run.is_by_event:
        rows = _finished(run, as_of, f"{key}, {quoted(*names)}")
        return f"SELECT * FROM ({rows}) SEMI JOIN _online_slice USING ({key}) ORDER BY {key}"
    use_case = select_features(run.context.use_case, names)
    tables = {}
    for name in dict.fromkeys(view.source for view in use_case.views.values()):
        mine = f"SELECT * FROM {quoted(name)} SEMI JOIN _online_slice USING ({key})"
        tables[name] = engine.register(f"_online_{name}", f"({mine})")
    guarantees = row_guarantees(use_case, run.accepted)
    period = Period(as_of, as_of + TICK)
    frame = entity_frame(use_case, tables, engine.table("_online_slice"), period, guarantees)
    return engine.compile(frame.select(use_case.entity.key, *names).order_by(use_case.entity.key))


def _append_events(run: _Run, stream: EventStream) -> int:
    """Add what a stream lacks, from its last checkpoint on; return how many events."""
    item = run.accepted[stream.source]
    before = read_checkpoint(run.store, stream.table, StreamCheckpoint)
    if item.watermark is None:
        return 0
    target = _target(run, stream, item.watermark, before)
    if before == target:
        return 0
    added = _append(run, stream, _released(run, stream, before), target) if before else 0
    for start in range(before.rows if before else 0, target.rows, EVENT_SLICE_ROWS):
        end = min(start + EVENT_SLICE_ROWS, target.rows)
        added += _append(run, stream, f"_row_no >= {start} AND _row_no < {end}", target)
        step = replace(target, rows=end, is_complete=bool(before and before.is_complete))
        run.store.set_checkpoint(stream.table, checkpoint_text(step))
    run.store.set_checkpoint(stream.table, checkpoint_text(target))
    return added


def _target(
    run: _Run, stream: EventStream, watermark: datetime, before: StreamCheckpoint | None
) -> StreamCheckpoint:
    """Return the checkpoint of a stream that has everything that is accepted."""
    item, finished = run.accepted[stream.source], offline.finished_through(run.context)
    newest_us = min(to_us(watermark), run.now_us)
    times = {
        "late_before_us": max(to_us(watermark), to_us(finished) if finished else 0),
        "newest_us": newest_us,
        "kept_from_us": newest_us - stream.keep_us,
    }
    if before is not None:
        times = {name: max(time_us, getattr(before, name)) for name, time_us in times.items()}
    return StreamCheckpoint(item.numbered, item.quarantine_version, is_complete=True, **times)


def _released(run: _Run, stream: EventStream, before: StreamCheckpoint) -> str:
    """Return SQL of the rows that were in quarantine when the stream was filled last."""
    lake, use_case = run.context.lake, run.context.use_case
    if before.quarantine in (None, run.accepted[stream.source].quarantine_version):
        return "FALSE"
    uri = lake.table_uri(use_case.name, "quarantine", stream.source)
    state = lake.state(uri, before.quarantine)
    if state is None:  # erased with a person: any recent row may have been in it
        return "TRUE"
    return f"_row_no IN (SELECT _row_no FROM {run.context.engine.scan(state)})"


def _append(run: _Run, stream: EventStream, condition: str, target: StreamCheckpoint) -> int:
    """Add the events of some rows, with the other versions of theirs."""
    engine, revised = run.context.engine, run.accepted[stream.source].has_revisions
    rows = f"SELECT {stream.columns()} FROM {quoted(stream.source)}"
    chosen = f"{rows} WHERE {condition}"
    if not revised:
        chosen += f" AND _happened_us >= {target.kept_from_us}"
    else:
        chosen = f"SELECT v.* FROM ({rows}) AS v SEMI JOIN ({chosen}) AS c USING (_identity)"
    engine.create_table("_online_events", chosen)
    query = stream.versions("_online_events", revised=revised)
    kept = f"SELECT * FROM ({query}) WHERE _kept_us >= {target.kept_from_us}"
    keep_us = target.kept_from_us
    return sum(
        run.store.append_events(stream.table, stream.encode(batch), keep_after_us=keep_us)
        for batch in engine.batches(kept, run.chunk_rows)
    )
