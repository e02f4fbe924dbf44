"""The questions of one read to the online store: records, events, and what is known of whom.

Belongs here: what is asked, and what a store that fails means. What is made of the answers is
plan.py's.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.features.aggregates import Event
from mlops_pipeline.errors import DataError, OnlineStoreError
from mlops_pipeline.lifecycle.features.online.events import EventStream
from mlops_pipeline.lifecycle.features.online.layout import (
    RecordsCheckpoint,
    StreamCheckpoint,
    from_us,
    never_filled,
    read_checkpoint,
)
from mlops_pipeline.lifecycle.features.online.plan import Held
from mlops_pipeline.stores.online.codec import Record, RecordSchema
from mlops_pipeline.stores.online.interface import OnlineStore, OnlineTable, StoredEvent

Found = TypeVar("Found")


class Holding(NamedTuple):
    """A store, and where in it the features of a use case are."""

    use_case: UseCase
    store: OnlineStore
    records: tuple[OnlineTable, RecordSchema] | None
    streams: Mapping[str, EventStream]


class Fetch:
    """One read's questions to the store, and what they found.

    After its first failure a lenient read asks nothing more: it has waited once.
    """

    def __init__(
        self, source: Holding, keys: Sequence[str], at_us: int, *, is_strict: bool
    ) -> None:
        self._use_case, self._store, self._stored, self._streams = source
        self._keys, self._at_us, self._is_strict = keys, at_us, is_strict
        self._has_failed = False
        self._newest_us: dict[str, int] = {}

    def held(self, sources: Sequence[str]) -> list[Held]:
        """Return what is held of each entity; the events of these sources."""
        records = self._tried(self._records) or [None] * len(self._keys)
        events: dict[str, list[list[Event]]] = {}
        for source in sources:
            found = self._tried(partial(self._events, source))
            if found is not None:
                events[source] = found
        is_known = [record is not None for record in records]
        for lists in events.values():
            is_known = [one or bool(some) for one, some in zip(is_known, lists, strict=True)]
        for source in self._streams:
            if source not in sources and not all(is_known):
                is_known = self._tried(partial(self._seen, source, is_known)) or is_known
        return [
            Held(
                record,
                {name: lists[place] for name, lists in events.items()},
                self._newest_us,
                is_known[place],
            )
            for place, record in enumerate(records)
        ]

    def _tried(self, ask: Callable[[], Found]) -> Found | None:
        if self._has_failed:
            return None
        try:
            return ask()
        except OnlineStoreError:
            if self._is_strict:
                raise
            self._has_failed = True
            return None

    def _records(self) -> list[Record | None] | None:
        if self._stored is None:
            return None
        table, schema = self._stored
        at_us, decode = self._at_us, schema.decode
        blobs = self._store.read_records(table, self._keys, now_us=at_us)
        if None in blobs:
            checkpoint = read_checkpoint(self._store, table, RecordsCheckpoint)
            if checkpoint is None or not checkpoint.was_complete:
                raise never_filled(self._use_case, table)
        found = [None if blob is None else self._decoded(decode, blob) for blob in blobs]
        return [item if item is not None and item[0] <= at_us else None for item in found]

    def _decoded(self, decode: Callable[[bytes], Record], blob: bytes) -> Record | None:
        """Decode one entity's record; where it is damaged, the others are still of use."""
        try:
            return decode(blob)
        except OnlineStoreError:
            if self._is_strict:
                raise
            return None

    def _events(self, source: str) -> list[list[Event]]:
        """Return the events of each entity, and note up to when they are known."""
        stream = self._streams[source]
        since_us = self._at_us - stream.reach_us
        stored, checkpoint = self._read(stream, since_us)
        if self._at_us - checkpoint.newest_us > stream.fresh_us:  # silent: it is asked about then
            since_us = checkpoint.newest_us - stream.reach_us
            stored, checkpoint = self._read(stream, since_us)
        if since_us < checkpoint.kept_from_us:
            raise DataError(
                "the events of that time are no longer held online",
                where=stream.table.name,
                expected=f"a moment from {from_us(checkpoint.kept_from_us + stream.reach_us)} on",
                found=str(from_us(self._at_us)),
                way_out="`mlops features history` computes features of any moment",
            )
        self._newest_us[source] = checkpoint.newest_us
        return [list(map(stream.decode, events)) for events in stored]

    def _read(
        self, stream: EventStream, since_us: int
    ) -> tuple[list[list[StoredEvent]], StreamCheckpoint]:
        """Read events, and then the checkpoint, which says what they may lack."""
        stored = self._store.read_events(stream.table, self._keys, since_us=since_us)
        checkpoint = read_checkpoint(self._store, stream.table, StreamCheckpoint)
        if checkpoint is None or not checkpoint.is_complete:
            raise never_filled(self._use_case, stream.table)
        return stored, checkpoint

    def _seen(self, source: str, is_known: Sequence[bool]) -> list[bool]:
        """Add who has no record and recent events, of a stream that was not asked for."""
        stream, found = self._streams[source], list(is_known)
        places = [place for place, one in enumerate(found) if not one]
        keys = [self._keys[place] for place in places]
        since_us = self._at_us - stream.reach_us
        events = self._store.read_events(stream.table, keys, since_us=since_us)
        for place, held in zip(places, events, strict=True):
            found[place] = bool(held)
        return found
