"""Materialization: the newest features of every entity into the online store.

Records are written in the order of the entities, chunk by chunk, each with a marker: a killed run
goes on behind its last chunk, a finished one is not repeated. Values are those of the feature
table (month, week or day grid), or are computed as of the last complete midnight (daily views of an
event grid) as historical features are. Recent events of continuous views are events.py's.

The store refuses a record older than the one it has, so runs may overlap. An entity that left the
population keeps its last record until that expires.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import repeat
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.context import AcceptedSource, Context
from mlops_pipeline.lifecycle.features.offline import definitions_hash
from mlops_pipeline.lifecycle.features.online.checkpoint import (
    RecordsMarker,
    put_in_force,
    read_marker,
    written,
)
from mlops_pipeline.lifecycle.features.online.events import AcceptedEvents, EventStream
from mlops_pipeline.lifecycle.features.online.layout import (
    DAY_US,
    OnlineLayout,
    microseconds,
    moment_of,
    online_layout,
)
from mlops_pipeline.lifecycle.features.online.snapshot import newest_moment, snapshot
from mlops_pipeline.lifecycle.ingest.accepted import (
    accepted_sources,
    register_accepted,
)
from mlops_pipeline.stores.online.codec import RecordSchema
from mlops_pipeline.stores.online.interface import (
    OnlineStore,
    OnlineTable,
    StoredRecord,
    open_online_store,
)
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

CHUNK_ROWS = 20_000  # written at once: some megabytes
WRITE_TIMEOUT_MS = 30_000  # a chunk waits for other writers


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
    """What a run works with."""

    context: Context
    accepted: Mapping[str, AcceptedSource]
    store: OnlineStore
    layout: OnlineLayout
    through: datetime
    now_us: int
    chunk_rows: int


def open_writer(settings: Settings) -> OnlineStore:
    """Open the online store for writing chunks."""
    return open_online_store(settings.online_url, timeout_ms=WRITE_TIMEOUT_MS)


def accepted_through(ops: OpsDatabase, use_case: UseCase) -> datetime | None:
    """Return the as_of up to which features of the present definitions passed the leak check.

    None when no features run of these definitions has ended well: nothing may go online yet.
    """
    pointer = ops.get_pointer(use_case.name, "features")
    if pointer is None or pointer.value["definitions"] != definitions_hash(use_case):
        return None
    return datetime.fromisoformat(pointer.value["as_of"])


def materialize_accepted(
    context: Context, ops: OpsDatabase, store: OnlineStore, *, now: datetime
) -> Materialized:
    """Materialize what the pointers accept: a period that failed the leak check stays out.

    Raises
    ------
    NotFoundError
        When no features of the present definitions were accepted yet.
    """
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

    Parameters
    ----------
    accepted : mapping of source name to AcceptedSource
        What the features were made of.
    through : datetime
        From `accepted_through`: a period behind it was computed, but not accepted.
    now : datetime
        The Clock (UTC): records that have expired by now are removed.
    chunk_rows : int
        Records or events written at once.

    Raises
    ------
    NotFoundError
        When no period is finished.
    OnlineStoreError
        When the store does not take what is written; the next run goes on there.
    """
    layout = online_layout(context.use_case)
    run = _Run(context, accepted, store, layout, through, microseconds(now), chunk_rows)
    streams = [EventStream(context.use_case, source) for source in layout.sources]
    records = layout.records()
    tables = [*([records[0]] if records else []), *(stream.table for stream in streams)]
    if not tables:  # everything comes with the request
        return Materialized(rows=0, feature_time=None, table="", is_new=False)
    if context.use_case.grid.every == "event":
        register_accepted(context, accepted)
    events = sum(
        AcceptedEvents(context, accepted[stream.source], stream, store, chunk_rows).push(now=now)
        for stream in streams
    )
    rows, held = _write_newest(run, *records) if records else (0, None)
    put_in_force(store, context.use_case.name, tables, now_us=run.now_us)
    return Materialized(
        rows=rows,
        feature_time=None if held is None else moment_of(held.feature_time_us),
        table=tables[0].name,
        is_new=bool(rows or events),
        events=events,
        entities=0 if held is None else held.rows,
        stale_views=() if held is None else _stale_views(run, held.feature_time_us),
    )


def _write_newest(run: _Run, table: OnlineTable, schema: RecordSchema) -> tuple[int, RecordsMarker]:
    """Write the newest values that the table lacks; return how many, and what is there now."""
    expiry_days = run.layout.expiry_days
    if expiry_days is not None:
        run.store.purge(table, now_us=run.now_us)
    newest_us = newest_moment(
        run.context, run.accepted, run.layout, through=run.through, now_us=run.now_us
    )
    marker = _begin(read_marker(run.store, table, RecordsMarker), newest_us, expiry_days)
    if marker.is_done:
        return 0, marker
    before = marker.rows
    moment = moment_of(marker.feature_time_us)
    batches = snapshot(
        run.context, run.accepted, run.layout, moment, after=marker.last, chunk_rows=run.chunk_rows
    )
    for batch in batches:
        chunk = _records(batch, schema, marker)
        marker = replace(marker, last=chunk[-1].entity, rows=marker.rows + len(chunk))
        run.store.write_records(table, chunk, now_us=run.now_us, checkpoint=written(marker))
    done = replace(marker, last=None, is_done=True, was_complete=True)
    run.store.set_checkpoint(table, written(done))
    return done.rows - before, done


def _begin(held: RecordsMarker | None, newest_us: int, expiry_days: int | None) -> RecordsMarker:
    """Return the marker to go on from: of the run that was killed, or at the beginning."""
    if held is not None:
        is_same = (held.feature_time_us, held.expiry_days) == (newest_us, expiry_days)
        if is_same or held.feature_time_us > newest_us:
            return held
    was_complete = held is not None and held.was_complete
    return RecordsMarker(newest_us, None, False, was_complete, expiry_days, 0)


def _records(batch: Any, schema: RecordSchema, marker: RecordsMarker) -> list[StoredRecord]:
    """Return the rows of an Arrow batch, whose first column is the key, as records."""
    time_us, days = marker.feature_time_us, marker.expiry_days
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
