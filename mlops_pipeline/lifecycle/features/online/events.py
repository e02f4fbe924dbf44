"""The stream of events of a source: which rows become events of whom, and an event as bytes.

A row of the source is a version of an event; a revision that gives the event to another entity is
also told to the entity that loses it. Rows in quarantine are no events.

Belongs here: accepted rows into the stream. Events pushed as they happen are live_events.py's, what
is counted from them core/features/streams.py's.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, cast

from mlops_pipeline.config.features import FeatureType
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.expressions.values import Kind, Value
from mlops_pipeline.core.features.streams import (
    Event,
    stream_columns,
    stream_fresh_us,
    stream_reach,
)
from mlops_pipeline.lifecycle.context import AcceptedSource, Context
from mlops_pipeline.lifecycle.features.offline import finished_through
from mlops_pipeline.lifecycle.features.online.checkpoint import StreamMarker, read_marker, written
from mlops_pipeline.lifecycle.features.online.layout import DAY_US, US, digest, microseconds
from mlops_pipeline.stores.lake.engine import quoted
from mlops_pipeline.stores.online.codec import RecordSchema
from mlops_pipeline.stores.online.interface import OnlineStore, OnlineTable, StoredEvent

SEMANTICS = 1  # raise it when the same rows come to be other events
SLICE_ROWS = 200_000  # rows of the source between two marks of progress
EPOCH_DATE = date(1970, 1, 1)
EPOCH_TIME = datetime(1970, 1, 1)  # noqa: DTZ001 # naive UTC, as in the tables
OWN: dict[str, FeatureType] = {"_declared_us": "int64", "_arrival": "int64", "_is_here": "boolean"}


class EventStream:
    """The stream of one source of a use case.

    Attributes
    ----------
    table : OnlineTable
        Where its events are.
    reach_us : int
        How far before a moment an event can count at it.
    fresh_us : int
        How long a silent stream is taken to have no events.
    keep_us : int
        How long events are kept: the reach, and the lateness that the source allows.
    """

    def __init__(self, use_case: UseCase, source: str) -> None:
        self.use_case, self.source = use_case, source
        section = use_case.sources[source]
        self._kinds = stream_columns(use_case, source)
        label = use_case.label
        content = [SEMANTICS, use_case.entity.key, list(section.key), section.event_time]
        content += [section.availability, self._kinds]
        content += [rule.model_dump(mode="json") for rule in section.rules]
        if label.kind == "column" and label.source == source:
            content += [label.column, label.positive, label.negative]
        identity = digest(content)
        self.table = OnlineTable(use_case.name, f"events_{source}_{identity}")
        types = [*OWN.values(), *map(_stored_type, self._kinds.values())]
        self._schema = RecordSchema([*OWN, *self._kinds], types, identity)
        self._restored = [
            (place, kind)
            for place, kind in enumerate(self._kinds.values())
            if kind in ("timestamp", "date")
        ]
        self.reach_us = stream_reach(use_case, source) // US
        self.fresh_us = stream_fresh_us(use_case, source)
        self.keep_us = self.reach_us + section.lateness_days * DAY_US

    def encode(self, rows: Any) -> list[StoredEvent]:
        """Return Arrow rows, with the columns of `columns` and of `versions`, as events."""
        payloads = self._schema.encode_batch(rows, rows.column("_happened_us").to_numpy())
        columns = ("_entity", "_version", "_kept_us", "_known_us")
        parts = (rows.column(name).to_pylist() for name in columns)
        return list(map(StoredEvent, *parts, payloads))

    def decode(self, stored: StoredEvent) -> Event:
        """Return an event as it was encoded."""
        happened_us, (declared, arrival, is_here, *held) = self._schema.decode(stored.payload)
        values: list[Value] = [*held]
        for place, kind in self._restored:
            values[place] = _restored(values[place], kind)
        return Event(
            stored.identity.rpartition("@")[0],
            happened_us,
            cast(int, declared),
            stored.available_at_us,
            cast(int, arrival),
            tuple(values) if is_here else None,
        )

    def columns(self) -> str:
        """Return SQL of what is made of a row of the source, with `_row_no`, `_available_at`.

        `_identity` is the event's own: its key; a row that lacks a part of it is one for itself.
        """
        section = self.use_case.sources[self.source]
        texts = [f"{quoted(column)}::VARCHAR" for column in section.key]
        identity = " || '/' || ".join(f"length({text}) || ':' || {text}" for text in texts)
        declared = f"epoch_us({quoted(section.availability)})"
        fields = [
            f"{quoted(self.use_case.entity.key)}::VARCHAR AS _entity",
            f"coalesce({identity}, '#' || _row_no) AS _identity",
            f"epoch_us({quoted(section.event_time)}) AS _happened_us",
            f"{declared} AS _declared_us",
            "epoch_us(_available_at) AS _known_us",
            "_row_no AS _arrival",
            *(f"{_stored(name, kind)} AS {quoted(name)}" for name, kind in self._kinds.items()),
        ]
        return ", ".join(fields)

    def versions(self, rows: str, *, revised: bool) -> str:
        """Return the query of events from a FROM item of `columns`: one row a version and entity.

        `_kept_us` is the time by which a version is removed: an event's versions go together.
        """
        names = ", ".join(map(quoted, self._kinds))
        times = "_happened_us, _declared_us, _known_us, _arrival"
        version = "_identity || '@' || _declared_us AS _version"
        fields = f"{version}, {times}{', ' + names if names else ''}"
        if not revised:
            return (
                f"SELECT _entity, {fields}, TRUE AS _is_here, _happened_us AS _kept_us "
                f"FROM {rows} WHERE _entity IS NOT NULL"
            )
        return (
            f"SELECT owner._entity, {fields}, "
            "v._entity IS NOT DISTINCT FROM owner._entity AS _is_here, "
            "max(_happened_us) OVER (PARTITION BY _identity) AS _kept_us "
            f"FROM {rows} AS v JOIN (SELECT DISTINCT _identity, _entity FROM {rows} "
            "WHERE _entity IS NOT NULL) AS owner USING (_identity)"
        )


@dataclass(frozen=True)
class AcceptedEvents:
    """The accepted rows of a source, on their way into its stream.

    The source is registered (see `register_accepted`).
    """

    context: Context
    item: AcceptedSource
    stream: EventStream
    store: OnlineStore
    chunk_rows: int

    def push(self, *, now: datetime) -> int:
        """Add what the stream lacks; return how many events that were.

        A killed run goes on after its last mark.
        """
        table = self.stream.table
        held = read_marker(self.store, table, StreamMarker)
        if self.item.watermark is None:
            return 0
        target = self._target(self.item.watermark, now, held)
        if held == target:
            return 0
        added = self._add(self._released(held), target) if held else 0
        for start in range(held.rows if held else 0, target.rows, SLICE_ROWS):
            end = min(start + SLICE_ROWS, target.rows)
            added += self._add(f"_row_no >= {start} AND _row_no < {end}", target)
            step = replace(target, rows=end, is_complete=bool(held and held.is_complete))
            self.store.set_checkpoint(table, written(step))
        self.store.set_checkpoint(table, written(target))
        return added

    def _target(
        self, watermark: datetime, now: datetime, held: StreamMarker | None
    ) -> StreamMarker:
        """Return the marker of a stream that has everything that is accepted."""
        watermark_us = microseconds(watermark)
        finished = finished_through(self.context)
        newest_us = min(watermark_us, microseconds(now))
        found = StreamMarker(
            rows=self.item.numbered,
            quarantine=self.item.quarantine_version,
            is_complete=True,
            late_before_us=max(watermark_us, microseconds(finished) if finished else 0),
            newest_us=newest_us,
            kept_from_us=newest_us - self.stream.keep_us,
        )
        if held is None:
            return found
        return replace(
            found,
            late_before_us=max(found.late_before_us, held.late_before_us),
            newest_us=max(found.newest_us, held.newest_us),
            kept_from_us=max(found.kept_from_us, held.kept_from_us),
        )

    def _released(self, held: StreamMarker) -> str:
        """Return SQL of the rows that were in quarantine when the stream was filled last."""
        if held.quarantine in (None, self.item.quarantine_version):
            return "FALSE"
        lake, use_case = self.context.lake, self.context.use_case
        uri = lake.table_uri(use_case.name, "quarantine", self.stream.source)
        state = lake.state(uri, held.quarantine)
        if state is None:  # erased with a person: any recent row may have been in it
            return "TRUE"
        return f"_row_no IN (SELECT _row_no FROM {self.context.engine.scan(state)})"

    def _add(self, condition: str, target: StreamMarker) -> int:
        """Add the events of some rows, with the other versions of theirs."""
        sql, stream = self.context.engine.sql, self.stream
        rows = f"SELECT {stream.columns()} FROM {quoted(stream.source)}"
        chosen = f"{rows} WHERE {condition}"
        if not self.item.has_revisions:
            chosen += f" AND _happened_us >= {target.kept_from_us}"
        else:
            chosen = f"SELECT v.* FROM ({rows}) AS v SEMI JOIN ({chosen}) AS c USING (_identity)"
        sql.execute(f"CREATE OR REPLACE TEMP TABLE _online_events AS {chosen}")
        query = stream.versions("_online_events", revised=self.item.has_revisions)
        reader = sql.sql(
            f"SELECT * FROM ({query}) WHERE _kept_us >= {target.kept_from_us}"
        ).to_arrow_reader(self.chunk_rows)
        return sum(
            self.store.append_events(
                stream.table, stream.encode(batch), keep_after_us=target.kept_from_us
            )
            for batch in reader
        )


def _stored(name: str, kind: Kind) -> str:
    """Return SQL of a column as one of the types that records hold."""
    column = quoted(name)
    if kind == "timestamp":
        return f"epoch_us({column})"
    return f"({column} - DATE '1970-01-01')::BIGINT" if kind == "date" else column


def _stored_type(kind: Kind) -> FeatureType:
    return "int64" if kind in ("timestamp", "date") else cast(FeatureType, kind)


def _restored(value: Any, kind: Kind) -> Value:
    if value is None:
        return None
    if kind == "date":
        return EPOCH_DATE + timedelta(days=value)
    return EPOCH_TIME + timedelta(microseconds=value)
