from datetime import datetime
from pathlib import Path

import pytest

from mlops_pipeline.core.data.periods import Period
from mlops_pipeline.core.features.frames import RowGuarantees, feature_frame
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.ingest.accepted import register_accepted
from mlops_pipeline.lifecycle.ingest.ingestion import Ingested, ingest
from mlops_pipeline_tests.worlds import (
    PLANS,
    Row,
    World,
    accept_all,
    on,
    plan,
    shop,
    stored_rows,
    utc,
)

PLAN_VIEW = {
    "plan": {
        "source": "plans",
        "columns": {"tier": {"aggregate": "last", "of": "tier", "dtype": "string"}},
    }
}


@pytest.fixture
def plans(tmp_path: Path) -> World:
    case = shop(
        sources={"plans": PLANS},
        population={"source": "plans"},
        label={"kind": "event_present", "source": "plans", "horizon_days": 30},
        views=PLAN_VIEW,
    )
    return World(case, tmp_path)


def take(work: Context, now: datetime) -> Ingested:
    return ingest(work, "plans", now=utc(now), finished_through=None)


def raw(work: Context) -> list[Row]:
    return stored_rows(work, work.lake.table_uri(work.use_case.name, "raw", "plans"))


def tier_at(work: Context, as_of: datetime, now: datetime) -> dict[int, str | None]:
    """The plan of each customer as a feature frame sees it at as_of."""
    tables = register_accepted(work, accept_all(work, utc(now)))
    period = Period(utc(as_of), utc(as_of))
    frame = feature_frame(
        work.use_case, tables, period, RowGuarantees(revised=frozenset({"plans"}))
    )
    rows = work.engine.sql.sql(work.engine.ibis.compile(frame)).to_arrow_table().to_pylist()
    return {row["customer"]: row["tier"] for row in rows}


def test_revision_closes_the_earlier_row_when_it_was_known(plans: World) -> None:
    plans.deliver("plans", [plan(on(1)), plan(on(1), 2)])
    with plans.open() as work:
        take(work, on(1, 2))
        plans.deliver("plans", [plan(on(2, 10), tier="plus")])
        found = take(work, on(2, 11))
        first, other, second = raw(work)
        assert first["_superseded_at"] == second["_available_at"] == on(2, 10)
        assert other["_superseded_at"] is second["_superseded_at"] is None
        assert tier_at(work, on(2, 10), on(3)) == {1: "basic", 2: "basic"}
        assert tier_at(work, on(3), on(3)) == {1: "plus", 2: "basic"}
        assert accept_all(work)["plans"].has_revisions
        assert take(work, on(2, 12)).rows_added == 0
    assert (found.rows_added, found.rows_revised) == (1, 1)


def test_revisions_within_the_first_delivery_are_chained(plans: World) -> None:
    tiers = ["basic", "plus", "gold"]
    rows = [plan(on(month), tier=tier) for month, tier in enumerate(tiers, 1)]
    plans.deliver("plans", rows)
    with plans.open() as work:
        assert take(work, on(4)).rows_revised == 2
        assert [row["_superseded_at"] for row in raw(work)] == [on(2), on(3), None]
        seen = [tier_at(work, on(month), on(4))[1] for month in (2, 3, 4)]
    assert seen == tiers


def test_late_revision_is_seen_from_its_ingestion_on(plans: World) -> None:
    plans.deliver("plans", [plan(on(1)), plan(on(3), 2)])
    with plans.open() as work:
        take(work, on(3, 2))
        plans.deliver("plans", [plan(on(2), tier="plus")])
        assert take(work, on(4, 10)).rows_late == 1
        assert tier_at(work, on(4, 10), on(5))[1] == "basic"
        assert tier_at(work, on(5), on(5))[1] == "plus"


def test_late_row_older_than_the_current_version_does_not_replace_it(plans: World) -> None:
    plans.deliver("plans", [plan(on(2), tier="plus"), plan(on(3), 2)])
    with plans.open() as work:
        take(work, on(3, 2))
        plans.deliver("plans", [plan(on(1, 20), tier="basic")])
        take(work, on(3, 10))
        assert tier_at(work, on(4), on(5))[1] == "plus"


def test_two_late_revisions_of_one_key_leave_the_newer_one(plans: World) -> None:
    plans.deliver("plans", [plan(on(1)), plan(on(3), 2)])
    with plans.open() as work:
        take(work, on(3, 2))
        plans.deliver("plans", [plan(on(2), tier="plus"), plan(on(2, 5), tier="gold")])
        take(work, on(3, 10))
        assert accept_all(work)["plans"].quarantined == 0
        assert tier_at(work, on(4), on(5))[1] == "gold"


def test_revision_dated_in_the_future_does_not_stop_later_ones(plans: World) -> None:
    plans.deliver("plans", [plan(on(1)), plan(on(1, year=2099), tier="wrong")])
    with plans.open() as work:
        take(work, on(2))
        plans.deliver("plans", [plan(on(2, 5), tier="plus")])
        take(work, on(2, 6))
        accepted = accept_all(work, utc(on(3)))["plans"]
        assert (accepted.rows, accepted.quarantined) == (2, 0)
        assert tier_at(work, on(2, 5), on(3))[1] == "basic"
        assert tier_at(work, on(3), on(3))[1] == "plus"


def test_quarantined_revision_leaves_the_earlier_version_open(tmp_path: Path) -> None:
    rule = {"rule": "in_set", "column": "tier", "values": ["basic", "plus"]}
    case = shop(
        sources={"plans": {**PLANS, "rules": [rule]}},
        population={"source": "plans"},
        label={"kind": "event_present", "source": "plans", "horizon_days": 30},
        views=PLAN_VIEW,
    )
    world = World(case, tmp_path)
    rows = [plan(on(1)), plan(on(2), tier="broken"), plan(on(3), tier="plus"), plan(on(1), 2)]
    world.deliver("plans", rows)
    with world.open() as work:
        take(work, on(4))
        seen = [tier_at(work, on(month), on(5)) for month in (2, 3, 4)]
    assert seen == [{1: "basic", 2: "basic"}, {1: "basic", 2: "basic"}, {1: "plus", 2: "basic"}]
