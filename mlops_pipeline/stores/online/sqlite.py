"""The online store in one SQLite file: tables and statements.

Transactions outlive a killed process, not always a power cut: then the last chunks are lost with
the marker that they set, and are written again. Connections are sqlite_connections.py's.
"""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from mlops_pipeline.stores.closing import Closing
from mlops_pipeline.stores.online.codec import seal, unseal
from mlops_pipeline.stores.online.sqlite_connections import Connection, Connections
from mlops_pipeline.stores.online.store import OnlineTable, StoredEvent, StoredRecord

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


class SqliteOnlineStore(Closing):
    """See `OnlineStore`.

    Parameters
    ----------
    path : Path
        The file; it is made, with its folder, where there is none.
    timeout_ms : int
        How long a call waits for a lock.
    """

    def __init__(self, path: Path, *, timeout_ms: int) -> None:
        self._connections = Connections(
            path,
            schema=SCHEMA,
            application_id=APPLICATION_ID,
            layout=LAYOUT,
            timeout_ms=timeout_ms,
        )

    def write_records(
        self,
        table: OnlineTable,
        records: Sequence[StoredRecord],
        *,
        now_us: int,  # noqa: ARG002 # expired records are told when they are read
        progress: str | None = None,
    ) -> int:
        """Write one chunk in one transaction; see `OnlineStore`."""
        with self._connections.writing() as connection:
            number = _table_id(connection, table)
            # in the order of the key: neighbours share a page
            ordered = sorted(records, key=itemgetter(0))
            written = connection.executemany(WRITE_RECORD % number, ordered).rowcount
            _mark(connection, number, progress)
        return max(written, 0)  # -1 where there was nothing to write

    def read_records(
        self, table: OnlineTable, entities: Sequence[str], *, now_us: int
    ) -> list[bytes | None]:
        """Return the blob of each entity; see `OnlineStore`."""
        found: dict[str, bytes] = {}
        with self._connections.reading() as connection:
            for marks, chunk in _chunks(entities):
                rows = connection.execute(READ_RECORDS % marks, (*table, now_us, *chunk))
                found.update(rows.fetchall())
        return [found.get(entity) for entity in entities]

    def purge(self, table: OnlineTable, *, now_us: int) -> int:
        """Remove the records that have expired; see `OnlineStore`."""
        with self._connections.writing() as connection:
            return connection.execute(
                f"DELETE FROM records WHERE table_id = {TABLE_ID} AND expires_at_us <= ?",
                (*table, now_us),
            ).rowcount

    def progress(self, table: OnlineTable) -> str | None:
        """Return the table's marker; see `OnlineStore`."""
        with self._connections.reading() as connection:
            found: tuple[str | None] | None = connection.execute(
                "SELECT progress FROM tables WHERE use_case = ? AND name = ?", table
            ).fetchone()
        return found[0] if found else None

    def set_progress(self, table: OnlineTable, marker: str | None) -> None:
        """Set the table's marker; see `OnlineStore`."""
        with self._connections.writing() as connection:
            number = _table_id(connection, table)
            connection.execute("UPDATE tables SET progress = ? WHERE id = ?", (marker, number))

    def append_events(
        self,
        stream: OnlineTable,
        events: Sequence[StoredEvent],
        *,
        keep_after_us: int,
        progress: str | None = None,
    ) -> int:
        """Add events in one transaction; see `OnlineStore`."""
        kept = [
            (*event[:-1], seal(event.payload))
            for event in events
            if event.event_time_us >= keep_after_us
        ]
        with self._connections.writing() as connection:
            number = _table_id(connection, stream)
            connection.execute(
                "DELETE FROM events WHERE table_id = ? AND event_time_us < ?",
                (number, keep_after_us),
            )
            added = connection.executemany(WRITE_EVENT % number, kept).rowcount
            _mark(connection, number, progress)
        return max(added, 0)

    def read_events(
        self, stream: OnlineTable, entities: Sequence[str], *, since_us: int
    ) -> list[list[StoredEvent]]:
        """Return what happened to each entity at or after a moment; see `OnlineStore`."""
        found: dict[str, list[StoredEvent]] = {entity: [] for entity in entities}
        with self._connections.reading() as connection:
            for marks, chunk in _chunks(list(found)):
                rows = connection.execute(READ_EVENTS % marks, (*stream, since_us, *chunk))
                for entity, identity, happened, known, sealed in rows:
                    one = StoredEvent(entity, identity, happened, known, unseal(sealed))
                    found[entity].append(one)
        return [found[entity] for entity in entities]

    def forget(self, use_case: str, entity: str) -> int:
        """Remove every record and event of an entity; see `OnlineStore`."""
        where = "entity = ? AND table_id IN (SELECT id FROM tables WHERE use_case = ?)"
        with self._connections.writing() as connection:
            found = sum(
                connection.execute(f"DELETE FROM {held} WHERE {where}", (entity, use_case)).rowcount
                for held in ("records", "events")
            )
        with self._connections.reading() as connection:
            # the log still holds what was overwritten
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return found

    def drop(self, table: OnlineTable) -> None:
        """Remove a table or stream with its marker; see `OnlineStore`."""
        with self._connections.writing() as connection:
            for held in ("records", "events"):
                connection.execute(f"DELETE FROM {held} WHERE table_id = {TABLE_ID}", table)
            connection.execute("DELETE FROM tables WHERE use_case = ? AND name = ?", table)

    def close(self) -> None:
        """Close every connection."""
        self._connections.close()


def _table_id(connection: Connection, table: OnlineTable) -> int:
    """Return the table's number, a new one when it is unknown; in a transaction."""
    connection.execute(
        "INSERT INTO tables (use_case, name) VALUES (?, ?) ON CONFLICT DO NOTHING", table
    )
    row: tuple[int] = connection.execute(f"SELECT {TABLE_ID}", table).fetchone()
    return row[0]


def _mark(connection: Connection, number: int, progress: str | None) -> None:
    if progress is not None:
        connection.execute("UPDATE tables SET progress = ? WHERE id = ?", (progress, number))


def _chunks(entities: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Cut into chunks, each with its placeholders; the last entity fills up the last chunk."""
    for begin in range(0, len(entities), ENTITIES_AT_ONCE):
        chunk = entities[begin : begin + ENTITIES_AT_ONCE]
        size = 1 << (len(chunk) - 1).bit_length()
        yield ", ".join("?" * size), [*chunk, *[chunk[-1]] * (size - len(chunk))]
