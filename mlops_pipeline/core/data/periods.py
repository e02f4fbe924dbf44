"""The as_of grid: its points and periods, the default as_of of a run; the labels of its periods.

Labels are Ibis expressions: what is true of each entity and as_of, and when it was known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal

from mlops_pipeline.config.tables import Grid
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.expressions.to_ibis import condition
from mlops_pipeline.errors import ConfigError, DataError

Step = Literal["month", "week", "day"]


@dataclass(frozen=True)
class Period:
    """One step of the grid: the single time `start` (== end), or the events in [start, end)."""

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
    if grid.every == "once":
        return "day"
    return grid.period if grid.every == "event" else grid.every


def default_as_of(grid: Grid, now: datetime, watermarks: list[datetime]) -> datetime:
    """Return the last complete grid point not after min(now, the oldest newest availability)."""
    return floor_to(min([now, *watermarks]), step_of(grid))


def periods(grid: Grid, as_of: datetime, first_event: datetime | None = None) -> list[Period]:
    """Return every period up to `as_of`, oldest first.

    Grid points up to and including as_of, from the first one that is not before grid.start; for an
    event grid, whole periods that end by as_of, from the period of `first_event` on. `once`: the
    start alone, or as_of where there is none.
    """
    step = step_of(grid)
    if grid.start is not None:
        start = floor_to(_midnight(grid.start), step)
        if start.date() < grid.start:
            start = following(start, step)
    elif grid.every == "once":
        start = as_of
    elif first_event is not None:
        start = floor_to(first_event, step)
    else:
        return []
    found, point, is_event = [], start, grid.every == "event"
    while (end := following(point, step) if is_event else point) <= as_of:
        found.append(Period(point, end))
        point = following(point, step)
    if not found:
        first = "the grid's start" if grid.start else "the first period of events, which starts"
        raise DataError(
            "there is no period up to as_of",
            expected=f"an as_of from {end.date()} on: {first} {start.date()}",
            found=str(as_of.date()),
            way_out="give a later --as-of" + (", or mend grid.start" if grid.start else ""),
        )
    return found[:1] if grid.every == "once" else found


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def known_at(use_case: UseCase, period: Period) -> datetime:
    """Return when the labels of a period are known (event labels; a column has its own time)."""
    return period.end + timedelta(days=use_case.label_horizon_days)


def no_label_yet(
    use_case: UseCase, first: Period, as_of: datetime, known: datetime | None = None
) -> DataError:
    """Return the error that no label is known at `as_of`, with the first as_of at which one is."""
    step = step_of(use_case.grid)
    known = known or known_at(use_case, first)
    point = floor_to(known, step)
    enough = point if point == known else following(point, step)
    return DataError(
        "no label is known yet",
        where=f"{use_case.name}: label",
        expected=f"an as_of from {enough.date()} on, when the first label is known",
        found=str(as_of.date()),
        way_out="give a later --as-of"
        + (", or an earlier grid.start" if use_case.grid.start else ""),
    )


def labelled_periods(use_case: UseCase, every: Sequence[Period], as_of: datetime) -> list[Period]:
    """Return the periods whose labels are known at `as_of`."""
    return [period for period in every if known_at(use_case, period) <= as_of]


def events_in_horizon(
    use_case: UseCase, tables: Mapping[str, Any], periods: Sequence[Period], as_of: datetime
) -> Any:
    """Return (entity key, as_of) of entities with a known event in [as_of, as_of + horizon)."""
    import ibis

    events = label_events(use_case, tables, as_of)
    starts = [period.start.replace(tzinfo=None) for period in periods]
    horizon = timedelta(days=use_case.label.horizon_days or 0)
    points = ibis.memtable(
        {"as_of": starts, "_until": [start + horizon for start in starts]},
        schema={"as_of": "timestamp(6)", "_until": "timestamp(6)"},
    )
    inside = [events._happened >= points.as_of, events._happened < points._until]
    joined = events.join(points, inside)
    return joined.select(use_case.entity.key, "as_of").distinct()


def is_current(rows: Any, until: Any) -> Any:
    """Return the test of rows that no revision had replaced before a time."""
    return rows._superseded_at.isnull() | (rows._superseded_at >= until)


def label_events(use_case: UseCase, tables: Mapping[str, Any], as_of: datetime) -> Any:
    """Return (entity key, _happened) of every label event known strictly before `as_of`."""
    label = use_case.label
    source = use_case.sources[label.source]
    rows = tables[label.source]
    happened = rows[source.happened]
    until = as_of.replace(tzinfo=None)
    visible = (rows._available_at < until) & rows[use_case.entity.key].notnull()
    visible &= is_current(rows, until)
    if label.where:
        visible &= condition(label.where, rows)
    return rows.filter(visible).select(use_case.entity.key, _happened=happened)


def column_labels(
    use_case: UseCase,
    tables: Mapping[str, Any],
    as_of: datetime,
    *,
    revised: frozenset[str] = frozenset(),
) -> Any:
    """Return (event_row, label 0/1, known_at) of every row of the label's source.

    On a grid `once` a row is found by the entity's key, in place of event_row.

    The label of a revised row is that of its version at `as_of`. A row that arrived late was not
    known before it arrived, whatever its declared time says.
    """
    import ibis

    label = use_case.label
    if label.source != use_case.population.source:
        raise ConfigError(
            "a label column has to be in the population's source",
            where=f"{use_case.name}: label.source",
            expected=use_case.population.source,
            found=label.source,
            way_out="use `kind: event_present` for events of another source",
        )
    source = use_case.sources[label.source]
    until = as_of.replace(tzinfo=None)
    every = tables[label.source]
    is_newest = every._superseded_at.isnull() | (every._superseded_at > until)
    rows = every.filter((every._available_at <= until) & is_newest)
    value = rows[label.column]
    column = label.available_at or source.availability
    known = rows[column]
    if source.is_day(column):  # known at the end of its day
        known = known + ibis.interval(days=1) - ibis.interval(microseconds=1)
    if use_case.label_delay_days:
        known = known + ibis.interval(days=use_case.label_delay_days)
    known = ibis.greatest(known.cast("timestamp(6)"), rows._available_at)
    number = ibis.cases(
        (value == label.positive, ibis.literal(1, "int8")),
        (value == label.negative, ibis.literal(0, "int8")),
        else_=ibis.null("int8"),
    )
    keys = source.key if label.source in revised else ()
    if use_case.grid.every == "once":
        return rows.select(use_case.entity.key, label=number, known_at=known)
    labels = rows.select(*keys, event_row=rows._row_no, label=number, known_at=known)
    if not keys:
        return labels
    versions = every.select(*keys, event_row=every._row_no)
    return versions.join(labels.drop("event_row"), keys).select("event_row", "label", "known_at")
