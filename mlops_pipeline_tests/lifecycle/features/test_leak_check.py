"""Noise for a future changes nothing that is right, and names what looks ahead."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import ibis
import pytest

from mlops_pipeline.config import UseCase, checks
from mlops_pipeline.core.features import frames
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.features import offline
from mlops_pipeline.lifecycle.features.leak_check import ROWS, LeakCheck, leak_check, noisy_tables
from mlops_pipeline_tests.worlds import (
    DAY,
    HOUR,
    PLANS,
    VISITS,
    Row,
    World,
    accept_all,
    advance,
    on,
    plan,
    shop,
    stored_rows,
    utc,
    visit,
)

HISTORY: dict[str, Any] = {
    "visits_30": {"aggregate": "count", "window_days": 30, "dtype": "int64"},
    "web_visits": {"aggregate": "count", "where": "kind = 'web'", "dtype": "int64"},
    "spent": {"aggregate": "sum", "of": "amount", "precision": 2},
    "days_since_last": {"aggregate": "days_since_last"},
}
TIER = {"tier": {"aggregate": "last", "of": "tier", "dtype": "string"}}
VIEWS: dict[str, Any] = {
    "history": {"source": "visits", "columns": HISTORY},
    "plan": {"source": "plans", "columns": TIER},
}
DERIVED = {"spent_per_visit": {"expression": "spent / nullif(visits_30, 0)"}}
NEWEST = on(5)
Known = Callable[..., Any]


def case_of(every: str, **sections: Any) -> UseCase:
    grid = {"every": every, "start": "2025-04-14" if every == "week" else "2025-04-01"}
    if every == "event":
        grid = {**grid, "period": "month"}
    given: dict[str, Any] = {"views": VIEWS, "sources": {"visits": VISITS, "plans": PLANS}}
    return shop(
        grid=grid,
        derived=DERIVED,
        protected={"region": {"source": "plans", "of": "region"}},
        **{**given, **sections},
    )


def visits_until(end: datetime, customers: int = 30) -> list[Row]:
    """A visit every hour or so, some known late; each customer comes again and again."""
    dice = random.Random(7)
    rows, at = [], on(1)
    while at < end:
        late = dice.choice([0, 0, 0, 1, 9]) * DAY
        kind, amount = dice.choice(["shop", "web"]), dice.randrange(10_000) / 100
        rows.append(visit(at, dice.randrange(customers), known=at + late, kind=kind, amount=amount))
        at += dice.randrange(1, 6) * HOUR
    return rows


def plans_until(end: datetime, customers: int = 30) -> list[Row]:
    """A plan of each customer, and a revision of it in most months."""
    dice = random.Random(8)
    months = [month for month in range(1, 6) if on(month) < end]
    return [
        plan(on(month, dice.randrange(1, 28)), customer, tier=dice.choice(["basic", "plus"]))
        for month in months
        for customer in range(customers)
        if month == 1 or dice.random() < 0.7
    ]


def built_world(folder: Path, case: UseCase, end: datetime | None = None) -> World:
    """Deliver rows until the end of the data, and build the features up to the first of May."""
    world = World(case, folder)
    world.deliver("visits", visits_until(end or on(6)))
    if "plans" in case.sources:
        world.deliver("plans", plans_until(end or on(6)))
    with world.open() as work:
        advance(work, utc(on(6)), utc(NEWEST))
    return world


def checked(work: Context, **options: Any) -> LeakCheck:
    return leak_check(work, accept_all(work), **options)


def leaking(source: str, known: Known | None = None) -> Known:
    """Return a `_known` that leaks for one source: every row, or what `known` keeps."""
    original = frames._Frame._known

    def leak(self: Any, name: str, *given: Any, **options: Any) -> Any:
        if name != source:
            return original(self, name, *given, **options)
        return known(self, name) if known else self.tables[name]

    return leak


# nothing leaks


@pytest.mark.parametrize(
    ("every", "end"), [("month", NEWEST), ("month", on(6)), ("week", on(6)), ("event", NEWEST)]
)
def test_features_that_look_back_pass(tmp_path: Path, every: str, end: datetime) -> None:
    with built_world(tmp_path, case_of(every), end).open() as work:
        found = checked(work)
        newest = max(offline.finished_periods(work))
    assert (found.leaking, found.outdated, found.passed) == ((), (), True)
    assert found.period == newest
    assert found.rows_compared >= 20


def test_population_of_active_customers_passes(tmp_path: Path) -> None:
    rule = {"source": "visits", "where": "kind = 'web'", "active_within_days": 3}
    world = built_world(tmp_path, case_of("month", population=rule))
    with world.open() as work:
        found = checked(work)
    assert found.passed
    assert 0 < found.rows_compared < 30


def test_daily_and_request_time_views_of_an_event_grid_pass(tmp_path: Path) -> None:
    request = {"asked": {"of": "amount", "precision": 2}}
    views = {
        **VIEWS,
        "daily": {
            "source": "visits",
            "refresh": "daily",
            "columns": {"visits_7": {"aggregate": "count", "window_days": 7}},
        },
        "request": {"source": "visits", "request_time": True, "columns": request},
    }
    with built_world(tmp_path, case_of("event", views=views)).open() as work:
        found = checked(work)
        stored = stored_rows(work, offline.features_uri(work), "event_row")
    assert found.passed
    before = [row for row in stored if on(4) <= row["as_of"] < found.cut.replace(tzinfo=None)]
    assert len(before) / 2 < found.rows_compared < len(before)  # known late: not compared


def test_events_that_all_happen_at_one_moment_are_compared(tmp_path: Path) -> None:
    world = World(case_of("event"), tmp_path)
    rows = [visit(on(month), customer) for month in (1, 2, 3, 4) for customer in range(5)]
    world.deliver("visits", rows)
    world.deliver("plans", plans_until(NEWEST, 5))
    with world.open() as work:
        advance(work, utc(on(6)), utc(NEWEST))
        found = checked(work)
    assert (found.passed, found.rows_compared) == (True, 5)


# something leaks


@pytest.mark.parametrize("end", [NEWEST, on(6)], ids=["data_end_at_as_of", "data_go_on"])
def test_view_that_reads_every_row_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: datetime
) -> None:
    monkeypatch.setattr(frames._Frame, "_known", leaking("plans"))
    with built_world(tmp_path, case_of("month"), end).open() as work:
        found = checked(work)
    assert found.leaking == ("tier", "region")
    assert not found.passed


@pytest.mark.parametrize("end", [NEWEST, on(6)], ids=["data_end_at_as_of", "data_go_on"])
def test_view_of_an_event_grid_that_looks_ten_days_ahead_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: datetime
) -> None:
    original = frames._Frame._known

    def ahead(self: Any, name: str, *given: Any, events: Any = None, **options: Any) -> Any:
        if name != "plans":
            return original(self, name, *given, events=events, **options)
        spine = self.spine()
        later = spine.mutate(as_of=spine.as_of + ibis.interval(days=10))
        return original(self, name, *given, events=later, **options)

    monkeypatch.setattr(frames._Frame, "_known", ahead)
    with built_world(tmp_path, case_of("event"), end).open() as work:
        assert checked(work).leaking == ("tier", "region")


def test_every_aggregate_that_reads_every_row_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames._Frame, "_known", leaking("visits"))
    with built_world(tmp_path, case_of("month")).open() as work:
        found = checked(work)
    assert set(found.leaking) >= {*HISTORY, "spent_per_visit"}
    assert found.outdated == ()


def test_late_row_that_counts_before_it_was_known_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def happened_before(self: Any, name: str) -> Any:
        rows = self.tables[name]
        return rows.filter(rows["at"] < self.as_of)

    monkeypatch.setattr(frames._Frame, "_known", leaking("visits", happened_before))
    with built_world(tmp_path, case_of("month"), NEWEST).open() as work:
        assert {"visits_30", "spent"} <= set(checked(work).leaking)


def test_row_at_as_of_itself_that_counts_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def until_as_of(self: Any, name: str) -> Any:
        rows = self.tables[name]
        return rows.filter((rows["at"] <= self.as_of) & (rows._available_at <= self.as_of))

    monkeypatch.setattr(frames._Frame, "_known", leaking("visits", until_as_of))
    with built_world(tmp_path, case_of("month"), NEWEST).open() as work:
        assert {"visits_30", "spent", "days_since_last"} <= set(checked(work).leaking)


def test_present_version_instead_of_the_one_known_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def present(self: Any, name: str) -> Any:
        rows = self.tables[name]
        known = (rows["at"] < self.as_of) & (rows._available_at < self.as_of)
        return rows.filter(known & rows._superseded_at.isnull())

    monkeypatch.setattr(frames._Frame, "_known", leaking("plans", present))
    with built_world(tmp_path, case_of("month")).open() as work:
        assert "tier" in checked(work).leaking


def test_population_that_knows_who_will_come_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = frames._Frame._known

    def with_later(self: Any, name: str, window: timedelta | None = None, **options: Any) -> Any:
        return original(self, name, window, **options) if options else self.tables[name]

    day = {name: {**column, "window_days": 1} for name, column in HISTORY.items()}
    views = {**VIEWS, "history": {"source": "visits", "columns": day}}  # no scan for both
    population = {"source": "visits", "active_within_days": 2}
    case = case_of("month", views=views, population=population)
    monkeypatch.setattr(frames._Frame, "_known", with_later)
    with built_world(tmp_path, case).open() as work:
        assert ROWS in checked(work).leaking


def test_label_column_read_by_a_feature_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_leaks", lambda _: iter(()))
    label = {"kind": "column", "source": "visits", "column": "units"}
    columns = {**HISTORY, "units_paid": {"aggregate": "sum", "of": "units"}}
    views = {"history": {"source": "visits", "columns": columns}}
    case = case_of("event", views=views, label=label)
    with built_world(tmp_path, case).open() as work:
        assert checked(work).leaking == ("units_paid",)


def test_stored_value_that_the_rows_do_not_give_is_outdated_and_no_leak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_code(*given: Any, **options: Any) -> Any:
        frame = frames.feature_frame(*given, **options)
        return frame.mutate(spent=frame.spent + 1)

    with monkeypatch.context() as other:
        other.setattr(offline, "feature_frame", other_code)
        world = built_world(tmp_path, case_of("month"))
    with world.open() as work:
        found = checked(work)
    assert (found.leaking, found.outdated, found.passed) == ((), ("spent",), False)


def test_latest_value_by_a_join_on_time_that_looks_ahead_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = frames.with_latest

    def ahead(*given: Any, as_of: Any, **options: Any) -> Any:
        return original(*given, as_of=as_of + ibis.interval(days=10), **options)

    kind = {"aggregate": "last", "of": "kind", "dtype": "string"}
    views = {"history": {"source": "visits", "columns": {**HISTORY, "last_kind": kind}}}
    case = case_of("event", views=views)
    with built_world(tmp_path / "right", case).open() as work:
        assert checked(work).passed
    monkeypatch.setattr(frames, "with_latest", ahead)
    with built_world(tmp_path / "wrong", case).open() as work:
        assert checked(work).leaking == ("last_kind",)


def test_noise_for_sources_in_order_keeps_to_the_order(tmp_path: Path) -> None:
    with built_world(tmp_path, case_of("event")).open() as work:
        checked(work)
        cut = utc(on(4, 16))
        visits = noisy_tables(work, ["visits"], cut, ordered=frozenset({"visits"}))["visits"]
        added = visits.filter(visits._row_no < 0).select("at", "_available_at")
        rows = work.engine.query(work.engine.ibis.compile(added))
    assert rows
    assert all(at == known >= cut.replace(tzinfo=None) for at, known in rows)


# how much is compared


def test_large_period_is_drawn_and_the_leak_still_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames._Frame, "_known", leaking("plans"))
    with built_world(tmp_path, case_of("month")).open() as work:
        found = checked(work, max_rows=5)
        again = checked(work, max_rows=5)
    assert 1 <= found.rows_compared <= 15
    assert "tier" in found.leaking
    assert found == again


def test_period_can_be_named(tmp_path: Path) -> None:
    with built_world(tmp_path, case_of("month")).open() as work:
        found = checked(work, period="2025-04-01")
    assert (found.period, found.cut, found.passed) == ("2025-04-01", utc(on(4)), True)


def test_period_that_was_never_built_is_an_error(tmp_path: Path) -> None:
    with (
        built_world(tmp_path, case_of("month")).open() as work,
        pytest.raises(NotFoundError) as caught,
    ):
        checked(work, period="2025-06-01")
    assert caught.value.expected == "one of 2025-04-01, 2025-05-01"
