"""Connections to the file of a SQLite online store: making, opening, time limit, typed errors.

Each thread has its own connection, so that no reader waits for a writer (WAL). A file that was
deleted or replaced under an open store is noticed by its inode: SQLite itself would go on reading
the deleted one. Belongs here: what does not depend on what is stored.
"""

import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from weakref import WeakSet

from mlops_pipeline.errors import (
    OnlineCorruptError,
    OnlineFullError,
    OnlineStoreError,
    OnlineTimeoutError,
    OnlineUnavailableError,
)

PRIMARY_CODE = 0xFF  # of SQLite's result codes; the rest says more closely what happened
# the inner pages of some million records
SETTINGS = "PRAGMA cache_size = -16384; PRAGMA synchronous = NORMAL; PRAGMA secure_delete = ON;"
WAY_OUT = "see that the file is there, is ours and can be written; delete it to begin again"
FAILURES: dict[int, tuple[type[OnlineStoreError], str]] = {
    sqlite3.SQLITE_BUSY: (OnlineTimeoutError, "the online store stayed locked"),
    sqlite3.SQLITE_LOCKED: (OnlineTimeoutError, "the online store stayed locked"),
    sqlite3.SQLITE_FULL: (OnlineFullError, "the online store is full"),
    sqlite3.SQLITE_CORRUPT: (OnlineCorruptError, "the file of the online store is damaged"),
    sqlite3.SQLITE_NOTADB: (OnlineCorruptError, "the file is not an online store"),
}


class Connection(sqlite3.Connection):
    """A connection that knows which file it opened."""

    inode: tuple[int, int] = (0, 0)


class Connections:
    """One connection for each thread that asks.

    Parameters
    ----------
    path : Path
        The file.
    schema : str
        What makes an empty file ours; sets `application_id` and `layout`.
    application_id, layout : int
        What our files say of themselves (PRAGMA application_id, user_version).
    timeout_ms : int
        How long a statement waits for a lock.
    """

    def __init__(
        self, path: Path, *, schema: str, application_id: int, layout: int, timeout_ms: int
    ) -> None:
        self._path = path.absolute()
        self._marks = (application_id, layout)
        self._timeout_ms = timeout_ms
        self._local = threading.local()
        self._opened: WeakSet[Connection] = WeakSet()
        if not self._path.exists():
            with self._reported():
                _make(self._path, schema)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend this thread's connection, and report what fails as an `OnlineStoreError`."""
        with self._reported():
            yield self._connection()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Lend this thread's connection in a transaction: all or nothing, one writer at a time."""
        with self._reported():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection of every thread."""
        for connection in list(self._opened):
            connection.close()
        self._local = threading.local()

    def _connection(self) -> Connection:
        found = self._path.stat()
        inode = (found.st_dev, found.st_ino)
        held: Connection | None = getattr(self._local, "connection", None)
        if held is None or held.inode != inode:
            self._local.connection = held = self._connect(inode)
        return held

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
        marks = tuple(
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version")
        )
        if marks != self._marks:
            connection.close()
            raise OnlineCorruptError(
                "the file is not an online store of this version",
                where=str(self._path),
                expected=f"application_id and user_version {self._marks}",
                found=str(marks),
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
            raise OnlineUnavailableError(
                "the file of the online store cannot be reached",
                where=str(self._path),
                found=error.strerror,
                way_out=WAY_OUT,
            ) from error


def failure(error: sqlite3.Error, path: Path, timeout_ms: int) -> OnlineStoreError:
    """Return the typed error for what SQLite reports."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & PRIMARY_CODE
    kind, what = FAILURES.get(code, (OnlineUnavailableError, "the online store is not available"))
    return kind(
        what,
        where=str(path),
        expected=f"an answer within {timeout_ms} ms" if kind is OnlineTimeoutError else None,
        found=str(error),
        way_out=None if kind is OnlineTimeoutError else WAY_OUT,
    )


def _make(path: Path, schema: str) -> None:
    """Make the file, whole or not at all; of several processes the first wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        connection = sqlite3.connect(work, isolation_level=None)
        try:
            connection.executescript(schema)
        finally:
            connection.close()
        os.link(work, path)
    except FileExistsError:
        return
    finally:
        work.unlink(missing_ok=True)
