from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_pipeline.config.tables import Grid
from mlops_pipeline.core.data.periods import (
    Period,
    Step,
    default_as_of,
    floor_to,
    following,
    periods,
    step_of,
)
from mlops_pipeline.errors import DataError


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def grid(every: str, start: str | None = None, period: str = "month") -> Grid:
    return Grid.model_validate({"every": every, "start": start, "period": period})


def names(found: list[Period]) -> list[str]:
    return [period.name for period in found]


@pytest.mark.parametrize(
    ("step", "expected"), [("month", "2024-02-01"), ("week", "2024-02-26"), ("day", "2024-02-29")]
)
def test_floor_to_a_step_is_its_start(step: Step, expected: str) -> None:
    assert floor_to(at("2024-02-29T23:59:59"), step) == at(expected)


def test_floor_to_of_another_zone_is_taken_in_utc() -> None:
    moment = datetime(2024, 3, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert floor_to(moment, "month") == at("2024-02-01")


@pytest.mark.parametrize(
    ("point", "step", "expected"),
    [
        ("2024-01-01", "month", "2024-02-01"),
        ("2024-12-01", "month", "2025-01-01"),
        ("2024-01-31", "month", "2024-02-01"),
        ("2024-02-26", "week", "2024-03-04"),
        ("2024-02-29", "day", "2024-03-01"),
    ],
)
def test_following_point_is_one_step_on(point: str, step: Step, expected: str) -> None:
    assert following(at(point), step) == at(expected)


@given(
    moment=st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 # the zone is given beside them
    step=st.sampled_from(["month", "week", "day"]),
)
def test_every_moment_lies_between_its_point_and_the_next(moment: datetime, step: Step) -> None:
    point = floor_to(moment, step)
    assert point <= moment < following(point, step)
    assert floor_to(point, step) == point


def test_periods_of_a_month_grid_include_as_of() -> None:
    found = periods(grid("month", "2024-11-01"), at("2025-01-01"))
    assert names(found) == ["2024-11-01", "2024-12-01", "2025-01-01"]
    assert all(period.start == period.end for period in found)


def test_periods_of_an_event_grid_end_by_as_of() -> None:
    found = periods(grid("event"), at("2025-01-15"), at("2024-11-07T12:00"))
    assert [(item.name, item.end) for item in found] == [
        ("2024-11-01", at("2024-12-01")),
        ("2024-12-01", at("2025-01-01")),
    ]


def test_periods_of_an_event_grid_without_events_are_none() -> None:
    assert periods(grid("event"), at("2025-01-15")) == []


def test_periods_of_a_start_between_points_begin_with_the_next_point() -> None:
    assert names(periods(grid("week", "2025-01-01"), at("2025-01-13"))) == [
        "2025-01-06",
        "2025-01-13",
    ]
    assert names(periods(grid("month", "2025-01-15"), at("2025-02-01"))) == ["2025-02-01"]


def test_periods_before_the_start_say_both_dates() -> None:
    with pytest.raises(DataError) as caught:
        periods(grid("month", "2025-03-01"), at("2025-02-01"))
    assert str(caught.value) == (
        "there is no period up to as_of\n"
        "  expected: an as_of from 2025-03-01 on: the grid's start 2025-03-01\n"
        "  found: 2025-02-01\n"
        "  what to do: give a later --as-of, or mend grid.start"
    )


def test_periods_before_the_first_event_ends_name_no_key_that_is_not_there() -> None:
    with pytest.raises(DataError) as caught:
        periods(grid("event"), at("2025-02-15"), at("2025-02-07"))
    assert caught.value.expected is not None
    assert "from 2025-03-01 on" in caught.value.expected
    assert caught.value.way_out == "give a later --as-of"


def test_periods_of_a_grid_once_are_one() -> None:
    assert names(periods(grid("once"), at("2025-02-15"))) == ["2025-02-15"]
    assert names(periods(grid("once", "2025-02-03"), at("2025-02-15"))) == ["2025-02-03"]
    with pytest.raises(DataError, match="no period"):
        periods(grid("once", "2025-02-16"), at("2025-02-15"))


@pytest.mark.parametrize(
    ("every", "period", "step"),
    [
        ("once", "month", "day"),
        ("month", "day", "month"),
        ("week", "day", "week"),
        ("event", "week", "week"),
    ],
)
def test_step_of_a_grid_is_its_own_or_its_period(every: str, period: str, step: str) -> None:
    assert step_of(grid(every, "2025-01-01", period)) == step


@pytest.mark.parametrize(
    ("now", "marks", "expected"),
    [
        ("2025-03-10", ["2025-03-09", "2025-02-27"], "2025-02-01"),  # the oldest newest row
        ("2025-03-10", ["2025-04-09"], "2025-03-01"),  # the Clock
        ("2025-03-10", ["2025-03-01"], "2025-03-01"),  # exactly complete
    ],
)
def test_default_as_of_is_the_last_point_that_every_source_reaches(
    now: str, marks: list[str], expected: str
) -> None:
    found = default_as_of(grid("month", "2024-01-01"), at(now), [at(mark) for mark in marks])
    assert found == at(expected)
