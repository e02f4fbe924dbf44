"""Materialization: what is written, once, and what a killed or repeated run does."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.errors import NotFoundError, OnlineDefinitionError, OnlineFullError
from mlops_pipeline.lifecycle.context import Context, Snapshot
from mlops_pipeline.lifecycle.features.offline import build_features
from mlops_pipeline.lifecycle.features.online.layout import LiveEvents, Pushed, online_layout
from mlops_pipeline.lifecycle.features.online.materialize import Materialized, materialize
from mlops_pipeline.lifecycle.features.online.reader import OnlineReader
from mlops_pipeline.stores.online.interface import (
    OnlineStore,
    OnlineTable,
    StoredEvent,
    StoredRecord,
)
from mlops_pipeline_tests.core.features.deliveries import PAYMENTS
from mlops_pipeline_tests.worlds import (
    DAY,
    HOUR,
    NOW,
    PLANS,
    Row,
    World,
    accept_all,
    ingest_all,
    on,
    plan,
    shop,
    utc,
    visit,
)

CUSTOMERS = 25
HISTORY = {
    "source": "visits",
    "freshness_days": 31,
    "columns": {
        "visits": {"aggregate": "count", "dtype": "int64"},
        "spent": {"aggregate": "sum", "of": "amount", "precision": 2},
        "kind": {"aggregate": "last", "of": "kind", "dtype": "string"},
    },
}


class CountingStore:
    """Passes calls on, counts the records written, and may fail after some chunks."""

    def __init__(self, store: OnlineStore, *, fails_after: int | None = None) -> None:
        self._store, self._left = store, fails_after
        self.written = 0

    def write_records(self, table: OnlineTable, records: list[StoredRecord], **options: Any) -> int:
        self._spend()
        self.written += len(records)
        return self._store.write_records(table, records, **options)

    def append_events(self, stream: OnlineTable, events: list[StoredEvent], **options: Any) -> int:
        self._spend()
        return self._store.append_events(stream, events, **options)

    def _spend(self) -> None:
        if self._left is not None:
            if not self._left:
                raise OnlineFullError("no room")
            self._left -= 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def monthly(use_case: str, **history: Any) -> UseCase:
    return shop(name=use_case, views={"history": {**HISTORY, **history}})


@pytest.fixture
def world(use_case: str, tmp_path: Path) -> World:
    world = World(monthly(use_case), tmp_path)
    world.deliver("visits", [visit(on(1, 5), number) for number in range(CUSTOMERS)])
    world.deliver("visits", [visit(on(2, 5), number, amount=2.0) for number in range(0, 25, 5)])
    world.deliver("visits", [visit(on(3, 2), 1)])
    return world


@pytest.fixture
def work(world: World) -> Iterator[Context]:
    with world.open() as opened:
        ingest_all(opened)
        build_features(opened, Snapshot(utc(on(2)), accept_all(opened)))
        yield opened


def run(work: Context, store: Any, now: Any = NOW, **options: Any) -> Materialized:
    options = {"through": now, **options}
    return materialize(work, accept_all(work), store, now=now, **options)


def read(
    store: OnlineStore, case: UseCase, entity: int, at: Any = NOW
) -> tuple[bool, dict[str, Any]]:
    (found,) = OnlineReader(case, store, now=lambda: at).read(
        [entity], online_layout(case).features
    )
    return found.is_known, {name: item.value for name, item in found.values.items()}


def test_newest_period_is_written_once(work: Context, store: OnlineStore) -> None:
    first = run(work, store, chunk_rows=4)
    assert (first.rows, first.entities, first.is_new) == (CUSTOMERS, CUSTOMERS, True)
    assert first.feature_time == utc(on(2))
    again = run(work, store)
    assert (again.rows, again.entities, again.is_new) == (0, CUSTOMERS, False)
    assert (again.feature_time, again.table) == (first.feature_time, first.table)
    assert read(store, work.use_case, 5) == (True, {"visits": 1, "spent": 1.0, "kind": "shop"})


def test_newer_period_replaces_the_older(work: Context, store: OnlineStore) -> None:
    run(work, store)
    build_features(work, Snapshot(utc(on(3)), accept_all(work)))
    assert run(work, store).feature_time == utc(on(3))
    assert read(store, work.use_case, 5)[1] == {"visits": 2, "spent": 3.0, "kind": "shop"}


def test_views_that_are_stale_by_now_are_named(work: Context, store: OnlineStore) -> None:
    assert run(work, store, utc(on(2, 3))).stale_views == ()
    assert run(work, store, utc(on(4))).stale_views == ("history",)


def test_killed_run_goes_on_behind_its_last_chunk(work: Context, store: OnlineStore) -> None:
    failing = CountingStore(store, fails_after=3)
    with pytest.raises(OnlineFullError):
        run(work, failing, chunk_rows=4)
    with pytest.raises(OnlineDefinitionError, match="no complete features"):
        read(store, work.use_case, 24)
    counting = CountingStore(store)
    done = run(work, counting, chunk_rows=4)
    assert (failing.written, counting.written) == (12, CUSTOMERS - 12)
    assert (done.rows, done.entities) == (CUSTOMERS - 12, CUSTOMERS)
    assert all(read(store, work.use_case, number)[0] for number in range(CUSTOMERS))


def test_killed_run_of_an_earlier_period_does_not_stop_the_next(
    work: Context, store: OnlineStore
) -> None:
    with pytest.raises(OnlineFullError):
        run(work, CountingStore(store, fails_after=2), chunk_rows=4)
    build_features(work, Snapshot(utc(on(3)), accept_all(work)))
    assert run(work, store, chunk_rows=4).rows == CUSTOMERS


def test_text_keys_are_resumed_in_their_order(
    use_case: str, tmp_path: Path, store: OnlineStore
) -> None:
    columns = {"customer": "string", "at": "timestamp", "known": "timestamp", "amount": "float64"}
    source = {"uri": "sales", "columns": columns, "event_time": "at", "available_at": "known"}
    views = {"sales": {"source": "sales", "columns": {"sold": {"aggregate": "count"}}}}
    case = shop(
        name=use_case,
        sources={"sales": {**source, "static": True}},
        population={"source": "sales"},
        label={"kind": "event_present", "source": "sales", "horizon_days": 30},
        views=views,
    )
    world = World(case, tmp_path)
    keys = ["a'b", "B", "é", "z", "10", "9", "a"]
    rows = [{"customer": key, "at": on(1), "known": on(1), "amount": 1.0} for key in keys]
    world.deliver("sales", rows)
    with world.open() as work:
        ingest_all(work)
        build_features(work, Snapshot(utc(on(2)), accept_all(work)))
        with pytest.raises(OnlineFullError):
            run(work, CountingStore(store, fails_after=2), chunk_rows=2)
        assert run(work, store, chunk_rows=2).rows == 3
    found = OnlineReader(case, store, now=lambda: NOW).read(keys, ["sold"])
    assert [(item.entity, item.values["sold"].value) for item in found] == [(k, 1.0) for k in keys]


def test_changed_ttl_is_written_again(world: World, work: Context, store: OnlineStore) -> None:
    run(work, store)
    other = monthly(world.use_case.name, ttl_days=40)
    world.use_case = other
    with world.open() as changed:
        assert run(changed, store, utc(on(2, 3))).rows == CUSTOMERS
        assert run(changed, store, utc(on(2, 3))).rows == 0
    assert read(store, other, 1, utc(on(3, 1)))[0]
    assert not read(store, other, 1, utc(on(3, 13)))[0]  # 40 days after feature time


def test_earlier_definitions_are_read_for_a_day_more(
    world: World, work: Context, store: OnlineStore
) -> None:
    earlier, now = world.use_case, utc(on(2, 3))
    run(work, store, now)
    columns = {"visits": HISTORY["columns"]["visits"]}  # type: ignore[index]
    world.use_case = monthly(earlier.name, columns=columns)
    with world.open() as changed:
        with pytest.raises(OnlineDefinitionError, match="no complete features"):
            read(store, world.use_case, 1)
        build_features(changed, Snapshot(utc(on(2)), accept_all(changed)))
        run(changed, store, now)
        assert read(store, world.use_case, 1) == (True, {"visits": 1})
        run(changed, store, now + 23 * HOUR)
        assert read(store, earlier, 1)[0]
        run(changed, store, now + DAY)
    with pytest.raises(OnlineDefinitionError, match="no complete features"):
        read(store, earlier, 1)


def test_use_case_without_features_says_what_to_do(world: World, store: OnlineStore) -> None:
    with world.open() as work:
        ingest_all(work)
        with pytest.raises(NotFoundError, match="there are no features") as caught:
            run(work, store)
    assert caught.value.way_out == f"materialize {world.use_case.name}/features first"


# events


COUNTS: Mapping[str, Any] = {
    "count_1h": {"aggregate": "count", "window_hours": 1, "dtype": "int64"},
    "count_10d": {"aggregate": "count", "window_days": 10, "dtype": "int64"},
    "last_kind": {"aggregate": "last", "of": "kind", "window_days": 10, "dtype": "string"},
}


def streaming(use_case: str, **payments: Any) -> UseCase:
    return shop(
        name=use_case,
        grid={"every": "event"},
        population={"source": "payments"},
        sources={
            "payments": {**PAYMENTS, "lateness_days": 5, "max_quarantined": 1.0, **payments},
            "plans": PLANS,
        },
        label={"kind": "event_present", "source": "payments", "horizon_days": 30},
        views={
            "recent": {
                "source": "payments",
                "online": True,
                "freshness_days": 30,
                "columns": COUNTS,
            },
            "plan": {
                "source": "plans",
                "online": True,
                "refresh": "daily",
                "columns": {"tier": {"aggregate": "last", "of": "tier", "dtype": "string"}},
            },
        },
    )


def payment(number: int, at: Any, customer: int | None = 1, **values: Any) -> Row:
    row: Row = {"payment": number, "customer": customer, "at": at, "known": at, "amount": 1.0}
    return {**row, "units": 1, "score": 1.0, "kind": "shop", "foreign": False, "note": "",
            **values}  # fmt: skip


def push_events(
    case: UseCase, store: OnlineStore, source: str, rows: list[Row], *, now: Any
) -> Pushed:
    return LiveEvents(case, source).push(store, rows, now=now)


@pytest.fixture
def stream(use_case: str, tmp_path: Path) -> World:
    world = World(streaming(use_case), tmp_path)
    world.deliver("plans", [plan(on(3, 1), 1), plan(on(3, 10), 2)])
    world.deliver("payments", [payment(n, on(3, 1) + n * DAY, 1 + n % 2) for n in range(10)])
    return world


def accepted_at(work: Context, store: OnlineStore, now: Any, **options: Any) -> Materialized:
    ingest_all(work, now)
    return materialize(work, accept_all(work, now), store, through=now, now=now, **options)


def counts(store: OnlineStore, world: World, entity: int, at: Any) -> list[Any]:
    found = read(store, world.use_case, entity, at)[1]
    return [found[name] for name in COUNTS]


def test_daily_views_are_as_of_the_last_midnight_that_is_complete(
    stream: World, store: OnlineStore
) -> None:
    with stream.open() as work:
        done = accepted_at(work, store, utc(on(3, 12, 7)))
        assert done.feature_time == utc(on(3, 10))  # plans are known up to then, strictly before
        assert done.entities == 2
        assert read(store, stream.use_case, 1, NOW)[1]["tier"] == "basic"
        assert read(store, stream.use_case, 2, NOW)[1]["tier"] is None


def test_events_are_added_once(stream: World, store: OnlineStore) -> None:
    with stream.open() as work:
        first = accepted_at(work, store, utc(on(3, 12)), chunk_rows=3)
        assert first.events == 10
        assert accepted_at(work, store, utc(on(3, 12))).events == 0
        stream.deliver("payments", [payment(20, on(3, 11))])
        assert accepted_at(work, store, utc(on(3, 12))).events == 1
    assert counts(store, stream, 1, utc(on(3, 11, 0)) + HOUR / 2) == [1, 5, "shop"]


def test_half_filled_stream_is_not_read(
    stream: World, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlops_pipeline.lifecycle.features.online.materialize.EVENT_SLICE_ROWS", 4)
    with stream.open() as work:
        with pytest.raises(OnlineFullError):
            accepted_at(work, CountingStore(store, fails_after=2), utc(on(3, 12)))  # type: ignore[arg-type]
        with pytest.raises(OnlineDefinitionError, match="no complete features"):
            read(store, stream.use_case, 1)
        assert accepted_at(work, store, utc(on(3, 12))).events == 2
    assert counts(store, stream, 1, utc(on(3, 10)))[1] == 5


def test_pushed_events_count_at_once_and_again_change_nothing(
    stream: World, store: OnlineStore
) -> None:
    now = utc(on(3, 12))
    rows = [payment(20, on(3, 11, 23)), payment(21, on(3, 11, 23), kind="web")]
    with stream.open() as work:
        accepted_at(work, store, utc(on(3, 11)))
        case = stream.use_case
        assert push_events(case, store, "payments", rows, now=now) == Pushed(2, 2, 0)
        assert push_events(case, store, "payments", rows[::-1], now=now) == Pushed(2, 0, 0)
        before = counts(store, stream, 1, now)
        stream.deliver("payments", rows)
        accepted_at(work, store, now)
    assert before == counts(store, stream, 1, now) == [2, 6, "web"]


def test_pushed_events_that_break_a_rule_are_refused(
    use_case: str, tmp_path: Path, store: OnlineStore
) -> None:
    rules = [{"rule": "range", "column": "amount", "max": 10}]
    world, now = World(streaming(use_case, rules=rules), tmp_path), utc(on(3, 3))
    world.deliver("plans", [plan(on(3, 1))])
    world.deliver("payments", [payment(1, on(3, 1)), payment(2, on(3, 1), amount=11.0)])
    rows = [
        payment(3, on(3, 2), amount=11.0),
        payment(4, on(3, 2), amount=float("nan")),
        payment(5, on(3, 3, 1)),  # of the future
        payment(7, on(3, 1), customer=None),  # nobody's, and as old as what is accepted
        payment(6, on(3, 2)),
    ]
    with world.open() as work:
        assert accepted_at(work, store, now).events == 1
    assert push_events(world.use_case, store, "payments", rows, now=now) == Pushed(5, 1, 4)
    assert counts(store, world, 1, now)[1] == 2


def test_released_rows_become_events(stream: World, store: OnlineStore) -> None:
    stream.deliver("payments", [payment(30, on(3, 13))])  # of the future, today
    with stream.open() as work:
        assert accepted_at(work, store, utc(on(3, 12))).events == 10
        assert accepted_at(work, store, utc(on(3, 14))).events == 1
    assert counts(store, stream, 1, utc(on(3, 13, 1)))[1:] == [4, "shop"]


def test_late_payment_counts_from_its_ingestion(stream: World, store: OnlineStore) -> None:
    now, ingested = utc(on(3, 12)), utc(on(3, 12, 3))
    late = [payment(40, on(3, 8, 1))]
    with stream.open() as work:
        accepted_at(work, store, utc(on(3, 11)))
        before = counts(store, stream, 1, ingested + timedelta(seconds=1))[1]
        pushed = push_events(stream.use_case, store, "payments", late, now=now)
        assert pushed == Pushed(1, 0, 0, late=1)
        assert counts(store, stream, 1, ingested + timedelta(seconds=1))[1] == before
        stream.deliver("payments", late)
        accepted_at(work, store, ingested)
    assert counts(store, stream, 1, ingested)[1] == before
    assert counts(store, stream, 1, ingested + timedelta(seconds=1))[1] == before + 1


def test_push_before_the_first_fill_is_an_error(stream: World, store: OnlineStore) -> None:
    with pytest.raises(OnlineDefinitionError):
        push_events(stream.use_case, store, "payments", [], now=NOW)


def test_use_case_that_stores_nothing_online_materializes_nothing(
    tmp_path: Path, store: OnlineStore
) -> None:
    columns = {"asked": {"of": "amount", "precision": 2}}
    views = {"request": {"source": "visits", "request_time": True, "columns": columns}}
    case = shop(grid={"every": "event"}, views=views)
    world = World(case, tmp_path)
    world.deliver("visits", [visit(on(1, 5))])
    with world.open() as work:
        ingest_all(work)
        done = materialize(work, accept_all(work), store, through=NOW, now=NOW)
    assert done == Materialized(rows=0, feature_time=None, table="", is_new=False)
