"""The stream of events of a source: which rows become events of whom, and an event as bytes.

A row of the source is a version of an event; a revision that gives the event to another entity is
also told to the entity that loses it. Rows in quarantine are no events. Events come from accepted
rows (AcceptedEvents), or are pushed as they happen (LiveEvents). What is counted from them is
core/features/streams.py's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any, cast

from mlops_pipeline.config.tables import FeatureType
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.rules import row_rules
from mlops_pipeline.core.expressions.types import Kind, Value
from mlops_pipeline.core.features.aggregates import Event
from mlops_pipeline.core.features.streams import stream_columns, stream_fresh_us, stream_reach
from mlops_pipeline.errors import DataError, NotFoundError, masked
from mlops_pipeline.lifecycle.context import AcceptedSource, Context
from mlops_pipeline.lifecycle.features.offline import finished_through
from mlops_pipeline.lifecycle.features.online.layout import (
    DAY_US,
    US,
    StreamCheckpoint,
    checkpoint_text,
    digest,
    never_filled,
    online_layout,
    read_checkpoint,
    to_us,
)
from mlops_pipeline.stores.lake.engine import quoted, rows_engine
from mlops_pipeline.stores.online.codec import RecordSchema
from mlops_pipeline.stores.online.interface import OnlineStore, OnlineTable, StoredEvent

NEVER = datetime(9999, 1, 1, tzinfo=UTC)  # times after now are refused by the push itself
SEMANTICS = 1  # raise it when the same rows come to be other events
SLICE_ROWS = 200_000  # rows of the source between two checkpoints
EPOCH_DATE = date(1970, 1, 1)
EPOCH_TIME = datetime(1970, 1, 1)  # noqa: DTZ001 # naive UTC, as in the tables
OWN: dict[str, FeatureType] = {"_declared_us": "int64", "_arrival": "int64", "_is_here": "boolean"}


class EventStream:
    """The stream of one source of a use case.

    An event counts at times up to `reach_us` after it. A stream that is silent for no longer than
    `fresh_us` is taken to have had no events. Events are kept for `keep_us`: the reach, and the
    lateness that the source allows.
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
        """Return the Arrow rows of a `versions` query as events."""
        payloads = self._schema.encode_batch(rows, rows.column("_happened_us").to_numpy())
        columns = ("_entity", "_version", "_kept_us", "_known_us")
        parts = (rows.column(name).to_pylist() for name in columns)
        return list(map(StoredEvent, *parts, payloads))

    def decode(self, stored: StoredEvent) -> Event:
        """Return an event as it was encoded."""
        happened_us, (declared, arrival, is_here, *found) = self._schema.decode(stored.payload)
        values: list[Value] = [*found]
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
    """The accepted rows of a source, registered (see `register_accepted`), on their way."""

    context: Context
    item: AcceptedSource
    stream: EventStream
    store: OnlineStore
    chunk_rows: int

    def push(self, *, now: datetime) -> int:
        """Add what the stream lacks, from its last checkpoint on; return how many events."""
        table = self.stream.table
        before = read_checkpoint(self.store, table, StreamCheckpoint)
        if self.item.watermark is None:
            return 0
        target = self._target(self.item.watermark, now, before)
        if before == target:
            return 0
        added = self._add(self._released(before), target) if before else 0
        for start in range(before.rows if before else 0, target.rows, SLICE_ROWS):
            end = min(start + SLICE_ROWS, target.rows)
            added += self._add(f"_row_no >= {start} AND _row_no < {end}", target)
            step = replace(target, rows=end, is_complete=bool(before and before.is_complete))
            self.store.set_checkpoint(table, checkpoint_text(step))
        self.store.set_checkpoint(table, checkpoint_text(target))
        return added

    def _target(
        self, watermark: datetime, now: datetime, before: StreamCheckpoint | None
    ) -> StreamCheckpoint:
        """Return the checkpoint of a stream that has everything that is accepted."""
        watermark_us = to_us(watermark)
        finished = finished_through(self.context)
        newest_us = min(watermark_us, to_us(now))
        found = StreamCheckpoint(
            rows=self.item.numbered,
            quarantine=self.item.quarantine_version,
            is_complete=True,
            late_before_us=max(watermark_us, to_us(finished) if finished else 0),
            newest_us=newest_us,
            kept_from_us=newest_us - self.stream.keep_us,
        )
        if before is None:
            return found
        return replace(
            found,
            late_before_us=max(found.late_before_us, before.late_before_us),
            newest_us=max(found.newest_us, before.newest_us),
            kept_from_us=max(found.kept_from_us, before.kept_from_us),
        )

    def _released(self, before: StreamCheckpoint) -> str:
        """Return SQL of the rows that were in quarantine when the stream was filled last."""
        if before.quarantine in (None, self.item.quarantine_version):
            return "FALSE"
        lake, use_case = self.context.lake, self.context.use_case
        uri = lake.table_uri(use_case.name, "quarantine", self.stream.source)
        state = lake.state(uri, before.quarantine)
        if state is None:  # erased with a person: any recent row may have been in it
            return "TRUE"
        return f"_row_no IN (SELECT _row_no FROM {self.context.engine.scan(state)})"

    def _add(self, condition: str, target: StreamCheckpoint) -> int:
        """Add the events of some rows, with the other versions of theirs."""
        engine, stream = self.context.engine, self.stream
        rows = f"SELECT {stream.columns()} FROM {quoted(stream.source)}"
        chosen = f"{rows} WHERE {condition}"
        if not self.item.has_revisions:
            chosen += f" AND _happened_us >= {target.kept_from_us}"
        else:
            chosen = f"SELECT v.* FROM ({rows}) AS v SEMI JOIN ({chosen}) AS c USING (_identity)"
        engine.create_table("_online_events", chosen)
        query = stream.versions("_online_events", revised=self.item.has_revisions)
        kept = f"SELECT * FROM ({query}) WHERE _kept_us >= {target.kept_from_us}"
        return sum(
            self.store.append_events(
                stream.table, stream.encode(batch), keep_after_us=target.kept_from_us
            )
            for batch in engine.batches(kept, self.chunk_rows)
        )


@dataclass(frozen=True)
class Pushed:
    """What became of pushed rows.

    `new` events; `refused` rows that break a rule; `late` ones, which declare to have been known
    before what is accepted: they count from their ingestion on, if they are not accepted already.
    """

    rows: int
    new: int
    refused: int
    late: int = 0


class LiveEvents:
    """Pushes events of a source as they happen, before their rows are ingested.

    A pushed row is the event that ingestion will make of it: held against the same rules (compiled
    once, when this is made), known when it declares so. When the row is accepted later, nothing
    changes. Two things only the accepted rows know: from when on a late row counts, which is its
    ingestion; and that a revision gives an event to another entity, which the entity that loses it
    sees with the next materialization.
    """

    def __init__(self, use_case: UseCase, source: str) -> None:
        import pyarrow as pa

        sources = online_layout(use_case).sources
        if source not in sources:
            raise NotFoundError(
                "no online view is counted from events of this source",
                where=use_case.name,
                expected=", ".join(sources) or "a continuous view",
                found=source,
            )
        self.stream = EventStream(use_case, source)
        self._section = section = use_case.sources[source]
        types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(),
                 "boolean": pa.bool_(), "timestamp": pa.timestamp("us"),
                 "date": pa.date32()}  # fmt: skip
        kinds = {name: types[section.column(name).type] for name in section.columns}
        self._schema = pa.schema(kinds)
        self._engine = rows_engine()
        self._engine.register_arrow("_given", self._schema.empty_table())
        table = self._engine.table("_given")
        broken = reduce(or_, row_rules(use_case, source, section, table, NEVER).values())
        checked = self._engine.compile(table.mutate(_is_broken=broken))
        self._engine.create_view("_checked", checked)

    def push(
        self, store: OnlineStore, rows: Sequence[Mapping[str, Any]], *, now: datetime
    ) -> Pushed:
        """Add rows of the source to its stream; the same rows again change nothing."""
        import pyarrow.compute as pc

        before = read_checkpoint(store, self.stream.table, StreamCheckpoint)
        if before is None or not before.is_complete:
            raise never_filled(self.stream.use_case, self.stream.table)
        self._engine.register_arrow("_given", self._arrow(rows))
        self._engine.create_table("_good", self._good(to_us(now)))
        good = self._engine.arrow(self.stream.versions("_good", revised=False))
        events = good.filter(pc.field("_declared_us") >= before.late_before_us)
        newest_us = max([before.newest_us, *events.column("_declared_us").to_pylist()])
        after = replace(
            before,
            newest_us=newest_us,
            kept_from_us=max(before.kept_from_us, newest_us - self.stream.keep_us),
        )
        new = store.append_events(
            self.stream.table,
            self.stream.encode(events),
            keep_after_us=after.kept_from_us,
            checkpoint=checkpoint_text(after),
        )
        return Pushed(len(rows), new, len(rows) - len(good), len(good) - len(events))

    def _arrow(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        import pyarrow as pa

        missing = {name for name in self._schema.names for row in rows if name not in row}
        if missing:
            raise DataError(
                "a pushed event lacks a column",
                where=f"source {self.stream.source}, {', '.join(sorted(missing))}",
                expected="every column of the source; a missing value is null",
            )
        try:
            columns = [
                pa.array([row[field.name] for row in rows], field.type) for field in self._schema
            ]
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(
                "a value of a pushed event is not of its column's type",
                where=f"source {self.stream.source}",
                found=masked(str(error)),
            ) from error
        return pa.table(columns, schema=self._schema)

    def _good(self, now_us: int) -> str:
        """Return the query of the rows that break no rule, in the order in which they count."""
        section, now = self._section, f"make_timestamp({now_us})"
        happened, declared = quoted(section.event_time), quoted(section.availability)
        keys = [quoted(name) for name in section.key]
        order = ", ".join(dict.fromkeys([happened, declared, *keys]))
        conditions = ["NOT _is_broken", f"{happened} <= {now}", f"{declared} <= {now}"]
        conditions += [f"{key} IS NOT NULL" for key in keys]
        return (
            f"SELECT {self.stream.columns()} FROM (SELECT *, {declared} AS _available_at, "
            f"{now_us} + row_number() OVER (ORDER BY {order}) - 1 AS _row_no "
            f"FROM _checked WHERE {' AND '.join(conditions)})"
        )


def push_events(
    use_case: UseCase,
    store: OnlineStore,
    source: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    now: datetime,
) -> Pushed:
    """Push rows once; who pushes often keeps a `LiveEvents`."""
    return LiveEvents(use_case, source).push(store, rows, now=now)


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
