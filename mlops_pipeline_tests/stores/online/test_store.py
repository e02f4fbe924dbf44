"""What both stores promise; see the header of interface.py."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_pipeline.errors import ConfigError
from mlops_pipeline.stores.online.interface import OnlineStore, OnlineTable, open_online_store
from mlops_pipeline_tests.stores.online.records import ODD_KEYS, at, days, event, record

MANY = 2_100  # more than one statement, script and exchange


def test_records_never_written_are_missing(store: OnlineStore, table: OnlineTable) -> None:
    assert store.read_records(table, ["1", "2"], now_us=at(0)) == [None, None]
    assert store.read_records(table, [], now_us=at(0)) == []


def test_records_come_back_in_the_order_asked(store: OnlineStore, table: OnlineTable) -> None:
    assert store.write_records(table, [record("1", 1), record("2", 2)], now_us=at(2)) == 2
    found = store.read_records(table, ["2", "3", "1", "2"], now_us=at(2))
    assert days(found) == [2, None, 1, 2]


def test_records_of_many_entities_all_come_back(store: OnlineStore, table: OnlineTable) -> None:
    written = [record(str(number), 1) for number in range(MANY)]
    assert store.write_records(table, written, now_us=at(1)) == MANY
    found = store.read_records(table, [one.entity for one in written], now_us=at(1))
    assert found == [one.blob for one in written]


def test_records_of_odd_keys_stay_apart(store: OnlineStore, table: OnlineTable) -> None:
    written = [record(key, number) for number, key in enumerate(ODD_KEYS)]
    store.write_records(table, written, now_us=at(0))
    assert days(store.read_records(table, ODD_KEYS, now_us=at(0))) == [*range(len(ODD_KEYS))]


def test_records_of_two_tables_and_use_cases_stay_apart(
    store: OnlineStore, table: OnlineTable, use_case: str
) -> None:
    places = [table, OnlineTable(use_case, "daily_2"), OnlineTable(f"{use_case}_2", "daily")]
    for day, place in enumerate(places):
        store.write_records(place, [record("1", day)], now_us=at(0))
    found = [store.read_records(place, ["1"], now_us=at(0)) for place in places]
    store.drop(places[2])
    assert [days(one) for one in found] == [[0], [1], [2]]


def test_record_of_an_older_time_replaces_nothing(store: OnlineStore, table: OnlineTable) -> None:
    store.write_records(table, [record("1", 5)], now_us=at(5))
    assert store.write_records(table, [record("1", 4), record("2", 4)], now_us=at(6)) == 1
    assert days(store.read_records(table, ["1", "2"], now_us=at(6))) == [5, 4]


def test_record_of_the_same_time_replaces(store: OnlineStore, table: OnlineTable) -> None:
    store.write_records(table, [record("1", 5)], now_us=at(5))
    other = record("1", 5)._replace(blob=b"of another definition", expires_at_us=None)
    assert store.write_records(table, [other], now_us=at(5)) == 1
    assert store.read_records(table, ["1"], now_us=at(5)) == [b"of another definition"]


def test_record_twice_in_a_chunk_keeps_the_newer(store: OnlineStore, table: OnlineTable) -> None:
    chunk = [record("1", 3, expires=9), record("1", 7), record("1", 5)]
    store.write_records(table, chunk, now_us=at(7))
    assert days(store.read_records(table, ["1"], now_us=at(99))) == [7]


@given(written=st.lists(st.tuples(st.integers(-9, 9), st.none() | st.integers(0, 20)), min_size=1))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
def test_records_in_any_order_the_newest_stays(
    store: OnlineStore, table: OnlineTable, written: list[tuple[int, int | None]]
) -> None:
    store.drop(table)
    for day, expires in written:
        store.write_records(table, [record("1", day, expires=expires)], now_us=at(0))
    newest = max(day for day, _ in written)
    expires = [expires for day, expires in written if day == newest][-1]
    found = days(store.read_records(table, ["1"], now_us=at(10)))
    assert found == [newest if expires is None or expires > 10 else None]


def test_record_expires_at_its_moment(store: OnlineStore, table: OnlineTable) -> None:
    store.write_records(table, [record("1", 0, expires=3), record("2", 0)], now_us=at(0))
    just_before = store.read_records(table, ["1", "2"], now_us=at(3) - 1)
    assert days(just_before) == [0, 0]
    assert days(store.read_records(table, ["1", "2"], now_us=at(3))) == [None, 0]


def test_record_of_a_past_day_is_read_as_of_that_day(
    store: OnlineStore, table: OnlineTable
) -> None:
    store.write_records(table, [record("1", -9_000, expires=-8_999)], now_us=at(-9_000))
    assert days(store.read_records(table, ["1"], now_us=at(-8_999.5))) == [-9_000]


def test_purge_removes_what_has_expired(store: OnlineStore, table: OnlineTable) -> None:
    expiring = [record(str(number), 0, expires=1 + number % 2) for number in range(300)]
    store.write_records(table, [*expiring, record("x", 0)], now_us=at(0))
    assert store.purge(table, now_us=at(1)) == 150
    assert store.purge(table, now_us=at(1)) == 0
    found = store.read_records(table, ["0", "1", "x"], now_us=at(0))
    assert days(found) == [None, 0, 0]


def test_checkpoint_is_set_with_its_chunk(store: OnlineStore, table: OnlineTable) -> None:
    assert store.checkpoint(table) is None
    store.write_records(table, [record("1", 1)], now_us=at(1), checkpoint="after 1")
    assert store.checkpoint(table) == "after 1"
    store.write_records(table, [], now_us=at(1), checkpoint="größer")
    store.write_records(table, [record("2", 1)], now_us=at(1))
    assert store.checkpoint(table) == "größer"
    store.set_checkpoint(table, "new")
    assert store.checkpoint(table) == "new"
    store.set_checkpoint(table, None)
    assert store.checkpoint(table) is None


def test_checkpoint_of_a_killed_run_is_never_ahead_of_its_records(
    url: str, store: OnlineStore, table: OnlineTable
) -> None:
    program = f"""
import itertools
from mlops_pipeline.stores.online.interface import OnlineTable, StoredRecord, open_online_store
store = open_online_store({url!r}, timeout_ms=10_000)
for chunk in itertools.count():
    records = [StoredRecord(f"{{chunk}}:{{number}}", 0, None, b"x") for number in range(500)]
    store.write_records({table!r}, records, now_us=0, checkpoint=str(chunk))
    print(chunk, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as run:
        for line in run.stdout or []:
            if line == b"7\n":
                run.kill()
                break
    done = int(store.checkpoint(table) or -1)
    keys = [f"{chunk}:{number}" for chunk in range(done + 1) for number in range(500)]
    assert done >= 7
    assert store.read_records(table, keys, now_us=0) == [b"x"] * len(keys)


def test_records_of_writers_at_once_end_with_the_newest_and_are_always_whole(
    store: OnlineStore, table: OnlineTable
) -> None:
    keys = [str(number) for number in range(50)]

    def write(days_in_order: list[int]) -> None:
        for day in days_in_order:
            store.write_records(table, [record(key, day) for key in keys], now_us=at(0))

    def read(_: int) -> list[float | None]:
        return [day for _ in range(40) for day in days(store.read_records(table, keys, now_us=0))]

    orders = [[1, 5, 9, 13], [14, 10, 6, 2], [3, 15, 7, 11], [16, 4, 12, 8]]
    with ThreadPoolExecutor(8) as pool:
        reading = pool.map(read, range(4))
        list(pool.map(write, orders))
        seen = {day for found in reading for day in found}
    assert seen <= {None, *range(1, 17)}
    assert days(store.read_records(table, keys, now_us=0)) == [16] * 50


def test_forget_removes_all_of_an_entity_in_a_use_case(
    store: OnlineStore, table: OnlineTable, use_case: str
) -> None:
    stream, weekly = OnlineTable(use_case, "payments"), OnlineTable(use_case, "weekly")
    for one in (table, weekly):
        store.write_records(one, [record("1", 1), record("11", 1)], now_us=at(1))
    events = [event("1", "a", 1), event("1", "b", 1), event("11", "a", 1)]
    store.append_events(stream, events, keep_after_us=at(0))
    assert store.forget(f"{use_case}_2", "1") == 0
    assert store.forget(use_case, "1") == 4
    assert store.forget(use_case, "1") == 0
    for one in (table, weekly):
        assert days(store.read_records(one, ["1", "11"], now_us=at(1))) == [None, 1]
    assert store.read_events(stream, ["1", "11"], since_us=at(0)) == [[], [events[2]]]
    # nothing is left by which an event of the person would count as known
    assert store.append_events(stream, events[:2], keep_after_us=at(0)) == 2


def test_drop_removes_one_table_only(store: OnlineStore, table: OnlineTable, use_case: str) -> None:
    other = OnlineTable(use_case, "daily_2")
    for one in (table, other):
        store.write_records(one, [record("1", 1)], now_us=at(1), checkpoint="x")
        store.append_events(one, [event("1", "a", 1)], keep_after_us=at(0))
    store.drop(table)
    store.drop(table)
    assert store.read_records(table, ["1"], now_us=at(1)) == [None]
    assert store.read_events(table, ["1"], since_us=at(0)) == [[]]
    assert (store.checkpoint(table), store.checkpoint(other)) == (None, "x")
    assert days(store.read_records(other, ["1"], now_us=at(1))) == [1]
    assert store.append_events(table, [event("1", "a", 1)], keep_after_us=at(0)) == 1


def test_store_opened_again_holds_what_was_written(
    url: str, store: OnlineStore, table: OnlineTable
) -> None:
    store.write_records(table, [record("1", 1)], now_us=at(1))
    store.close()
    with open_online_store(url, timeout_ms=10_000) as again:
        assert days(again.read_records(table, ["1"], now_us=at(1))) == [1]


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "online.db",
        "sqlite://online.db",
        "sqlite:///",
        "redis://",
        "redis://localhost:secret/0",
        "redis://:secret@localhost/x",
        "redis://localhost/0?socket_timeout=secret",
        "postgresql://secret@localhost/db",
    ],
)
def test_open_wrong_address_is_an_error_without_its_text(wrong: str) -> None:
    with pytest.raises(ConfigError, match="MLOPS_ONLINE_URL") as caught:
        open_online_store(wrong, timeout_ms=50)
    assert "secret" not in str(caught.value)


def test_open_without_a_time_limit_is_an_error(url: str) -> None:
    with pytest.raises(ConfigError, match="MLOPS_ONLINE_TIMEOUT_MS"):
        open_online_store(url, timeout_ms=0)
