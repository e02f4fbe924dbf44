"""Reading features online: the newest values of entities, with how far each can be relied on.

A read asks the store at most once for the records and once for the events of each source, however
many entities. What is made of them is plan.py's.

An entity that the store does not know has no value, except what the request brings; a table that
was never filled is an error, and not a store full of unknown entities.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.features.aggregates import Event
from mlops_pipeline.errors import DataError, NotFoundError, OnlineStoreError
from mlops_pipeline.lifecycle.bookkeeping import record_feature_use
from mlops_pipeline.lifecycle.features.online.events import EventStream
from mlops_pipeline.lifecycle.features.online.layout import (
    RecordsCheckpoint,
    StreamCheckpoint,
    from_us,
    never_filled,
    online_layout,
    read_checkpoint,
    to_us,
)
from mlops_pipeline.lifecycle.features.online.plan import FeatureValues, Found, Plan
from mlops_pipeline.stores import Closing
from mlops_pipeline.stores.online.codec import Record, RecordSchema
from mlops_pipeline.stores.online.interface import (
    OnlineStore,
    OnlineTable,
    StoredEvent,
    open_online_store,
)
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

OnError = Literal["raise", "default"]
PLANS_KEPT = 256  # of different lists of features; a model or a page asks for one
INT64_DIGITS = 20  # with a sign; a longer text is no key
Answer = TypeVar("Answer")


class OnlineFeatures(NamedTuple):
    """The features of one entity, by name in the order in which they were asked for.

    Attributes
    ----------
    entity : str
        Its key, a whole number in decimal digits.
    read_at : datetime
        The time for which it was read (UTC).
    is_known : bool
        Whether the store has anything of the entity.
    values : mapping of str to FeatureValue
    """

    entity: str
    read_at: datetime
    is_known: bool
    values: FeatureValues


class OnlineReader(Closing):
    """Reads the features of a use case; may be shared by threads.

    The store is closed with the reader; `now` is the Clock; `used` are the features asked for.
    """

    def __init__(
        self, use_case: UseCase, store: OnlineStore, *, now: Callable[[], datetime]
    ) -> None:
        self._use_case, self._store, self._now = use_case, store, now
        self._layout = online_layout(use_case)
        streams = {name: EventStream(use_case, name) for name in self._layout.sources}
        self._place = _Place(use_case, store, self._layout.records(), streams)
        self._plans: dict[tuple[str, ...], Plan] = {}
        self.used: set[str] = set()
        source = use_case.sources[use_case.population.source]
        self._is_numbered = source.column(use_case.entity.key).type == "int64"

    @property
    def names(self) -> tuple[str, ...]:
        """The features that can be read."""
        return self._layout.features

    def read(
        self,
        entities: Sequence[int | str],
        features: Sequence[str],
        *,
        request: Sequence[Mapping[str, Any]] | None = None,
        at: datetime | None = None,
        on_error: OnError = "raise",
    ) -> list[OnlineFeatures]:
        """Return the features of each entity, in their order."""
        plan = self._plan(tuple(features))
        if request is not None and len(request) != len(entities):
            raise DataError("the request needs one mapping for each entity", where="request",
                            expected=str(len(entities)), found=str(len(request)))  # fmt: skip
        keys = [self._key(entity) for entity in entities]
        read_at = self._now() if at is None else at.astimezone(UTC)
        at_us = to_us(read_at)
        lookup = _Lookup(self._place, keys, at_us, is_strict=on_error == "raise")
        found = lookup.found(plan.sources)
        values = plan.values(found, request, at_us)
        return [
            OnlineFeatures(key, read_at, item.is_known, features_of)
            for key, item, features_of in zip(keys, found, values, strict=True)
        ]

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _plan(self, features: tuple[str, ...]) -> Plan:
        plan = self._plans.get(features)
        if plan is None:
            prefix = f"{self._use_case.entity.name}:"
            names = tuple(name.removeprefix(prefix) for name in features)
            for name in names:
                self._check(name)
            if len(self._plans) >= PLANS_KEPT:
                self._plans.clear()
            plan = self._plans[features] = Plan(self._layout, tuple(dict.fromkeys(names)))
            self.used.update(names)
        return plan

    def _check(self, name: str) -> None:
        if name in self.names:
            return
        where, way_out = self._use_case.name, f"mlops features list {self._use_case.name}"
        if name not in self._use_case.features:
            raise NotFoundError.of("feature", name, self.names, where=where, way_out=way_out)
        raise NotFoundError(
            f"the feature {name!r} is not online",
            where=where,
            expected="a feature of an online view, or derived from such",
            found=name,
            way_out=way_out,
        )

    def _key(self, entity: int | str) -> str:
        """Return the key as the store has it."""
        if not self._is_numbered:
            return str(entity)
        if isinstance(entity, int) and not isinstance(entity, bool):
            return str(entity)
        text = str(entity)
        if len(text) > INT64_DIGITS or not (text.isascii() and text.removeprefix("-").isdigit()):
            raise DataError(
                "the entity's key is no whole number",
                where=self._use_case.entity.key,
                expected="decimal digits",
                found=type(entity).__name__,  # the key itself may be personal
            )
        return str(int(text))


class _Place(NamedTuple):
    """A store, and where in it the features of a use case are."""

    use_case: UseCase
    store: OnlineStore
    records: tuple[OnlineTable, RecordSchema] | None
    streams: Mapping[str, EventStream]


class _Lookup:
    """One read's questions to the store, and what they found.

    After its first failure a lenient read asks nothing more: it has waited once.
    """

    def __init__(self, place: _Place, keys: Sequence[str], at_us: int, *, is_strict: bool) -> None:
        self._use_case, self._store, self._stored, self._streams = place
        self._keys, self._at_us, self._is_strict = keys, at_us, is_strict
        self._has_failed = False
        self._newest_us: dict[str, int] = {}

    def found(self, sources: Sequence[str]) -> list[Found]:
        """Return what there is of each entity; the events of these sources."""
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
            Found(
                record,
                {name: lists[place] for name, lists in events.items()},
                self._newest_us,
                is_known[place],
            )
            for place, record in enumerate(records)
        ]

    def _tried(self, ask: Callable[[], Answer]) -> Answer | None:
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
                expected=f"a time from {from_us(checkpoint.kept_from_us + stream.reach_us)} on",
                found=str(from_us(self._at_us)),
                way_out="`mlops features history` computes features of any time",
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
        for place, some in zip(places, events, strict=True):
            found[place] = bool(some)
        return found


@contextmanager
def open_reader(
    use_case: UseCase, settings: Settings, *, is_noted: bool = True
) -> Iterator[OnlineReader]:
    """Yield a reader of the configured store; it is closed at the end.

    Its use is noted then in the catalogue; not with `is_noted` false, where the caller does it.
    """
    store = open_online_store(settings.online_url, timeout_ms=settings.online_timeout_ms)
    with OnlineReader(use_case, store, now=settings.now) as reader:
        yield reader
        if is_noted and reader.used:
            with OpsDatabase.open(settings.database_url) as ops:
                record_feature_use(ops, use_case.name, reader.used, "online", now=settings.now())
