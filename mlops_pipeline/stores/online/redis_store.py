"""The online store on a Redis server: keys and what is in them.

    mlops:<use case>:tables                    set of the names of tables and streams
    mlops:<use case>:<table>:progress          the table's marker
    mlops:<use case>:<table>:record:<entity>   feature time and expiry, the same again, the blob
    mlops:<use case>:<table>:events:<entity>   events sealed (see codec.py), sorted by event time
    mlops:<use case>:<table>:known:<entity>    availability and identity of each of those events

The server removes a key itself once as much time has gone by as its content had left to live when
it was written, and a margin: its clock is never compared with ours.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar

from mlops_pipeline.stores.closing import Closing
from mlops_pipeline.stores.online.codec import seal, unseal
from mlops_pipeline.stores.online.redis_connection import RedisServer
from mlops_pipeline.stores.online.redis_scripts import APPEND_EVENTS, PURGE_RECORDS, WRITE_RECORDS
from mlops_pipeline.stores.online.store import OnlineTable, StoredEvent, StoredRecord

TIMES = struct.Struct(">qq")  # feature time and expiry of a record; kept twice: damage shows
NEVER = 2**63 - 1
LENGTH, TIME = struct.Struct(">I"), struct.Struct(">q")
DAMAGED = b""  # no record: its decoder says so
MARGIN_MS = 3_600_000  # that keys outlive their content: for readers whose clock is behind
RECORDS_AT_ONCE = 100  # in one script: other readers wait for so long
SCRIPTS_AT_ONCE = 20  # in one exchange
KEYS_AT_ONCE = 1000  # of one look through all keys
Item = TypeVar("Item")
EVENT_ORDER = itemgetter(2, 3, 1)  # event time, availability, identity


class RedisOnlineStore(Closing):
    """See `OnlineStore`.

    Parameters
    ----------
    url : str
        ``redis://user:password@host:port/db``; a database of its own, and no eviction.
    timeout_ms : int
        The longest exchange with the server.
    """

    def __init__(self, url: str, *, timeout_ms: int) -> None:
        self._server = RedisServer(url, timeout_ms=timeout_ms)
        self._client = self._server.client
        self._write = self._client.register_script(WRITE_RECORDS)
        self._purge = self._client.register_script(PURGE_RECORDS)
        self._append = self._client.register_script(APPEND_EVENTS)

    def write_records(
        self,
        table: OnlineTable,
        records: Sequence[StoredRecord],
        *,
        now_us: int,
        progress: str | None = None,
    ) -> int:
        """Write one chunk, the marker last; see `OnlineStore`."""
        prefix, written = _prefix(table, "record"), 0
        for chunk in _chunks(records, RECORDS_AT_ONCE * SCRIPTS_AT_ONCE):
            pipeline = self._pipeline(table)
            for part in _chunks(chunk, RECORDS_AT_ONCE):
                keys = [prefix + record.entity for record in part]
                arguments = [piece for record in part for piece in _stored(record, now_us)]
                self._write(keys, arguments, client=pipeline)
            written += sum(self._server.send(pipeline)[1:])
        if progress is not None:
            self.set_progress(table, progress)
        return written

    def read_records(
        self, table: OnlineTable, entities: Sequence[str], *, now_us: int
    ) -> list[bytes | None]:
        """Return the blob of each entity; see `OnlineStore`."""
        if not entities:
            return []
        prefix = _prefix(table, "record")
        with self._server.exchange():
            values: list[Any] = self._client.mget([prefix + entity for entity in entities])
        return [None if value is None else _blob(value, now_us) for value in values]

    def purge(self, table: OnlineTable, *, now_us: int) -> int:
        """Remove the records that have expired, key by key; see `OnlineStore`."""
        removed = 0
        for keys in self._keys(_prefix(table, "record")):
            with self._server.exchange():
                removed += self._purge(keys, [now_us])
        return removed

    def progress(self, table: OnlineTable) -> str | None:
        """Return the table's marker; see `OnlineStore`."""
        with self._server.exchange():
            found: Any = self._client.get(_key(table, "progress"))
        return None if found is None else found.decode(errors="replace")

    def set_progress(self, table: OnlineTable, marker: str | None) -> None:
        """Set the table's marker; see `OnlineStore`."""
        with self._server.exchange():
            if marker is None:
                self._client.delete(_key(table, "progress"))
            else:
                self._client.set(_key(table, "progress"), marker)

    def append_events(
        self,
        stream: OnlineTable,
        events: Sequence[StoredEvent],
        *,
        keep_after_us: int,
        progress: str | None = None,
    ) -> int:
        """Add events, the marker last; see `OnlineStore`."""
        members: dict[str, list[tuple[bytes, int, bytes]]] = {}
        for event in events:
            if event.event_time_us >= keep_after_us:
                members.setdefault(event.entity, []).append(_member(event))
        calls = [
            ([_prefix(stream, kind) + entity for kind in ("events", "known")], part)
            for entity, held in members.items()
            for part in _chunks(held, RECORDS_AT_ONCE)
        ]
        added = 0
        for some in _chunks(calls, SCRIPTS_AT_ONCE):
            pipeline = self._pipeline(stream)
            for keys, part in some:
                arguments = [keep_after_us, MARGIN_MS, *chain.from_iterable(part)]
                self._append(keys, arguments, client=pipeline)
            added += sum(self._server.send(pipeline)[1:])
        if progress is not None:
            self.set_progress(stream, progress)
        return added

    def read_events(
        self, stream: OnlineTable, entities: Sequence[str], *, since_us: int
    ) -> list[list[StoredEvent]]:
        """Return what happened to each entity at or after a moment; see `OnlineStore`."""
        pipeline = self._client.pipeline(transaction=False)
        for entity in entities:
            pipeline.zrangebyscore(_prefix(stream, "events") + entity, since_us, "+inf")
        found = self._server.send(pipeline)
        return [
            sorted((_event(entity, member) for member in members), key=EVENT_ORDER)
            for entity, members in zip(entities, found, strict=True)
        ]

    def forget(self, use_case: str, entity: str) -> int:
        """Remove every record and event of an entity; see `OnlineStore`."""
        with self._server.exchange():
            names: Any = self._client.smembers(f"mlops:{use_case}:tables")
        pipeline = self._client.pipeline()
        for name in names:
            table = OnlineTable(use_case, name.decode())
            pipeline.zcard(_prefix(table, "events") + entity)
            pipeline.delete(_prefix(table, "record") + entity)
        held = len(pipeline)
        for name in names:
            table = OnlineTable(use_case, name.decode())
            pipeline.delete(_prefix(table, "events") + entity, _prefix(table, "known") + entity)
        return sum(self._server.send(pipeline)[:held])

    def drop(self, table: OnlineTable) -> None:
        """Remove a table or stream with its marker, key by key; see `OnlineStore`."""
        for keys in self._keys(_key(table, "")):
            with self._server.exchange():
                self._client.unlink(*keys)
        with self._server.exchange():
            self._client.srem(f"mlops:{table.use_case}:tables", table.name)

    def close(self) -> None:
        """Close every connection."""
        self._server.close()

    def _pipeline(self, table: OnlineTable) -> Any:
        """Begin a pipeline that notes the table before it writes, so that `forget` finds all."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.sadd(f"mlops:{table.use_case}:tables", table.name)
        return pipeline

    def _keys(self, prefix: str) -> Iterator[list[Any]]:
        """Iterate over all keys that begin so, some at a time; some may come twice."""
        cursor = None
        while cursor != 0:
            with self._server.exchange():
                cursor, keys = self._client.scan(
                    cursor or 0, match=prefix + "*", count=KEYS_AT_ONCE
                )
            if keys:
                yield keys


def _key(table: OnlineTable, kind: str) -> str:
    return f"mlops:{table.use_case}:{table.name}:{kind}"


def _prefix(table: OnlineTable, kind: str) -> str:
    return _key(table, kind) + ":"


def _stored(record: StoredRecord, now_us: int) -> tuple[bytes, int]:
    """Return the value of a record's key, and its life in milliseconds (0: for ever)."""
    expires = record.expires_at_us
    times = TIMES.pack(record.feature_time_us, NEVER if expires is None else expires)
    life = 0 if expires is None else max(expires - now_us, 0) // 1000 + MARGIN_MS
    return times + times + record.blob, life


def _blob(value: bytes, now_us: int) -> bytes | None:
    size = TIMES.size
    if len(value) < 2 * size or value[:size] != value[size : 2 * size]:
        return DAMAGED
    return value[2 * size :] if TIMES.unpack_from(value)[1] > now_us else None


def _member(event: StoredEvent) -> tuple[bytes, int, bytes]:
    """Return what an event is known by, its time, and all of it sealed."""
    known = TIME.pack(event.available_at_us) + event.identity.encode()
    content = LENGTH.pack(len(known)) + known + TIME.pack(event.event_time_us) + event.payload
    return known, event.event_time_us, seal(content)


def _event(entity: str, member: bytes) -> StoredEvent:
    content = unseal(member)
    end = LENGTH.size + LENGTH.unpack_from(content)[0]
    return StoredEvent(
        entity,
        identity=content[LENGTH.size + TIME.size : end].decode(),
        event_time_us=TIME.unpack_from(content, end)[0],
        available_at_us=TIME.unpack_from(content, LENGTH.size)[0],
        payload=content[end + TIME.size :],
    )


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[begin : begin + size] for begin in range(0, len(items), size))
