"""Materialization: the newest features of every entity into the online store.

Records are written in the order of the entities, chunk by chunk, each with a checkpoint: a killed
run goes on behind its last chunk, a finished one is not repeated. Values are those of the feature
table (month, week or day grid), or are computed as of the last complete midnight (daily views of an
event grid) by the same parts as historical features, for every entity that has an accepted row in
any source. Recent events of continuous views are events.py's.

The store refuses a record older than the one it has, so runs may overlap. An entity that left the
population keeps its last record until that expires.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import repeat
from typing import Any

from mlops_pipeline.config.tables import Grid
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.periods import Period, default_as_of
from mlops_pipeline.core.features.frames import EVENT_ROW, entity_frame
from mlops_pipeline.errors import DataError, NotFoundError
from mlops_pipeline.lifecycle.bookkeeping import get_pointer
from mlops_pipeline.lifecycle.context import AcceptedSource, Context
from mlops_pipeline.lifecycle.features.history import select_features
from mlops_pipeline.lifecycle.features.offline import (
    definitions_hash,
    features_uri,
    finished_periods,
)
from mlops_pipeline.lifecycle.features.online.events import AcceptedEvents, EventStream
from mlops_pipeline.lifecycle.features.online.layout import (
    DAY_US,
    OnlineLayout,
    RecordsCheckpoint,
    checkpoint_text,
    from_us,
    online_layout,
    put_in_force,
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

CHUNK_ROWS = 20_000  # written at once: some megabytes
SLICE_ROWS = 100_000  # entities that are read or computed at once: memory does not grow with them
WRITE_TIMEOUT_MS = 30_000  # a chunk waits for other writers
TICK = timedelta(microseconds=1)
MIDNIGHTS = Grid(every="day")


@dataclass(frozen=True)
class Materialized:
    """What one run did.

    Attributes
    ----------
    rows, events : int
        Records and events written.
    entities : int
        Records written for the feature time, by this run and earlier ones.
    feature_time : datetime or None
        When the stored values were true; None where no view is stored.
    table : str
        The table of records, or the first stream; empty where nothing is stored.
    is_new : bool
        Whether anything was written.
    stale_views : tuple of str
        Stored views whose values are older now than `freshness_days`.
    """

    rows: int
    feature_time: datetime | None
    table: str
    is_new: bool
    events: int = 0
    entities: int = 0
    stale_views: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Run:
    """What a run works with; `through` as in `accepted_through`."""

    context: Context
    accepted: Mapping[str, AcceptedSource]
    store: OnlineStore
    layout: OnlineLayout
    through: datetime
    now_us: int
    chunk_rows: int

    @property
    def is_by_event(self) -> bool:
        return self.context.use_case.grid.every == "event"

    @property
    def key(self) -> str:
        """The entity's key as an SQL identifier."""
        return quoted(self.context.use_case.entity.key)


def open_writer(settings: Settings) -> OnlineStore:
    """Open the online store for writing chunks."""
    return open_online_store(settings.online_url, timeout_ms=WRITE_TIMEOUT_MS)


def accepted_through(ops: OpsDatabase, use_case: UseCase) -> datetime | None:
    """Return the as_of up to which features of the present definitions passed the leak check.

    None when no features run of these definitions has ended well: nothing may go online yet.
    """
    pointer = get_pointer(ops, use_case.name, "features")
    if pointer is None or pointer.value["definitions"] != definitions_hash(use_case):
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
    accepted: Mapping[str, AcceptedSource],
    store: OnlineStore,
    *,
    through: datetime,
    now: datetime,
    chunk_rows: int = CHUNK_ROWS,
) -> Materialized:
    """Bring the online store up to the newest features; again changes nothing.

    A period behind `through` was computed, but not accepted. Records that have expired by `now`
    are removed. Where the store does not take what is written, the next run goes on there.
    """
    layout = online_layout(context.use_case)
    run = _Run(context, accepted, store, layout, through, to_us(now), chunk_rows)
    streams = [EventStream(context.use_case, source) for source in layout.sources]
    records = layout.records()
    tables = [*([records[0]] if records else []), *(stream.table for stream in streams)]
    if not tables:  # everything comes with the request
        return Materialized(rows=0, feature_time=None, table="", is_new=False)
    if run.is_by_event:
        register_accepted(context, accepted)
    events = sum(
        AcceptedEvents(context, accepted[stream.source], stream, store, chunk_rows).push(now=now)
        for stream in streams
    )
    rows, written = _write_newest(run, *records) if records else (0, None)
    put_in_force(store, context.use_case.name, tables, now_us=run.now_us)
    return Materialized(
        rows=rows,
        feature_time=None if written is None else from_us(written.feature_time_us),
        table=tables[0].name,
        is_new=bool(rows or events),
        events=events,
        entities=0 if written is None else written.rows,
        stale_views=() if written is None else _stale_views(run, written.feature_time_us),
    )


def _write_newest(
    run: _Run, table: OnlineTable, schema: RecordSchema
) -> tuple[int, RecordsCheckpoint]:
    """Write the newest values that the table lacks; return how many, and what is there now."""
    if run.layout.expiry_days is not None:
        run.store.purge(table, now_us=run.now_us)
    begun = _begin(run, read_checkpoint(run.store, table, RecordsCheckpoint))
    if begun.is_done:
        return 0, begun
    reached = begun
    for batch in _snapshot(run, from_us(begun.feature_time_us), after=begun.last):
        chunk = _records(batch, schema, begun)
        reached = replace(reached, last=chunk[-1].entity, rows=reached.rows + len(chunk))
        text = checkpoint_text(reached)
        run.store.write_records(table, chunk, now_us=run.now_us, checkpoint=text)
    done = replace(reached, last=None, is_done=True, was_complete=True)
    run.store.set_checkpoint(table, checkpoint_text(done))
    return done.rows - begun.rows, done


def _begin(run: _Run, found: RecordsCheckpoint | None) -> RecordsCheckpoint:
    """Return the checkpoint to go on from: of the run that was killed, or at the beginning."""
    newest_us, expiry_days = _newest_us(run), run.layout.expiry_days
    if found is not None:
        is_same = (found.feature_time_us, found.expiry_days) == (newest_us, expiry_days)
        if is_same or found.feature_time_us > newest_us:
            return found
    was_complete = found is not None and found.was_complete
    return RecordsCheckpoint(newest_us, None, False, was_complete, expiry_days, 0)


def _records(batch: Any, schema: RecordSchema, begun: RecordsCheckpoint) -> list[StoredRecord]:
    """Return the rows of an Arrow batch, whose first column is the key, as records."""
    time_us, days = begun.feature_time_us, begun.expiry_days
    expires_at_us = None if days is None else time_us + days * DAY_US
    keys = batch.column(0).cast("string").to_pylist()
    blobs = schema.encode_batch(batch, time_us)
    return list(map(StoredRecord, keys, repeat(time_us), repeat(expires_at_us), blobs))


def _stale_views(run: _Run, feature_time_us: int) -> tuple[str, ...]:
    views = run.layout.use_case.views
    age_us = run.now_us - feature_time_us
    return tuple(
        name
        for name in run.layout.stored
        if (days := views[name].freshness_days) is not None and age_us > days * DAY_US
    )


def _newest_us(run: _Run) -> int:
    """Return the newest time whose values are final.

    The start of the newest finished period up to `through`; on an event grid the last midnight up
    to which every source of a daily view is complete: rows that arrive later count as known later.
    """
    use_case = run.context.use_case
    if not run.is_by_event:
        starts = (parse_time(name) for name in finished_periods(run.context))
        newest = max((start for start in starts if start <= run.through), default=None)
        if newest is None:
            raise NotFoundError(
                "there are no features",
                where=features_uri(run.context),
                way_out=f"materialize {use_case.name}/features first",
            )
        return to_us(newest)
    names = {use_case.views[name].source for name in run.layout.stored}
    marks = decisive_marks(use_case, {name: run.accepted[name].watermark for name in names})
    if not marks:
        raise DataError("no source of a daily view holds a row", where=use_case.name)
    return to_us(default_as_of(MIDNIGHTS, from_us(run.now_us), marks))


def _snapshot(run: _Run, as_of: datetime, *, after: str | None) -> Iterator[Any]:
    """Yield Arrow batches: the key, then the stored features; in the order of the key.

    `after` is the entity to go on behind. Entities are taken in slices.
    """
    key, engine = run.key, run.context.engine
    keys = _entities(run) if run.is_by_event else _finished(run, as_of, key)
    behind = "" if after is None else f"AND {key} > {_key_literal(run, after)}"
    engine.create_table(
        "_online_keys",
        f"SELECT {key}, {sql_timestamp(as_of)} AS as_of, "
        f"row_number() OVER (ORDER BY {key}) - 1 AS {EVENT_ROW} FROM ({keys}) "
        f"WHERE {key} IS NOT NULL {behind}",
    )
    _take_slice(run, 0)
    if run.is_by_event:
        statement = _computed(run, as_of)
    else:
        names = ", ".join([key, *map(quoted, run.layout.stored_names)])
        rows = _finished(run, as_of, names)
        statement = f"SELECT * FROM ({rows}) SEMI JOIN _online_slice USING ({key}) ORDER BY {key}"
    count = int(engine.query("SELECT count(*) FROM _online_keys")[0][0])
    for start in range(0, count, SLICE_ROWS):
        _take_slice(run, start)
        yield from engine.batches(statement, run.chunk_rows)


def _take_slice(run: _Run, start: int) -> None:
    """Make `_online_slice` the entities from a place on."""
    end = start + SLICE_ROWS
    places = f"{EVENT_ROW} >= {start} AND {EVENT_ROW} < {end}"
    run.context.engine.create_view("_online_slice", f"SELECT * FROM _online_keys WHERE {places}")


def _finished(run: _Run, as_of: datetime, columns: str) -> str:
    """Return the query of a finished period."""
    uri = features_uri(run.context)
    state = run.context.lake.state(uri)
    if state is None:
        raise NotFoundError("there are no features", where=uri)
    rows = run.context.engine.scan(state)
    return f"SELECT {columns} FROM {rows} WHERE as_of = {sql_timestamp(as_of)}"


def _entities(run: _Run) -> str:
    """Return the query of every entity that a source of a view has."""
    names = dict.fromkeys(view.source for view in run.layout.use_case.views.values())
    return " UNION ".join(f"SELECT DISTINCT {run.key} FROM {quoted(name)}" for name in names)


def _computed(run: _Run, as_of: datetime) -> str:
    """Return the query of a slice as of a midnight; the accepted sources are registered."""
    engine, names = run.context.engine, run.layout.stored_names
    use_case = select_features(run.context.use_case, names)
    tables = {}
    for name in dict.fromkeys(view.source for view in use_case.views.values()):
        mine = f"SELECT * FROM {quoted(name)} SEMI JOIN _online_slice USING ({run.key})"
        tables[name] = engine.register(f"_online_{name}", f"({mine})")
    entity_rows = engine.table("_online_slice")
    guarantees = row_guarantees(use_case, run.accepted)
    frame = entity_frame(use_case, tables, entity_rows, Period(as_of, as_of + TICK), guarantees)
    key = use_case.entity.key
    return engine.compile(frame.select(key, *names).order_by(key))


def _key_literal(run: _Run, key: str) -> str:
    use_case = run.context.use_case
    kind = use_case.sources[use_case.population.source].column(use_case.entity.key).type
    return str(int(key)) if kind == "int64" else literal(key)
