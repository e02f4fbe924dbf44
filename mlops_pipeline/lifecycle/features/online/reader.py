"""Reading features online: the newest values of entities, with how far each can be relied on.

A read asks the store at most once for the records and once for the events of each source, however
many entities. An entity that the store does not know has no value, except what the request brings;
a table that was never filled is an error. What is made of values is plan.py's. Belongs here too:
what `mlops features get` and HTTP ask alike.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.features.aggregates import Event
from mlops_pipeline.errors import DataError, NotFoundError, OnlineStoreError
from mlops_pipeline.lifecycle.bookkeeping import record_feature_use
from mlops_pipeline.lifecycle.features.online import layout
from mlops_pipeline.lifecycle.features.online.plan import (
    FeatureValues,
    Found,
    Plan,
    request_features,
    request_row,
)
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
INTEGER = re.compile(r"-?[0-9]+")
INT64_DIGITS = 20  # with a sign; a longer text is no key
Answer = TypeVar("Answer")


class OnlineFeatures(NamedTuple):
    """The features of one entity for `read_at`; `is_known`: the store has anything of it."""

    entity: str
    read_at: datetime
    is_known: bool
    values: FeatureValues


class OnlineReader(Closing):
    """Reads the features of a use case; may be shared by threads. The store is closed with it."""

    def __init__(
        self, use_case: UseCase, store: OnlineStore, *, now: Callable[[], datetime]
    ) -> None:
        self._use_case, self._store, self._now = use_case, store, now
        self._layout = layout.online_layout(use_case)
        streams = {name: layout.EventStream(use_case, name) for name in self._layout.sources}
        self._lookup = partial(_Lookup, use_case, store, self._layout.records(), streams)
        self._plans: dict[tuple[str, ...], Plan] = {}
        self.used: set[str] = set()
        source = use_case.sources[use_case.population.source]
        self._is_numbered = source.column(use_case.entity.key).type == "int64"

    @property
    def is_local(self) -> bool:
        """Whether the store is on this machine, and answers without a network."""
        return self._store.is_local

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
        keys = [self.key(entity) for entity in entities]
        read_at = self._now() if at is None else at.astimezone(UTC)
        at_us = layout.to_us(read_at)
        found = self._lookup(keys, at_us, on_error == "raise").found(plan.sources)
        return [
            OnlineFeatures(key, read_at, item.is_known, plan.values(item, row, at_us))
            for key, item, row in zip(keys, found, request or [{}] * len(keys), strict=True)
        ]

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _plan(self, features: tuple[str, ...]) -> Plan:
        plan = self._plans.get(features)
        if plan is None:
            prefix = f"{self._use_case.entity.name}:"
            names = tuple(dict.fromkeys(name.removeprefix(prefix) for name in features))
            for name in names:
                if name not in self.names:
                    raise self._unknown(name)
            if len(self._plans) >= PLANS_KEPT:
                self._plans.clear()
            plan = self._plans[features] = Plan(self._layout, names)
            self.used.update(names)
        return plan

    def _unknown(self, name: str) -> NotFoundError:
        where, way_out = self._use_case.name, f"mlops features list {self._use_case.name}"
        if name not in self._use_case.features:
            return NotFoundError.of("feature", name, self.names, where=where, way_out=way_out)
        return NotFoundError(
            f"the feature {name!r} is not online",
            where=where,
            expected="a feature of an online view, or derived from such",
            found=name,
            way_out=way_out,
        )

    def key(self, entity: int | str) -> str:
        """Return the key as the store has it."""
        text = str(entity)
        if not self._is_numbered:
            return text
        is_short = isinstance(entity, int) or len(text) <= INT64_DIGITS
        if not (is_short and INTEGER.fullmatch(text)):
            raise DataError(
                "the entity's key is no whole number",
                where=self._use_case.entity.key,
                expected="decimal digits",
                found=type(entity).__name__,  # the key itself may be personal
            )
        return str(int(text))


@dataclass
class _Lookup:
    """One read's questions to the store; a lenient one asks nothing after its first failure."""

    use_case: UseCase
    store: OnlineStore
    stored: tuple[OnlineTable, RecordSchema] | None
    streams: Mapping[str, layout.EventStream]
    keys: Sequence[str]
    at_us: int
    is_strict: bool
    has_failed: bool = False
    newest_us: dict[str, int] = field(default_factory=dict)

    def found(self, sources: Sequence[str]) -> list[Found]:
        """Return what there is of each entity; the events of these sources."""
        records = self._tried(self._records) or [None] * len(self.keys)
        events: dict[str, list[list[Event]]] = {}
        for source in sources:
            found = self._tried(partial(self._events, source))
            if found is not None:
                events[source] = found
        is_known = [record is not None for record in records]
        for lists in events.values():
            is_known = [one or bool(some) for one, some in zip(is_known, lists, strict=True)]
        for source in self.streams:
            if source not in sources and not all(is_known):
                is_known = self._tried(partial(self._seen, source, is_known)) or is_known
        return [
            Found(
                record,
                {name: lists[place] for name, lists in events.items()},
                self.newest_us,
                is_known[place],
            )
            for place, record in enumerate(records)
        ]

    def _tried(self, ask: Callable[[], Answer]) -> Answer | None:
        if self.has_failed:
            return None
        try:
            return ask()
        except OnlineStoreError:
            if self.is_strict:
                raise
            self.has_failed = True
            return None

    def _records(self) -> list[Record | None] | None:
        if self.stored is None:
            return None
        table, schema = self.stored
        blobs = self.store.read_records(table, self.keys, now_us=self.at_us)
        if None in blobs:
            checkpoint = layout.read_checkpoint(self.store, table, layout.RecordsCheckpoint)
            if checkpoint is None or not checkpoint.was_complete:
                raise layout.never_filled(self.use_case, table)
        found = [None if blob is None else self._decoded(schema, blob) for blob in blobs]
        return [item if item is not None and item[0] <= self.at_us else None for item in found]

    def _decoded(self, schema: RecordSchema, blob: bytes) -> Record | None:
        """Decode one entity's record; where it is damaged, the others are still of use."""
        try:
            return schema.decode(blob)
        except OnlineStoreError:
            if self.is_strict:
                raise
            return None

    def _events(self, source: str) -> list[list[Event]]:
        """Return the events of each entity, and note up to when they are known."""
        stream = self.streams[source]
        since_us = self.at_us - stream.reach_us
        stored, checkpoint = self._read(stream, since_us)
        if self.at_us - checkpoint.newest_us > stream.fresh_us:  # silent: it is asked about then
            since_us = checkpoint.newest_us - stream.reach_us
            stored, checkpoint = self._read(stream, since_us)
        if since_us < checkpoint.kept_from_us:
            held_us = checkpoint.kept_from_us + stream.reach_us
            raise DataError(
                "the events of that time are no longer held online",
                where=stream.table.name,
                expected=f"a time from {layout.from_us(held_us)} on",
                found=str(layout.from_us(self.at_us)),
                way_out="`mlops features history` computes features of any time",
            )
        self.newest_us[source] = checkpoint.newest_us
        return [list(map(stream.decode, events)) for events in stored]

    def _read(
        self, stream: layout.EventStream, since_us: int
    ) -> tuple[list[list[StoredEvent]], layout.StreamCheckpoint]:
        """Read events, and then the checkpoint, which says what they may lack."""
        stored = self.store.read_events(stream.table, self.keys, since_us=since_us)
        checkpoint = layout.read_checkpoint(self.store, stream.table, layout.StreamCheckpoint)
        if checkpoint is None or not checkpoint.is_complete:
            raise layout.never_filled(self.use_case, stream.table)
        return stored, checkpoint

    def _seen(self, source: str, is_known: Sequence[bool]) -> list[bool]:
        """Add who has no record and recent events, of a stream that was not asked for."""
        stream, found = self.streams[source], list(is_known)
        places = [place for place, one in enumerate(found) if not one]
        keys = [self.keys[place] for place in places]
        since_us = self.at_us - stream.reach_us
        events = self.store.read_events(stream.table, keys, since_us=since_us)
        for place, some in zip(places, events, strict=True):
            found[place] = bool(some)
        return found


@contextmanager
def open_reader(
    use_case: UseCase, settings: Settings, *, is_noted: bool = True
) -> Iterator[OnlineReader]:
    """Yield a reader of the configured store; its use is noted in the catalogue if `is_noted`."""
    store = open_online_store(settings.online_url, timeout_ms=settings.online_timeout_ms)
    with OnlineReader(use_case, store, now=settings.now) as reader:
        yield reader
        if is_noted and reader.used:
            with OpsDatabase.open(settings.database_url) as ops:
                record_feature_use(ops, use_case.name, reader.used, "online", now=settings.now())


def choose_use_case(
    use_cases: Mapping[str, UseCase],
    entity: str,
    features: Collection[str],
    name: str | None = None,
) -> UseCase:
    """Return the use case of an entity's name: the named one, or the one with all features."""

    def unknown(kind: str, given: str, known: Iterable[str], where: str) -> NotFoundError:
        way_out = "mlops features list USE_CASE"
        return NotFoundError.of(kind, given, sorted(set(known)), where=where, way_out=way_out)

    having = {key: item for key, item in use_cases.items() if item.entity.name == entity}
    where = f"entity {entity}"
    if not having:
        entities = (item.entity.name for item in use_cases.values())
        raise unknown("entity", entity, entities, "configs/")
    if name is not None:
        if name not in having:
            raise unknown("use case", name, having, where)
        return having[name]
    if len(having) == 1:
        return next(iter(having.values()))
    names = {feature: feature.removeprefix(f"{entity}:") for feature in features}
    owners = {
        feature: [key for key, item in having.items() if plain in item.features]
        for feature, plain in names.items()
    }
    able = [key for key in having if all(key in keys for keys in owners.values())]
    if len(able) == 1:
        return having[able[0]]
    for feature, keys in owners.items():
        if not keys:
            known = (name for item in having.values() for name in item.features)
            raise unknown("feature", names[feature], known, where)
    if not able:
        raise NotFoundError(
            "no use case has all of these features",
            where=where,
            expected="features of one use case",
            found="; ".join(f"{feature} of {', '.join(keys)}" for feature, keys in owners.items()),
            way_out="ask once for each use case",
        )
    raise DataError(
        f"{entity} is an entity of several use cases",
        where=where,
        expected=f"a use case beside it: {', '.join(sorted(able))}",
        found="features that each of them has" if features else "no feature named",
        way_out="name the use case: `use_case=NAME` in HTTP, `--use-case NAME` on the command line",
    )


def read_entity(
    reader: OnlineReader,
    use_case: UseCase,
    entity_id: str,
    features: Sequence[str] = (),
    *,
    request: Mapping[str, str] | None = None,
    at: datetime | None = None,
) -> OnlineFeatures:
    """Read one entity's features, by default all that can be answered; `request` holds texts."""
    names = list(features)
    if not names:
        held_back = set() if request else request_features(use_case)
        names = [name for name in reader.names if name not in held_back]
    rows = [request_row(use_case, request)] if request else None
    return reader.read([entity_id], names, request=rows, at=at)[0]


def document(use_case: UseCase, entity_id: str, found: OnlineFeatures) -> dict[str, Any]:
    """Return what was read as plain JSON; times are ISO 8601 text."""
    return {
        "entity": use_case.entity.name,
        "id": entity_id,
        "use_case": use_case.name,
        "read_at": found.read_at.isoformat(),
        "features": {
            name: {
                "value": item.value,
                "status": item.status,
                "feature_time": item.feature_time and item.feature_time.isoformat(),
            }
            for name, item in found.values.items()
        },
    }
