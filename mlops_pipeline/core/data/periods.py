"""The as_of grid: its points, its periods, and the default as_of of a run. Pure date arithmetic."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

from mlops_pipeline.config.tables import Grid
from mlops_pipeline.errors import DataError

Step = Literal["month", "week", "day"]


@dataclass(frozen=True)
class Period:
    """One step of the grid.

    For a month, week or day grid it is the single time `start` (== as_of); for an event grid it
    holds the events in [start, end), known at `end`.
    """

    start: datetime
    end: datetime

    @property
    def name(self) -> str:
        """ISO date of the start."""
        return self.start.date().isoformat()


def floor_to(when: datetime, step: Step) -> datetime:
    """Return the last grid point that is not after `when` (weeks start on Monday, UTC)."""
    day = when.astimezone(UTC).date()
    if step == "month":
        day = day.replace(day=1)
    elif step == "week":
        day -= timedelta(days=day.weekday())
    return _midnight(day)


def following(point: datetime, step: Step) -> datetime:
    """Return the grid point after `point`."""
    if step == "month":
        return floor_to(point.replace(day=1) + timedelta(days=32), "month")
    return point + timedelta(days=7 if step == "week" else 1)


def step_of(grid: Grid) -> Step:
    """Return the step in which the grid's periods are counted."""
    return grid.period if grid.every == "event" else grid.every


def default_as_of(grid: Grid, now: datetime, watermarks: list[datetime]) -> datetime:
    """Return the last complete grid point not after min(now, the oldest newest availability)."""
    return floor_to(min([now, *watermarks]), step_of(grid))


def periods(grid: Grid, as_of: datetime, first_event: datetime | None = None) -> list[Period]:
    """Return every period up to `as_of`, oldest first.

    Grid points up to and including as_of, from the first one that is not before grid.start; for an
    event grid, whole periods that end by as_of, from the period of `first_event` on.
    """
    step = step_of(grid)
    if grid.start is not None:
        start = floor_to(_midnight(grid.start), step)
        if start.date() < grid.start:
            start = following(start, step)
    elif first_event is not None:
        start = floor_to(first_event, step)
    else:
        return []
    found = list(_walk(start, as_of, step, whole=grid.every == "event"))
    if not found:
        raise DataError(
            "there is no period up to as_of",
            expected=f"an as_of after the grid's start {start.date()}",
            found=str(as_of.date()),
            way_out="give a later --as-of, or mend grid.start",
        )
    return found


def _walk(start: datetime, as_of: datetime, step: Step, *, whole: bool) -> Iterator[Period]:
    point = start
    while True:
        end = following(point, step)
        if (end if whole else point) > as_of:
            return
        yield Period(point, end if whole else point)
        point = end


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
