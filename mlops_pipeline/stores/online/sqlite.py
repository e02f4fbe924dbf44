"""The online store in one SQLite file.

Transactions outlive a killed process, not always a power cut: then the last chunks are lost with
the checkpoint that they set, and are written again. Each thread has its own connection, so that no
reader waits for a writer (WAL). A file that was deleted or replaced under an open store is noticed
by its inode: SQLite itself would go on reading the deleted one.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote
from weakref import WeakSet

from mlops_pipeline import errors
from mlops_pipeline.stores import Closing
from mlops_pipeline.stores.files import first_file
from mlops_pipeline.stores.online.codec import seal, unseal
from mlops_pipeline.stores.online.interface import (
    Events,
    OnlineTable,
    Records,
    StoredEvent,
    wrong_address,
)

APPLICATION_ID = 0x6D6C6F6E  # "mlon": tells our files from other SQLite files
LAYOUT = 1  # of the tables below
SCHEMA = f"""
PRAGMA journal_mode = WAL;
BEGIN;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {LAYOUT};
CREATE TABLE tables (
    id INTEGER PRIMARY KEY, use_case TEXT NOT NULL, name TEXT NOT NULL, progress TEXT,
    UNIQUE (use_case, name)
) STRICT;
CREATE TABLE records (
    table_id INTEGER NOT NULL, entity TEXT NOT NULL, feature_time_us INTEGER NOT NULL,
    expires_at_us INTEGER, blob BLOB NOT NULL,
    PRIMARY KEY (table_id, entity)
) STRICT, WITHOUT ROWID;
CREATE TABLE events (
    table_id INTEGER NOT NULL, entity TEXT NOT NULL, available_at_us INTEGER NOT NULL,
    identity TEXT NOT NULL, event_time_us INTEGER NOT NULL, payload BLOB NOT NULL,
    PRIMARY KEY (table_id, entity, available_at_us, identity)
) STRICT, WITHOUT ROWID;
CREATE INDEX events_by_time ON events (table_id, event_time_us);
COMMIT;
"""
ENTITIES_AT_ONCE = 512  # in one statement; counts are rounded up to powers of 2 to be prepared once
TABLE_ID = "(SELECT id FROM tables WHERE use_case = ? AND name = ?)"
READ_RECORDS = (
    f"SELECT entity, blob FROM records WHERE table_id = {TABLE_ID}"
    " AND (expires_at_us IS NULL OR expires_at_us > ?) AND entity IN (%s)"
)
READ_RECORD = (
    f"SELECT blob FROM records WHERE table_id = {TABLE_ID}"
    " AND (expires_at_us IS NULL OR expires_at_us > ?) AND entity = ?"
)
READ_EVENTS = (  # the plus keeps SQLite to the key of the entity: the index by time spans them all
    "SELECT entity, identity, event_time_us, available_at_us, payload FROM events"
    f" WHERE table_id = {TABLE_ID} AND +event_time_us >= ? AND entity IN (%s)"
    " ORDER BY event_time_us, available_at_us, identity"
)
WRITE_RECORD = (
    "INSERT INTO records (table_id, entity, feature_time_us, expires_at_us, blob)"
    " VALUES (%d, ?, ?, ?, ?) ON CONFLICT (table_id, entity) DO UPDATE SET"
    " feature_time_us = excluded.feature_time_us, expires_at_us = excluded.expires_at_us,"
    " blob = excluded.blob WHERE excluded.feature_time_us >= records.feature_time_us"
)
WRITE_EVENT = (
    "INSERT INTO events (table_id, entity, identity, event_time_us, available_at_us, payload)"
    " VALUES (%d, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)

PRIMARY_CODE = 0xFF  # of SQLite's result codes; the rest says more closely what happened
# the inner pages of some million records
SETTINGS = "PRAGMA cache_size = -16384; PRAGMA synchronous = NORMAL; PRAGMA secure_delete = ON;"
WAY_OUT = "see that the file is there, is ours and can be written; delete it to begin again"
FAILURES: dict[int, tuple[type[errors.OnlineStoreError], str]] = {
    sqlite3.SQLITE_BUSY: (errors.OnlineTimeoutError, "the online store stayed locked"),
    sqlite3.SQLITE_LOCKED: (errors.OnlineTimeoutError, "the online store stayed locked"),
    sqlite3.SQLITE_FULL: (errors.OnlineFullError, "the online store is full"),
    sqlite3.SQLITE_CORRUPT: (errors.OnlineCorruptError, "the file of the online store is damaged"),
    sqlite3.SQLITE_NOTADB: (errors.OnlineCorruptError, "the file is not an online store"),
}


class SqliteOnlineStore(Closing):
    """See `OnlineStore`; `timeout_ms` is how long a call waits for a lock."""

    is_local = True

    def __init__(self, path: Path, *, timeout_ms: int) -> None:
        self._connections = Connections(path, timeout_ms=timeout_ms)

    @classmethod
    def at(cls, url: str, *, timeout_ms: int) -> Self:
        """Open the file of an address such as ``sqlite:///path/to/online.db``."""
        path = url.removeprefix("sqlite://")
        if len(path) < 2 or not path.startswith("/"):
            raise wrong_address()
        return cls(Path(path[1:]), timeout_ms=timeout_ms)

    def write_records(
        self,
        table: OnlineTable,
        records: Records,
        *,
        now_us: int,  # noqa: ARG002 # what has expired is left out when it is read
        checkpoint: str | None = None,
    ) -> int:
        """Write one chunk in one transaction."""
        with self._connections.writing() as connection:
            number = _table_id(connection, table)
            # in the order of the key: neighbours share a page
            ordered = sorted(records, key=itemgetter(0))
            written = connection.executemany(WRITE_RECORD % number, ordered).rowcount
            _set_checkpoint(connection, number, checkpoint)
        return max(written, 0)  # -1 where there was nothing to write

    def read_records(
        self, table: OnlineTable, entities: Sequence[str], *, now_us: int
    ) -> list[bytes | None]:
        """Return the blob of each entity."""
        if len(entities) == 1:
            return [self._connections.first(READ_RECORD, (*table, now_us, entities[0]))]
        found: dict[str, bytes] = {}
        with self._connections.reading() as connection:
            for marks, chunk in _chunks(entities):
                rows = connection.execute(READ_RECORDS % marks, (*table, now_us, *chunk))
                found.update(rows.fetchall())
        return [found.get(entity) for entity in entities]

    def purge(self, table: OnlineTable, *, now_us: int) -> int:
        """Remove the records that have expired."""
        with self._connections.writing() as connection:
            return connection.execute(
                f"DELETE FROM records WHERE table_id = {TABLE_ID} AND expires_at_us <= ?",
                (*table, now_us),
            ).rowcount

    def checkpoint(self, table: OnlineTable) -> str | None:
        """Return the table's checkpoint."""
        with self._connections.reading() as connection:
            found: tuple[str | None] | None = connection.execute(
                "SELECT progress FROM tables WHERE use_case = ? AND name = ?", table
            ).fetchone()
        return found[0] if found else None

    def set_checkpoint(self, table: OnlineTable, checkpoint: str | None) -> None:
        """Set the table's checkpoint."""
        with self._connections.writing() as connection:
            number = _table_id(connection, table)
            connection.execute("UPDATE tables SET progress = ? WHERE id = ?", (checkpoint, number))

    def append_events(
        self, table: OnlineTable, events: Events, keep_after_us: int, checkpoint: str | None = None
    ) -> int:
        """Add events in one transaction."""
        kept = [
            (*event[:-1], seal(event.payload))
            for event in events
            if event.event_time_us >= keep_after_us
        ]
        with self._connections.writing() as connection:
            number = _table_id(connection, table)
            connection.execute(
                "DELETE FROM events WHERE table_id = ? AND event_time_us < ?",
                (number, keep_after_us),
            )
            added = connection.executemany(WRITE_EVENT % number, kept).rowcount
            _set_checkpoint(connection, number, checkpoint)
        return max(added, 0)

    def read_events(
        self, stream: OnlineTable, entities: Sequence[str], *, since_us: int
    ) -> list[list[StoredEvent]]:
        """Return what happened to each entity at or after a time."""
        found: dict[str, list[StoredEvent]] = {entity: [] for entity in entities}
        with self._connections.reading() as connection:
            for marks, chunk in _chunks(list(found)):
                rows = connection.execute(READ_EVENTS % marks, (*stream, since_us, *chunk))
                for entity, identity, happened, known, sealed in rows:
                    one = StoredEvent(entity, identity, happened, known, unseal(sealed))
                    found[entity].append(one)
        return [found[entity] for entity in entities]

    def forget(self, use_case: str, entity: str) -> int:
        """Remove every record and event of an entity."""
        where = "entity = ? AND table_id IN (SELECT id FROM tables WHERE use_case = ?)"
        with self._connections.writing() as connection:
            found = sum(
                connection.execute(f"DELETE FROM {rows} WHERE {where}", (entity, use_case)).rowcount
                for rows in ("records", "events")
            )
        with self._connections.reading() as connection:
            # the log still holds what was overwritten
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return found

    def drop(self, table: OnlineTable) -> None:
        """Remove a table or stream with its checkpoint."""
        with self._connections.writing() as connection:
            for rows in ("records", "events"):
                connection.execute(f"DELETE FROM {rows} WHERE table_id = {TABLE_ID}", table)
            connection.execute("DELETE FROM tables WHERE use_case = ? AND name = ?", table)

    def close(self) -> None:
        """Close every connection."""
        self._connections.close()


def _table_id(connection: "Connection", table: OnlineTable) -> int:
    """Return the table's number, a new one when it is unknown; in a transaction."""
    connection.execute(
        "INSERT INTO tables (use_case, name) VALUES (?, ?) ON CONFLICT DO NOTHING", table
    )
    row: tuple[int] = connection.execute(f"SELECT {TABLE_ID}", table).fetchone()
    return row[0]


def _set_checkpoint(connection: "Connection", number: int, checkpoint: str | None) -> None:
    if checkpoint is not None:
        connection.execute("UPDATE tables SET progress = ? WHERE id = ?", (checkpoint, number))


def _chunks(entities: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Cut into chunks, each with its placeholders; the last entity fills up the last chunk."""
    for begin in range(0, len(entities), ENTITIES_AT_ONCE):
        chunk = entities[begin : begin + ENTITIES_AT_ONCE]
        size = 1 << (len(chunk) - 1).bit_length()
        yield ", ".join("?" * size), [*chunk, *[chunk[-1]] * (size - len(chunk))]


class Connection(sqlite3.Connection):
    """A connection that knows which file it opened."""

    inode: tuple[int, int] = (0, 0)


class Connections:
    """A connection to the file for each thread; `timeout_ms` is how long a statement waits."""

    def __init__(self, path: Path, *, timeout_ms: int) -> None:
        self._path, self._name = path.absolute(), str(path.absolute())
        self._timeout_ms = timeout_ms
        self._local = threading.local()
        self._opened: WeakSet[Connection] = WeakSet()
        if not self._path.exists():
            with self._reported():
                self._make()

    def _make(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with (
            first_file(self._path) as work,
            closing(sqlite3.connect(work, isolation_level=None)) as connection,
        ):
            connection.executescript(SCHEMA)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend this thread's connection, and report what fails as an `OnlineStoreError`."""
        with self._reported():
            yield self._connection()

    def first(self, query: str, parameters: tuple[Any, ...]) -> Any:
        """Return the first value of the first row, None where there is none; `reading` in short."""
        try:
            row = self._connection().execute(query, parameters).fetchone()
        except (sqlite3.Error, OSError):
            with self._reported():
                raise
        return None if row is None else row[0]

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Lend this thread's connection in a transaction: all or nothing, one writer at a time."""
        with self._reported():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            with connection:  # commits, or rolls back what failed
                yield connection

    def close(self) -> None:
        """Close the connection of every thread."""
        for connection in list(self._opened):
            connection.close()
        self._local = threading.local()

    def _connection(self) -> Connection:
        found = os.stat(self._name)  # noqa: PTH116 # before every read: it is faster
        inode = (found.st_dev, found.st_ino)
        opened: Connection | None = getattr(self._local, "connection", None)
        if opened is None or opened.inode != inode:
            self._local.connection = opened = self._connect(inode)
        return opened

    def _connect(self, inode: tuple[int, int]) -> Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?mode=rw",  # never makes a file
            uri=True,
            timeout=self._timeout_ms / 1000,
            isolation_level=None,  # we begin transactions ourselves
            check_same_thread=False,  # for `close`
            factory=Connection,
        )
        self._opened.add(connection)
        connection.inode = inode
        found = tuple(
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version")
        )
        if found != (APPLICATION_ID, LAYOUT):
            connection.close()
            raise errors.OnlineCorruptError(
                "the file is not an online store of this version",
                where=str(self._path),
                expected=f"application_id and user_version {(APPLICATION_ID, LAYOUT)}",
                found=str(found),
                way_out=WAY_OUT,
            )
        connection.executescript(SETTINGS)
        return connection

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise failure(error, self._path, self._timeout_ms) from error
        except OSError as error:
            raise errors.OnlineUnavailableError(
                "the file of the online store cannot be reached",
                where=str(self._path),
                found=error.strerror,
                way_out=WAY_OUT,
            ) from error


def failure(error: sqlite3.Error, path: Path, timeout_ms: int) -> errors.OnlineStoreError:
    """Return the typed error for what SQLite reports."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & PRIMARY_CODE
    kind, what = FAILURES.get(
        code, (errors.OnlineUnavailableError, "the online store is not available")
    )
    return kind(
        what,
        where=str(path),
        expected=f"an answer within {timeout_ms} ms" if kind is errors.OnlineTimeoutError else None,
        found=str(error),
        way_out=None if kind is errors.OnlineTimeoutError else WAY_OUT,
    )
