"""A SQLite file that is gone, locked, full or damaged: a typed error within the time limit."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from mlops_pipeline.errors import (
    OnlineCorruptError,
    OnlineFullError,
    OnlineTimeoutError,
    OnlineUnavailableError,
)
from mlops_pipeline.stores.online.interface import OnlineTable, StoredRecord
from mlops_pipeline.stores.online.sqlite import (
    READ_EVENTS,
    READ_RECORDS,
    SqliteOnlineStore,
    failure,
)
from mlops_pipeline_tests.stores.online.records import SCHEMA, at, days, event, record
from mlops_pipeline_tests.stores.online.time_limit import LIMIT_MS, ends_in_time

DAILY = OnlineTable("shop", "daily")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "online store?.db"  # a question mark begins options where it is not quoted


@pytest.fixture
def filled(path: Path) -> Iterator[SqliteOnlineStore]:
    with SqliteOnlineStore(path, timeout_ms=LIMIT_MS) as opened:
        opened.write_records(DAILY, [record("1", 1)], now_us=at(1))
        opened.append_events(DAILY, [event("1", "a", 1)], keep_after_us=at(0))
        yield opened


def other_connection(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def read(store: SqliteOnlineStore) -> list[float | None]:
    return days(store.read_records(DAILY, ["1"], now_us=at(1)))


def test_sqlite_file_deleted_is_unavailable(filled: SqliteOnlineStore, path: Path) -> None:
    path.unlink()
    with ends_in_time(), pytest.raises(OnlineUnavailableError, match="No such file"):
        read(filled)
    with pytest.raises(OnlineUnavailableError):
        filled.write_records(DAILY, [record("1", 2)], now_us=at(2))
    assert not path.exists()


def test_sqlite_file_made_anew_is_read_by_an_open_store(
    filled: SqliteOnlineStore, path: Path
) -> None:
    for one in path.parent.iterdir():
        one.unlink()
    with SqliteOnlineStore(path, timeout_ms=LIMIT_MS) as other:
        other.write_records(DAILY, [record("1", 9)], now_us=at(9))
        assert read(filled) == [9]


def test_sqlite_file_made_by_several_at_once_is_one_store(path: Path) -> None:
    def write(number: int) -> None:
        with SqliteOnlineStore(path, timeout_ms=10_000) as store:
            store.write_records(DAILY, [record(str(number), number)], now_us=at(0))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    with SqliteOnlineStore(path, timeout_ms=LIMIT_MS) as store:
        found = store.read_records(DAILY, [str(number) for number in range(8)], now_us=at(0))
    assert days(found) == [*range(8)]
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_sqlite_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OnlineUnavailableError, match="cannot be reached"):
        SqliteOnlineStore(tmp_path / "file" / "online.db", timeout_ms=LIMIT_MS)


@pytest.mark.parametrize("content", [b"", b"garbage " * 1_000, b"SQLite format 3\0" + bytes(9_000)])
def test_sqlite_file_of_something_else_is_corrupt(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with (
        SqliteOnlineStore(path, timeout_ms=LIMIT_MS) as store,
        ends_in_time(),
        pytest.raises(OnlineCorruptError, match="not an online store"),
    ):
        read(store)
    assert path.read_bytes() == content


def test_sqlite_database_of_another_program_is_left_alone(path: Path) -> None:
    with closing(other_connection(path)) as other:
        other.execute("CREATE TABLE records (mine)")
    with (
        SqliteOnlineStore(path, timeout_ms=LIMIT_MS) as store,
        pytest.raises(OnlineCorruptError, match="not an online store of this version"),
    ):
        store.write_records(DAILY, [record("1", 1)], now_us=at(1))


def test_sqlite_damaged_pages_are_corrupt(path: Path) -> None:
    keys = [str(number) for number in range(2_000)]
    with SqliteOnlineStore(path, timeout_ms=LIMIT_MS) as store:
        store.write_records(DAILY, [record(key, 1) for key in keys], now_us=at(1))
    content = bytearray(path.read_bytes())
    page_bytes = 4_096
    for begin in range(6 * page_bytes, len(content), page_bytes):
        content[begin : begin + 16] = b"\xff" * 16
    path.write_bytes(content)
    with (
        SqliteOnlineStore(path, timeout_ms=LIMIT_MS) as store,
        pytest.raises(OnlineCorruptError, match="damaged"),
    ):
        store.read_records(DAILY, keys, now_us=at(1))


def test_sqlite_record_with_any_byte_changed_is_refused(
    filled: SqliteOnlineStore, path: Path
) -> None:
    whole = record("1", 1).blob
    with closing(other_connection(path)) as other:
        for place in range(len(whole)):
            damaged = bytearray(whole)
            damaged[place] ^= 0x80
            other.execute("UPDATE records SET blob = ?", (bytes(damaged),))
            (found,) = filled.read_records(DAILY, ["1"], now_us=at(1))
            assert found is not None
            with pytest.raises(OnlineCorruptError):
                SCHEMA.decode(found)


def test_sqlite_event_with_a_byte_changed_is_refused(filled: SqliteOnlineStore, path: Path) -> None:
    with closing(other_connection(path)) as other:
        other.execute("UPDATE events SET payload = CAST(payload || 'x' AS BLOB)")
    with pytest.raises(OnlineCorruptError, match="stored event"):
        filled.read_events(DAILY, ["1"], since_us=at(0))


def test_sqlite_locked_for_reading_is_a_timeout(path: Path) -> None:
    SqliteOnlineStore(path, timeout_ms=LIMIT_MS).close()
    with (
        closing(other_connection(path)) as other,
        SqliteOnlineStore(path, timeout_ms=LIMIT_MS) as store,
    ):
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with ends_in_time(), pytest.raises(OnlineTimeoutError, match="within 100 ms"):
            read(store)


def test_sqlite_locked_for_writing_is_a_timeout_and_is_still_read(
    filled: SqliteOnlineStore, path: Path
) -> None:
    with closing(other_connection(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ends_in_time(), pytest.raises(OnlineTimeoutError, match="locked"):
            filled.write_records(DAILY, [record("1", 2)], now_us=at(2))
        assert read(filled) == [1]
    filled.write_records(DAILY, [record("1", 3)], now_us=at(3))
    assert read(filled) == [3]


def test_sqlite_full_is_an_error_and_keeps_nothing_of_the_chunk(filled: SqliteOnlineStore) -> None:
    filled.set_checkpoint(DAILY, "1")
    large = [StoredRecord(f"x{number}", 0, None, bytes(900)) for number in range(2_000)]
    with filled._connections.reading() as connection:
        connection.execute("PRAGMA max_page_count = 100")
    with pytest.raises(OnlineFullError, match="full"):
        filled.write_records(DAILY, large, now_us=at(1), checkpoint="2")
    assert filled.checkpoint(DAILY) == "1"
    assert read(filled) == [1]
    assert filled.read_records(DAILY, ["x0"], now_us=at(1)) == [None]
    assert filled.write_records(DAILY, large[:5], now_us=at(1)) == 5


def test_sqlite_read_only_is_unavailable(filled: SqliteOnlineStore, path: Path) -> None:
    with filled._connections.reading() as connection:
        connection.execute("PRAGMA query_only = ON")
    with pytest.raises(OnlineUnavailableError, match="readonly"):
        filled.write_records(DAILY, [record("1", 2)], now_us=at(2))
    assert read(filled) == [1]


def test_sqlite_forgotten_entity_is_not_left_in_the_files(
    filled: SqliteOnlineStore, path: Path
) -> None:
    secret = StoredRecord("name@example.org", 0, None, b"a secret of the person")
    filled.write_records(DAILY, [secret], now_us=at(1))
    assert filled.forget("shop", "name@example.org") == 1
    held = b"".join(one.read_bytes() for one in path.parent.iterdir())
    assert b"a secret" not in held
    assert b"name@example.org" not in held


def test_failure_of_an_unknown_kind_says_what_sqlite_said(path: Path) -> None:
    error = failure(sqlite3.OperationalError("disk I/O error"), path, LIMIT_MS)
    assert isinstance(error, OnlineUnavailableError)
    assert "disk I/O error" in str(error)


def test_sqlite_reads_look_at_the_asked_entities_only(
    filled: SqliteOnlineStore, path: Path
) -> None:
    with closing(other_connection(path)) as other:
        for statement in (READ_RECORDS, READ_EVENTS):
            plan = other.execute(f"EXPLAIN QUERY PLAN {statement % '?'}", ("a", "b", 1, "1"))
            steps = " ".join(row[3] for row in plan)
            assert "USING PRIMARY KEY (table_id=? AND entity=?)" in steps
