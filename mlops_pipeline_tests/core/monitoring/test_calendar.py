"""When planned work is due: as cron says, on any clock."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dagster._vendored import croniter as vendored
from hypothesis import given
from hypothesis import strategies as st

from mlops_pipeline.core.monitoring.calendar import Plan

PLANS = [
    Plan("hourly", minute=30),
    Plan("monthly", hour=3, day=5),
    Plan("weekly", hour=6, weekday=1),
    Plan("sunday", hour=6, weekday=0),
    Plan("daily", hour=2, minute=10),
]
START = datetime(2020, 1, 1, tzinfo=UTC)
TIMES = st.integers(0, 3_650 * 86_400).map(lambda second: START + timedelta(seconds=second))


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
@given(time=TIMES)
def test_due_times_are_those_of_the_cron_line(plan: Plan, time: datetime) -> None:
    croniter: Any = vendored.__dict__["croniter"]
    assert plan.after(time) == croniter(plan.cron, time).get_next(datetime)
    before = croniter(plan.cron, time + timedelta(seconds=1)).get_prev(datetime)
    assert plan.last(time - timedelta(days=400), time) == before
    assert plan.last(before, time) is None
