"""A feature table built delivery by delivery equals one built at once from the same raw table."""

import random
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.core.data.periods import Period
from mlops_pipeline.core.features.frames import EVENT_ROW, RowGuarantees, feature_frame
from mlops_pipeline.lifecycle.context import Context, Snapshot
from mlops_pipeline.lifecycle.features import offline
from mlops_pipeline.lifecycle.features.offline import (
    build_features,
    definitions_hash,
    features_uri,
    finished_periods,
    use_case_periods,
)
from mlops_pipeline.lifecycle.ingest.accepted import register_accepted
from mlops_pipeline_tests.worlds import (
    DAY,
    HOUR,
    PLANS,
    VISITS,
    Row,
    World,
    accept_all,
    advance,
    ingest_all,
    on,
    plan,
    shop,
    stored_rows,
    utc,
    visit,
)

HISTORY: dict[str, Any] = {
    "visits_30": {"aggregate": "count", "window_days": 30, "dtype": "int64"},
    "spent": {"aggregate": "sum", "of": "amount", "precision": 2},
    "mean_spent": {"aggregate": "mean", "of": "amount", "precision": 6},
    "std_spent": {"aggregate": "std", "of": "amount", "precision": 6},
    "last_kind": {"aggregate": "last", "of": "kind", "dtype": "string"},
    "last_amount_30": {"aggregate": "last", "of": "amount", "window_days": 30},
    "days_since_last": {"aggregate": "days_since_last"},
}
VIEWS: dict[str, Any] = {
    "history": {"source": "visits", "columns": HISTORY},
    "plan": {
        "source": "plans",
        "columns": {"tier": {"aggregate": "last", "of": "tier", "dtype": "string"}},
    },
}
SOURCES = {"visits": VISITS, "plans": PLANS}
MONTHS = [on(month) for month in (2, 3, 4, 5)]


def case_of(every: str) -> UseCase:
    grid = {"every": every, "start": "2025-01-27" if every == "week" else "2025-02-01"}
    if every == "event":
        grid = {"every": "event", "period": "month"}
    return shop(
        grid=grid,
        sources=SOURCES,
        views=VIEWS,
        population={"source": "visits", "active_within_days": 80},
        protected={"region": {"source": "plans", "of": "region"}},
    )


def history(seed: int) -> dict[str, list[tuple[datetime, Row]]]:
    """(When it is delivered, row) of each source: late rows, duplicates, revisions, early rows."""
    dice = random.Random(seed)
    visits, plans = [], []
    for _ in range(120):
        at = on(1) + dice.randrange(120 * 24) * HOUR
        late = dice.choice([0, 0, 0, 1, 20, 45]) * DAY
        known = at + dice.choice([0, 0, 5]) * DAY
        row = visit(
            at,
            dice.randrange(6),
            known=known,
            amount=dice.choice([None, dice.randrange(100_000) / 1000]),
            kind=dice.choice(["shop", "web"]),
        )
        visits += [(known + late, row)] * dice.choice([1, 1, 1, 2])
    for customer in range(6):
        for _ in range(dice.randrange(1, 4)):
            known = on(1) + dice.randrange(110 * 24) * HOUR
            late = dice.choice([0, 0, 30]) * DAY
            tier = dice.choice(["basic", "plus", "gold"])
            plans.append((known + late, plan(known, customer, tier=tier)))
    plans.append((on(1), plan(on(1), 0)))
    visits.append((on(1), visit(on(1), 0)))
    return {"visits": visits, "plans": plans}


def deliver_until(world: World, rows: dict[str, list[tuple[datetime, Row]]], now: datetime) -> None:
    """Replace the files by everything that has been delivered by now."""
    for source, given in rows.items():
        if world.deliveries.get(source):
            world.withdraw(source)
        world.deliver(source, [row for moment, row in given if moment < now])


def live_through(world: World, seed: int) -> None:
    """Every month: what was delivered meanwhile is ingested, and the month is built."""
    rows = history(seed)
    for month in MONTHS:
        deliver_until(world, rows, month)
        with world.open() as work:
            advance(work, utc(month))


def feature_rows(work: Context) -> list[Row]:
    key = "event_row" if work.use_case.grid.every == "event" else "customer"
    return stored_rows(work, features_uri(work), f"as_of, {key}")


def rebuilt(work: Context) -> tuple[str, list[Row]]:
    """The feature table made anew at the last month, from the present raw tables."""
    accepted = accept_all(work, utc(MONTHS[-1]))
    shutil.rmtree(features_uri(work))
    built = build_features(work, Snapshot(utc(MONTHS[-1]), accepted))
    return built.content_hash, feature_rows(work)


@pytest.mark.parametrize("every", ["month", "week", "event"])
@pytest.mark.parametrize("seed", [1, 2])
def test_features_built_month_by_month_equal_a_rebuild(
    tmp_path: Path, every: str, seed: int
) -> None:
    world = World(case_of(every), tmp_path)
    live_through(world, seed)
    with world.open() as work:
        lived = advance(work, utc(MONTHS[-1]))
        rows = feature_rows(work)
        assert rebuilt(work) == (lived.content_hash, rows)
        assert not lived.built
    assert len(rows) > 20


@pytest.mark.parametrize("every", ["month", "event"])
def test_features_on_three_threads_have_the_same_bits(tmp_path: Path, every: str) -> None:
    world = World(case_of(every), tmp_path)
    dice = random.Random(3)
    rows = [
        visit(on(1) + number % 2000 * HOUR, number % 40, amount=dice.random() * 1000)
        for number in range(30_000 if every == "month" else 2_000)
    ]
    world.deliver("visits", rows)
    world.deliver("plans", [plan(on(1), customer) for customer in range(40)])
    found = []
    for threads in (1, 3, 3):
        world.threads = threads
        with world.open() as work:
            ingest_all(work)
            accepted = accept_all(work)
            shutil.rmtree(features_uri(work), ignore_errors=True)
            built = build_features(work, Snapshot(utc(MONTHS[-1]), accepted))
            found.append((built.content_hash, feature_rows(work)))
    assert found[0] == found[1] == found[2]


def test_features_of_a_build_killed_between_periods_are_the_same_when_it_runs_again(
    tmp_path: Path,
) -> None:
    world = World(case_of("month"), tmp_path)
    deliver_until(world, history(4), on(6))

    def killed(period: str, rows: int) -> None:
        if period == "2025-03-01":
            raise KeyboardInterrupt

    with world.open() as work:
        ingest_all(work)
        accepted = accept_all(work)
        with pytest.raises(KeyboardInterrupt):
            build_features(work, Snapshot(utc(MONTHS[-1]), accepted), progress=killed)
        assert {row["as_of"] for row in feature_rows(work)} == {on(2), on(3)}
    with world.open() as work:
        again = build_features(work, Snapshot(utc(MONTHS[-1]), accepted))
        assert [item.period for item in again.built] == ["2025-04-01", "2025-05-01"]
        rows = feature_rows(work)
        assert rebuilt(work) == (again.content_hash, rows)


@pytest.mark.parametrize("part", ["_compute", "_write"])
def test_period_that_fails_leaves_those_before_it_and_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    world = World(case_of("month"), tmp_path)
    deliver_until(world, history(6), on(6))
    original = getattr(offline, part)

    def failing(work: Context, *given: Any) -> Any:
        if any(isinstance(item, Period) and item.name == "2025-04-01" for item in given):
            raise OSError("the disk is full")
        return original(work, *given)

    with world.open() as work:
        ingest_all(work)
        accepted = accept_all(work)
        with monkeypatch.context() as broken:
            broken.setattr(offline, part, failing)
            with pytest.raises(OSError, match="the disk is full"):
                build_features(work, Snapshot(utc(MONTHS[-1]), accepted))
        assert list(finished_periods(work)) == ["2025-02-01", "2025-03-01"]
        again = build_features(work, Snapshot(utc(MONTHS[-1]), accepted))
        rows = feature_rows(work)
        assert rebuilt(work) == (again.content_hash, rows)


@pytest.mark.parametrize("every", ["month", "day", "event"])
def test_built_periods_equal_the_frames_of_their_definition(tmp_path: Path, every: str) -> None:
    world = World(case_of(every), tmp_path)
    deliver_until(world, history(5), on(6))
    with world.open() as work:
        ingest_all(work)
        accepted = accept_all(work)
        as_of = utc(on(2, 3) if every == "day" else on(3))
        build_features(work, Snapshot(as_of, accepted))
        tables = register_accepted(work, accepted)
        revised = frozenset({"plans"})
        expected: list[Row] = []
        for period in use_case_periods(work, as_of):
            frame = feature_frame(work.use_case, tables, period, RowGuarantees(revised=revised))
            row_key = EVENT_ROW if every == "event" else "customer"
            query = work.engine.ibis.compile(frame.order_by(["as_of", row_key]))
            expected += work.engine.sql.sql(query).to_arrow_table().to_pylist()
        assert expected
        assert feature_rows(work) == expected


def test_population_empty_at_the_first_periods_builds_empty_periods(tmp_path: Path) -> None:
    world = World(shop(), tmp_path)
    world.deliver("visits", [visit(on(3, 5))])
    with world.open() as work:
        built = advance(work, utc(on(4)))
        assert [(item.period, item.rows) for item in built.periods] == [
            ("2025-02-01", 0),
            ("2025-03-01", 0),
            ("2025-04-01", 1),
        ]
        assert [row["visits"] for row in feature_rows(work)] == [1]


def test_finished_periods_of_many_commits_are_all_remembered(tmp_path: Path) -> None:
    world = World(shop(grid={"every": "day", "start": "2025-01-02"}), tmp_path)
    world.deliver("visits", [visit(on(1))])
    with world.open() as work:
        built = advance(work, utc(on(4, 14)))
        assert len(built.built) == 103  # more than one checkpoint of Delta's log
        from deltalake import DeltaTable

        configured = DeltaTable(built.uri).metadata().configuration
        assert configured["delta.enableExpiredLogCleanup"] == "false"
        assert not build_features(work, Snapshot(utc(on(4, 14)), accept_all(work))).built


def test_definitions_hash_changes_with_meaning_and_not_with_words() -> None:
    base = definitions_hash(shop())
    history_view = {"source": "visits", "columns": {"visits": {"aggregate": "count"}}}
    words = {**shop().views["history"].model_dump(), "description": "other", "owner": "else"}
    assert definitions_hash(shop(views={"history": words})) == base
    assert definitions_hash(shop(views={"history": history_view})) != base
    by_event_time = {**VISITS, "available_at": None}
    assert definitions_hash(shop(sources={"visits": by_event_time})) != base
