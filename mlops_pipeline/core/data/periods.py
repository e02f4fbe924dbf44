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
    """Return (entity key, _happened) of every label event known strictly before `as_of`.

    Whichever sources of the label tell of it, it is one event.
    """
    import ibis

    label, key = use_case.label, use_case.entity.key
    until = as_of.replace(tzinfo=None)
    parts = []
    for name in label.sources:
        rows = tables[name]
        visible = (rows._available_at < until) & rows[key].notnull() & is_current(rows, until)
        if label.where:
            visible &= condition(label.where, rows)
        happened = rows[use_case.sources[name].happened].cast("timestamp(6)")
        parts.append(rows.filter(visible).select(key, _happened=happened))
    return ibis.union(*parts, distinct=True) if label.also else parts[0]


def case_key(use_case: UseCase) -> tuple[str, ...]:
    """Return what tells the labelled rows apart: their source's key, or entity and event time."""
    return use_case.sources[use_case.label.source].key or (use_case.entity.key, "_happened")


def known_labels(use_case: UseCase, tables: Mapping[str, Any], as_of: datetime) -> Any:
    """Return (case key, label 0/1, known_at, _place, _row) of each column label known at `as_of`.

    One source's label of a revised row is that of its version at `as_of`. A row that arrived late
    was not known before it arrived, whatever its declared time says. `_place` 0 goes first.
    `_row`: the only row that it is of, where no key tells rows of one entity and time apart.
    """
    import ibis

    parts, has_key = [], bool(use_case.sources[use_case.label.source].key)
    for place, name in enumerate(use_case.label.sources):
        rows = _labelled_rows(use_case, tables[name], name, as_of)
        parts.append(
            rows.select(
                **_case(use_case, rows, name),
                label=rows._label,
                known_at=rows._known_at,
                _place=ibis.literal(place, "int8"),
                _row=ibis.null("int64") if place or has_key else rows._row_no.cast("int64"),
            )
        )
    return ibis.union(*parts) if use_case.label.also else parts[0]


def label_conflicts(use_case: UseCase, tables: Mapping[str, Any], as_of: datetime) -> Any:
    """Return how many rows have labels of several sources that differ, at `as_of`."""
    labels = known_labels(use_case, tables, as_of)
    said = labels.group_by(case_key(use_case)).agg(
        _labels=labels.label.nunique(), _sources=labels._place.nunique()
    )
    return said.filter((said._labels > 1) & (said._sources > 1)).count()


def column_labels(
    use_case: UseCase,
    tables: Mapping[str, Any],
    as_of: datetime,
    *,
    revised: frozenset[str] = frozenset(),
) -> Any:
    """Return (event_row, label 0/1, known_at) of every row whose label is known at `as_of`.

    On a grid `once` a row is found by the entity's key, in place of event_row. Of several sources
    that know a label by then, the first counts, with its own time.
    """
    label, name = use_case.label, use_case.label.source
    if name != use_case.population.source:
        raise ConfigError(
            "a label column has to be in the population's source",
            where=f"{use_case.name}: label.source",
            expected=use_case.population.source,
            found=name,
            way_out="use `kind: event_present` for events of another source",
        )
    every, is_once = tables[name], use_case.grid.every == "once"
    row = use_case.entity.key if is_once else "event_row"
    if not label.also and (is_once or name not in revised):
        rows = _labelled_rows(use_case, every, name, as_of)
        which = rows[row] if is_once else rows._row_no
        return rows.select(**{row: which}, label=rows._label, known_at=rows._known_at)
    known = known_labels(use_case, tables, as_of)
    if not is_once:
        case = _case(use_case, every, name)
        versions = every.select(**case, event_row=every._row_no)
        known = versions.join(known, case_key(use_case))
        known = known.filter(known._row.isnull() | (known._row == known.event_row))
    return known.group_by(row).agg(
        label=known.label.argmin(known._place), known_at=known.known_at.argmin(known._place)
    )


def _case(use_case: UseCase, rows: Any, name: str) -> dict[str, Any]:
    """Return the case key of a source's rows."""
    own = {"_happened": rows[use_case.sources[name].happened].cast("timestamp(6)")}
    return {key: own[key] if key in own else rows[key] for key in case_key(use_case)}


def _labelled_rows(use_case: UseCase, every: Any, name: str, as_of: datetime) -> Any:
    """Return one source's rows that tell a label by `as_of`, with _label and _known_at."""
    import ibis

    label, source = use_case.label, use_case.sources[name]
    until = as_of.replace(tzinfo=None)
    is_newest = every._superseded_at.isnull() | (every._superseded_at > until)
    rows = every.filter((every._available_at <= until) & is_newest)
    value = rows[label.column]
    is_first = name == label.source  # the others tell when their rows were known
    column = (label.available_at if is_first else None) or source.availability
    known = rows[column]
    if source.is_day(column):  # known at the end of its day
        known = known + ibis.interval(days=1) - ibis.interval(microseconds=1)
    if use_case.label_delay_days:
        known = known + ibis.interval(days=use_case.label_delay_days)
    number = ibis.cases(
        (value == label.positive, ibis.literal(1, "int8")),
        (value == label.negative, ibis.literal(0, "int8")),
        else_=ibis.null("int8"),
    )
    known = ibis.greatest(known.cast("timestamp(6)"), rows._available_at)
    labelled = rows.mutate(_label=number, _known_at=known)
    return labelled.filter(labelled._label.notnull() & (labelled._known_at <= until))
