"""The online store on a Redis server: keys, what is in them, and scripts.

    mlops:<use case>:tables                    set of the names of tables and streams
    mlops:<use case>:<table>:progress          the table's checkpoint
    mlops:<use case>:<table>:record:<entity>   feature time and expiry, the same again, the blob
    mlops:<use case>:<table>:events:<entity>   events sealed (see codec.py), sorted by event time
    mlops:<use case>:<table>:known:<entity>    availability and identity of each of those events

The server removes a key itself once as much time has gone by as its content had left to live when
it was written, and a margin: its clock is never compared with ours. Connections, the time limit and
typed errors are redis_server.py's.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Self, TypeVar
from urllib.parse import parse_qs, urlsplit

from mlops_pipeline.stores import Closing
from mlops_pipeline.stores.online.codec import seal, unseal
from mlops_pipeline.stores.online.interface import (
    Events,
    OnlineTable,
    Records,
    StoredEvent,
    StoredRecord,
    wrong_address,
)
from mlops_pipeline.stores.online.redis_server import Command, RedisServer

TLS_FILES = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})  # options of rediss://
TIMES = struct.Struct(">qq")  # feature time and expiry of a record; kept twice: damage shows
NEVER = 2**63 - 1
LENGTH, TIME = struct.Struct(">I"), struct.Struct(">q")
DAMAGED = b""  # no record: its decoder says so
MARGIN_MS = 3_600_000  # that keys outlive their content: for readers whose clock is behind
RECORDS_AT_ONCE = 100  # in one script: other readers wait for so long
SCRIPTS_AT_ONCE = 20  # in one exchange
KEYS_AT_ONCE = 1000  # of one look through all keys
EVENT_KEYS = ("events", "known")
EVENT_ORDER = itemgetter(2, 3, 1)  # event time, availability, identity
Item = TypeVar("Item")

# What the server itself decides, so that two writers may overlap. Each script runs alone on the
# server, so none takes more than a few hundred records at once.

# KEYS: one of each record. ARGV: its envelope with the blob, and its life in milliseconds or 0.
# The envelope begins with two equal copies of the feature time and expiry; where they differ the
# stored record is damaged, and any other replaces it.
WRITE_RECORDS = """
local written = 0
for number, key in ipairs(KEYS) do
  local value, life = ARGV[2 * number - 1], ARGV[2 * number]
  local stored = redis.call('GETRANGE', key, 0, 31)
  local is_whole = #stored == 32 and stored:sub(1, 16) == stored:sub(17, 32)
  if not is_whole or struct.unpack('>i8', stored) <= struct.unpack('>i8', value) then
    if life == '0' then
      redis.call('SET', key, value)
    else
      redis.call('SET', key, value, 'PX', life)
    end
    written = written + 1
  end
end
return written
"""

# KEYS: any records. ARGV: now in microseconds. Damaged ones stay: their expiry is not known.
PURGE_RECORDS = """
local removed = 0
for _, key in ipairs(KEYS) do
  local stored = redis.call('GETRANGE', key, 0, 31)
  if #stored == 32 and stored:sub(1, 16) == stored:sub(17, 32)
      and struct.unpack('>i8', stored, 9) <= tonumber(ARGV[1]) then
    removed = removed + redis.call('UNLINK', key)
  end
end
return removed
"""

# KEYS: the events of one entity by time, and the set of what is known. ARGV: the time to keep
# after, in microseconds; milliseconds that the keys outlive their newest event; then an identity,
# event time and sealed event each. What an entity without further events has goes when its
# newest would.
APPEND_EVENTS = """
local added = 0
for number = 3, #ARGV, 3 do
  if redis.call('SADD', KEYS[2], ARGV[number]) == 1 then
    redis.call('ZADD', KEYS[1], ARGV[number + 1], ARGV[number + 2])
    added = added + 1
  end
end
for _, sealed in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1])) do
  local length = struct.unpack('>I4', sealed, 5)
  redis.call('SREM', KEYS[2], sealed:sub(9, 8 + length))
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1])
local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if newest[2] then
  local left = math.ceil((tonumber(newest[2]) - tonumber(ARGV[1])) / 1000) + tonumber(ARGV[2])
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', left))
  redis.call('PEXPIRE', KEYS[2], string.format('%.0f', left))
end
return added
"""


class RedisOnlineStore(Closing):
    """See `OnlineStore`; a database of its own, no eviction; an exchange ends by `timeout_ms`."""

    is_local = False

    def __init__(self, url: str, *, timeout_ms: int) -> None:
        self._server = RedisServer(url, timeout_ms=timeout_ms)

    @classmethod
    def at(cls, url: str, *, timeout_ms: int) -> Self:
        """Open the store at an address; nothing is sent yet."""
        if not _has_host(url):
            raise wrong_address()
        return cls(url, timeout_ms=timeout_ms)

    def write_records(
        self, table: OnlineTable, records: Records, *, now_us: int, checkpoint: str | None = None
    ) -> int:
        """Write one chunk, the checkpoint last."""
        prefix, calls = _prefix(table, "record"), list[Command]()
        for part in _chunks(records, RECORDS_AT_ONCE):
            keys = [prefix + record.entity for record in part]
            arguments = [piece for record in part for piece in _stored(record, now_us)]
            calls.append(("EVAL", WRITE_RECORDS, len(keys), *keys, *arguments))
        return self._write(table, calls, checkpoint)

    def read_records(
        self, table: OnlineTable, entities: Sequence[str], *, now_us: int
    ) -> list[bytes | None]:
        """Return the blob of each entity."""
        if not entities:
            return []
        prefix = _prefix(table, "record")
        (values,) = self._server.send([("MGET", *(prefix + entity for entity in entities))])
        return [None if value is None else _blob(value, now_us) for value in values]

    def purge(self, table: OnlineTable, *, now_us: int) -> int:
        """Remove the records that have expired, some keys at a time."""
        removed = 0
        for keys in self._keys(_prefix(table, "record")):
            (count,) = self._server.send([("EVAL", PURGE_RECORDS, len(keys), *keys, now_us)])
            removed += count
        return removed

    def checkpoint(self, table: OnlineTable) -> str | None:
        """Return the table's checkpoint."""
        (found,) = self._server.send([("GET", _key(table, "progress"))])
        return None if found is None else found.decode(errors="replace")

    def set_checkpoint(self, table: OnlineTable, checkpoint: str | None) -> None:
        """Set the table's checkpoint."""
        key = _key(table, "progress")
        self._server.send([("DEL", key) if checkpoint is None else ("SET", key, checkpoint)])

    def append_events(
        self, table: OnlineTable, events: Events, keep_after_us: int, checkpoint: str | None = None
    ) -> int:
        """Add events, the checkpoint last."""
        members: dict[str, list[tuple[bytes | int, ...]]] = {}
        for event in events:
            if event.event_time_us >= keep_after_us:
                members.setdefault(event.entity, []).append(_member(event))
        calls = list[Command]()
        for entity, some in members.items():
            keys = [_prefix(table, kind) + entity for kind in EVENT_KEYS]
            for part in _chunks(some, RECORDS_AT_ONCE):
                arguments = chain.from_iterable(part)
                limits = keep_after_us, MARGIN_MS
                calls.append(("EVAL", APPEND_EVENTS, 2, *keys, *limits, *arguments))
        return self._write(table, calls, checkpoint)

    def read_events(
        self, stream: OnlineTable, entities: Sequence[str], *, since_us: int
    ) -> list[list[StoredEvent]]:
        """Return what happened to each entity at or after a time."""
        prefix = _prefix(stream, "events")
        found = self._server.send(
            [("ZRANGEBYSCORE", prefix + entity, since_us, "+inf") for entity in entities]
        )
        return [
            sorted((_event(entity, member) for member in members), key=EVENT_ORDER)
            for entity, members in zip(entities, found, strict=True)
        ]

    def forget(self, use_case: str, entity: str) -> int:
        """Remove every record and event of an entity, in one transaction."""
        (names,) = self._server.send([("SMEMBERS", f"mlops:{use_case}:tables")])
        tables = [OnlineTable(use_case, name.decode()) for name in names]
        counts, removals = list[Command](), list[Command]()
        for table in tables:
            events, known = (_prefix(table, kind) + entity for kind in EVENT_KEYS)
            counts += [("ZCARD", events), ("DEL", _prefix(table, "record") + entity)]
            removals.append(("DEL", events, known))
        *_, found = self._server.send([("MULTI",), *counts, *removals, ("EXEC",)])
        return sum(found[: len(counts)])

    def drop(self, table: OnlineTable) -> None:
        """Remove a table or stream with its checkpoint, some keys at a time."""
        for keys in self._keys(_key(table, "")):
            self._server.send([("UNLINK", *keys)])
        self._server.send([("SREM", f"mlops:{table.use_case}:tables", table.name)])

    def close(self) -> None:
        """Close every connection."""
        self._server.close()

    def _write(self, table: OnlineTable, calls: Sequence[Command], checkpoint: str | None) -> int:
        """Call scripts, some at a time; return the sum of their answers."""
        # the table is noted before anything is written to it, so that `forget` finds everything
        note = ("SADD", f"mlops:{table.use_case}:tables", table.name)
        written = sum(
            sum(self._server.send([note, *some])[1:]) for some in _chunks(calls, SCRIPTS_AT_ONCE)
        )
        if checkpoint is not None:
            self.set_checkpoint(table, checkpoint)
        return written

    def _keys(self, prefix: str) -> Iterator[list[bytes]]:
        """Iterate over all keys that begin so, some at a time; some may come twice."""
        cursor, has_more = b"0", True
        while has_more:
            scan = ("SCAN", cursor, "MATCH", prefix + "*", "COUNT", KEYS_AT_ONCE)
            ((cursor, keys),) = self._server.send([scan])
            has_more = cursor != b"0"
            if keys:
                yield keys


def _has_host(url: str) -> bool:
    """Check an address such as redis://host:port/db, with a number as its database."""
    try:
        parts = urlsplit(url)
        known = parts.hostname is not None and (parts.port is None or parts.port > 0)
        options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        return False
    database = parts.path.removeprefix("/")
    allowed = TLS_FILES if parts.scheme == "rediss" else frozenset()
    return known and (not database or database.isdecimal()) and options.keys() <= allowed


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


def _member(event: StoredEvent) -> tuple[bytes | int, ...]:
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
