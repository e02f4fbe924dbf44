"""What both stores promise of events."""

from concurrent.futures import ThreadPoolExecutor

from mlops_pipeline.stores.online.interface import OnlineStore, OnlineTable, StoredEvent
from mlops_pipeline_tests.stores.online.records import ODD_KEYS, at, event


def test_events_come_back_by_time_availability_and_identity(
    store: OnlineStore, table: OnlineTable
) -> None:
    first, revised, beside = event("1", "b", 1), event("1", "b", 1, known=2), event("1", "a", 1)
    later, other = event("1", "long identity", 1.5), event("2", "b", 1)
    appended = [later, revised, other, first, beside]
    assert store.append_events(table, appended, keep_after_us=at(0)) == 5
    assert store.read_events(table, ["2", "3", "1"], since_us=at(0)) == [
        [other],
        [],
        [beside, first, revised, later],
    ]
    assert store.read_events(table, [], since_us=at(0)) == []


def test_events_before_the_moment_asked_are_left_out(
    store: OnlineStore, table: OnlineTable
) -> None:
    events = [event("1", str(day), day) for day in range(4)]
    store.append_events(table, events, keep_after_us=at(0))
    assert store.read_events(table, ["1"], since_us=at(2)) == [events[2:]]
    assert store.read_events(table, ["1"], since_us=at(2) + 1) == [events[3:]]


def test_events_twice_count_once_and_the_first_stays(
    store: OnlineStore, table: OnlineTable
) -> None:
    first = event("1", "a", 1)
    again = first._replace(payload=b"other", event_time_us=at(2))
    assert store.append_events(table, [first, again], keep_after_us=at(0)) == 1
    assert store.append_events(table, [again, first], keep_after_us=at(0)) == 0
    assert store.read_events(table, ["1"], since_us=at(0)) == [[first]]


def test_events_late_are_kept_within_the_window_only(
    store: OnlineStore, table: OnlineTable
) -> None:
    store.append_events(table, [event("1", "new", 9)], keep_after_us=at(2))
    late, too_late = event("1", "late", 2, known=9), event("1", "too late", 1.9, known=9)
    assert store.append_events(table, [late, too_late], keep_after_us=at(2)) == 1
    found = store.read_events(table, ["1"], since_us=at(-99))
    assert [[one.identity for one in events] for events in found] == [["late", "new"]]


def test_events_before_the_window_are_pruned(store: OnlineStore, table: OnlineTable) -> None:
    store.append_events(table, [event("1", "a", 1), event("1", "b", 2)], keep_after_us=at(0))
    store.append_events(table, [event("1", "c", 3)], keep_after_us=at(2))
    (found,) = store.read_events(table, ["1"], since_us=at(0))
    assert [one.identity for one in found] == ["b", "c"]
    # what is no longer held is new again
    assert store.append_events(table, [event("1", "a", 1)], keep_after_us=at(0)) == 1


def test_events_of_many_entities_all_come_back(store: OnlineStore, table: OnlineTable) -> None:
    events = [event(str(number % 300), str(number), number / 1e3) for number in range(1_500)]
    assert store.append_events(table, events, keep_after_us=at(0), checkpoint="offset 7") == 1_500
    found = store.read_events(table, [str(number) for number in range(300)], since_us=at(0))
    assert sorted(one for some in found for one in some) == sorted(events)
    assert store.checkpoint(table) == "offset 7"


def test_events_of_an_entity_asked_twice_come_twice_whole(
    store: OnlineStore, table: OnlineTable
) -> None:
    store.append_events(table, [event("0", "a", 1)], keep_after_us=at(0))
    keys = [str(number) for number in range(600)]  # more than one statement
    found = store.read_events(table, keys + keys, since_us=at(0))
    assert found[0] == found[600] == [event("0", "a", 1)]


def test_events_of_extreme_values_come_back_exactly(store: OnlineStore, table: OnlineTable) -> None:
    odd = [
        StoredEvent(key, identity, at(0) + 1, available, payload)
        for key in ODD_KEYS
        for identity, available, payload in [("", 0, b""), ("ü:1", -5, bytes(range(256)))]
    ]
    store.append_events(table, odd, keep_after_us=at(0))
    found = store.read_events(table, ODD_KEYS, since_us=at(0))
    assert sorted(one for some in found for one in some) == sorted(odd)


def test_events_of_appenders_at_once_are_held_once(store: OnlineStore, table: OnlineTable) -> None:
    events = [event(str(number % 5), str(number), number / 1e3) for number in range(200)]

    def append(shift: int) -> int:
        turned = events[shift:] + events[:shift]
        parts = [turned[begin : begin + 20] for begin in range(0, 200, 20)]
        return sum(store.append_events(table, part, keep_after_us=at(0)) for part in parts)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(append, [0, 50, 100, 150])) == 200
    found = store.read_events(table, [str(number) for number in range(5)], since_us=at(0))
    assert sorted(one for some in found for one in some) == sorted(events)
