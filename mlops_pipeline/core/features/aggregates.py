"""AGGREGATES: each aggregate as it is computed of a table (Ibis) and of one entity's events.

Belongs here: the arithmetic of both, side by side. Which rows count is aggregation.py's and
streams.py's; the names are spec/kinds.py's.

Exactness: sums, means and deviations of floats add integers (the value scaled by its declared
precision), so that the result does not depend on the order of addition, that is, on threads.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from mlops_pipeline.config.tables import FeatureColumn
from mlops_pipeline.core.expressions.to_ibis import typed
from mlops_pipeline.core.expressions.to_row import Function
from mlops_pipeline.core.expressions.types import Kind, Value, decimal38, double_of, whole
from mlops_pipeline.core.features.aggregation import Aggregation, Made, given

SECONDS_PER_DAY = 86_400
US_PER_SECOND = 1e6
WIDE = "decimal(19, 0)"  # holds every int64; its products have 128 bits


class Event(NamedTuple):
    """One version of an event of an entity; times are UTC, in microseconds since 1970.

    Attributes
    ----------
    identity : hashable
        The source's key: a further version of it is a revision, the same again a duplicate.
    happened_us : int
        Its event time.
    declared_us : int
        Its availability as the source declares it: the order of the versions.
    known_us : int
        When it counts as known: `declared_us`, for a late one the time of its arrival.
    arrival : int
        Its place in the order of arrival, the last tie-break.
    values : tuple or None
        The columns of `stream_columns`, in that order; None: by this version the event is no
        longer one of the entity (a revision gave it to another).
    """

    identity: Hashable
    happened_us: int
    declared_us: int
    known_us: int
    arrival: int
    values: tuple[Value, ...] | None


_LATEST = attrgetter("happened_us", "known_us", "arrival")


class Window(NamedTuple):
    """The events of an entity that count for a column, and how its value is read from one."""

    events: Sequence[Event]
    of: Function | None
    as_of_us: int
    scale: int  # of exact sums

    def values(self) -> list[Any]:
        """Return the values that are there; without `of`, what counts are the events."""
        of = self.of
        if of is None:
            return [*self.events]
        return [value for event in self.events if (value := of(event.values or ())) is not None]


@dataclass(frozen=True)
class Computation:
    """An aggregate of a table and of events.

    Attributes
    ----------
    of_table : callable
        Aggregation, column and the flag of the rows that count -> what makes the feature.
    of_events : callable
        The value of a window before it is given its declared type; missing is None.
    kind : Kind or None
        The type of `of_events`; None: that of the values.
    needs_numbers : bool
        Text and times are refused.
    reads_values : bool
        Of events; otherwise only when they happened counts.
    """

    of_table: Callable[[Aggregation, FeatureColumn, str | None], Made]
    of_events: Callable[[Window], Any]
    kind: Kind | None = None
    needs_numbers: bool = False
    reads_values: bool = True


# exact sums: `of_parts` takes the first of total, count and sum of squares


def _exact(
    parts: int, of_parts: Callable[..., Any], of_units: Callable[[Sequence[int]], float | None]
) -> Computation:
    def of_table(build: Aggregation, column: FeatureColumn, flag: str | None) -> Made:
        units, scale = build.units(column.value, column.precision)
        names = [build.aggregate(function, units, flag) for function in ("sum", "count")[:parts]]
        if parts > len(names):
            squares = ("squares", units, flag)
            names.append(build.aggregate_rows(squares, lambda rows: _squares(rows, units, flag)))
        return lambda table: typed(
            of_parts(*(table[name] for name in names)) / scale,
            column.dtype,
            column.precision,
            is_finite=True,
        )

    def of_events(window: Window) -> float | None:
        values, scale = window.values(), window.scale
        if not values:
            return None
        units = values if scale == 1 else [whole(float(value) * scale) for value in values]
        made = of_units(units)
        return None if made is None else made / scale

    return Computation(of_table, of_events, "float64", needs_numbers=True)


def _squares(rows: Any, units: str, flag: str | None) -> Any:
    # 128-bit integers: squares leave 64 bits from 3e9 units on, and in floats the difference of
    # two nearly equal numbers would leave noise
    wide = rows[units].cast(WIDE)
    return (wide * wide).sum(where=given(rows, flag))


def _mean(total: Any, count: Any) -> Any:
    return total.cast("float64") / count.cast("float64").nullif(0.0)


def _deviation(total: Any, count: Any, squares: Any) -> Any:
    """Return the sample standard deviation, missing below two values."""
    spread = count.cast(WIDE) * squares - total.cast(WIDE) * total.cast(WIDE)
    pairs = count.cast("float64") * (count - 1).cast("float64")
    return (spread.cast("float64") / pairs.nullif(0.0)).sqrt()


def _deviation_of_units(units: Sequence[int]) -> float | None:
    total, count = sum(units), len(units)
    if count < 2:
        return None
    squares = decimal38(sum(unit * unit for unit in units))
    spread = decimal38(decimal38(count * squares) - decimal38(total * total))
    return math.sqrt(double_of(spread) / (count * (count - 1)))


# one function of the values; NaN is above every number


def _simple(
    function: str, of_values: Callable[[Sequence[Any]], Any], kind: Kind | None = None
) -> Computation:
    def of_table(build: Aggregation, column: FeatureColumn, flag: str | None) -> Made:
        name = build.aggregate(function, build.value(column.value), flag)
        return lambda table: typed(table[name], column.dtype, column.precision)

    return Computation(of_table, lambda window: of_values(window.values()), kind)


def _smallest(values: Sequence[Any]) -> Any:
    numbers = [value for value in values if value == value]  # noqa: PLR0124 # NaN
    return min(numbers) if numbers else math.nan if values else None


def _largest(values: Sequence[Any]) -> Any:
    if any(value != value for value in values):  # noqa: PLR0124 # NaN
        return math.nan
    return max(values, default=None)


def _distinct(values: Sequence[Any]) -> int:
    numbers = {value for value in values if value == value}  # noqa: PLR0124 # NaN
    return len(numbers) + any(value != value for value in values)  # noqa: PLR0124 # NaN


def _count(build: Aggregation, column: FeatureColumn, flag: str | None) -> Made:
    """Count the rows, or the values of an expression."""
    if column.of is not None:
        name = build.aggregate("count", build.value(column.of), flag)
    else:
        key = ("rows", flag)
        name = build.aggregate_rows(key, lambda rows: rows.count(where=given(rows, flag)))
    return lambda table: typed(table[name], column.dtype, column.precision)


# times


def _days_since(function: str, of_times: Callable[[Sequence[int]], int]) -> Computation:
    def of_table(build: Aggregation, column: FeatureColumn, flag: str | None) -> Made:
        name, as_of = build.aggregate(function, build.happened(), flag), build.as_of()

        def days(table: Any) -> Any:
            passed = as_of(table).epoch_seconds() - table[name].epoch_seconds()
            return typed(passed / SECONDS_PER_DAY, column.dtype, column.precision, is_finite=True)

        return days

    def of_events(window: Window) -> float | None:
        if not window.events:
            return None
        happened_us = of_times([event.happened_us for event in window.events])
        passed = window.as_of_us / US_PER_SECOND - happened_us / US_PER_SECOND
        return passed / SECONDS_PER_DAY

    return Computation(of_table, of_events, "float64", reads_values=False)


def _latest(build: Aggregation, column: FeatureColumn, flag: str | None) -> Made:
    """Take the value, missing or not, of the latest row."""
    value = build.value(column.value)
    row = build.latest(value, flag)
    return lambda table: typed(table[row][value], column.dtype, column.precision)


def _latest_of_events(window: Window) -> Any:
    if not window.events or window.of is None:
        return None
    return window.of(max(window.events, key=_LATEST).values or ())


AGGREGATES: Mapping[str, Computation] = {
    "sum": _exact(1, lambda total: total.cast("float64"), lambda units: double_of(sum(units))),
    "mean": _exact(2, _mean, lambda units: double_of(sum(units)) / len(units)),
    "std": _exact(3, _deviation, _deviation_of_units),
    "min": _simple("min", _smallest),
    "max": _simple("max", _largest),
    "count": Computation(_count, lambda window: len(window.values()), "int64"),
    "count_distinct": _simple("nunique", _distinct, "int64"),
    "last": Computation(_latest, _latest_of_events),
    "days_since_last": _days_since("max", max),
    "days_since_first": _days_since("min", min),
}


def aggregated(
    build: Aggregation, group: str, columns: Mapping[str, FeatureColumn], kept: Any = None
) -> Any:
    """Return a table of one row per group: its key and the columns (`kept`: as in `by`)."""
    features = {
        name: AGGREGATES[str(column.aggregate)].of_table(build, column, build.counted(column))
        for name, column in columns.items()
    }
    return build.by(group, features, kept)
