"""AGGREGATES: each aggregate as it is computed of a table (Ibis) and of one entity's events.

Belongs here: the arithmetic of both, side by side, and what aggregates of a table share. Which rows
were known is frames.py's, which events streams.py's; the names are spec/kinds.py's.

Exactness: sums, means and deviations of floats add integers (the value scaled by its declared
precision), so that the result does not depend on the order of addition, that is, on threads.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from operator import and_, attrgetter
from typing import Any, NamedTuple

from mlops_pipeline.config.tables import FeatureColumn
from mlops_pipeline.core.expressions.to_ibis import condition, to_ibis, typed
from mlops_pipeline.core.expressions.to_row import Function
from mlops_pipeline.core.expressions.types import Kind, Value, decimal38, double_of, whole
from mlops_pipeline.spec.grammar import Expression

SECONDS_PER_DAY = 86_400
US_PER_SECOND = 1e6
WIDE = "decimal(19, 0)"  # holds every int64; its products have 128 bits
Made = Callable[[Any], Any]  # a table of the step before -> a value


class Event(NamedTuple):
    """One version of an event of an entity; times are UTC, in microseconds since 1970."""

    identity: Hashable  # the source's key: another version is a revision, the same a duplicate
    happened_us: int  # its event time
    declared_us: int  # its availability as the source declares it: the order of the versions
    known_us: int  # when it counts as known: as declared, for a late one when it arrived
    arrival: int  # its place in the order of arrival, the last tie-break
    values: tuple[Value, ...] | None  # of `stream_columns`; None: a revision gave it to another


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


class Rows:
    """Rows of a source known before as_of, and the aggregates of some columns over them.

    They are computed together, in three steps that each name what the next one uses, so that
    nothing is computed twice: prepared columns (scaled values, who counts), their aggregates, and
    the features made of these.

    `as_of` is the time of all, or a column of times. A window as wide as `widest`, which is how far
    back the rows reach, needs no test; `is_unique`: the event time says which row is the latest.
    """

    def __init__(
        self, rows: Any, event_time: str, as_of: Any, *, widest: timedelta | None, is_unique: bool
    ) -> None:
        self._rows = rows
        self.happened = rows[event_time]
        self._as_of = as_of
        self._widest = widest
        self._is_unique = is_unique
        self._prepared: dict[str, Any] = {}
        self._aggregates: dict[str, Made] = {}
        self._names: dict[tuple[Any, ...], str] = {}
        self._latest: dict[str | None, list[str]] = {}

    def aggregated(self, group: str, columns: Mapping[str, FeatureColumn], kept: Any = None) -> Any:
        """Return one row per group: its key and the columns; only groups with a row `kept`."""
        features = {
            name: AGGREGATES[str(column.aggregate)].of_table(self, column, self._flag(column))
            for name, column in columns.items()
        }
        is_kept = None
        if kept is not None:
            is_kept = self.aggregate("any", self.prepare(("kept",), lambda: kept), None)
        rows = self._rows.select(group, **self._prepared)
        made = {name: aggregate(rows) for name, aggregate in self._aggregates.items()}
        table = rows.group_by(group).aggregate(**made)
        if is_kept is not None:
            table = table.filter(table[is_kept])
        return table.select(group, **{name: feature(table) for name, feature in features.items()})

    # what aggregates are made of

    def prepare(self, key: tuple[Any, ...], value: Callable[[], Any]) -> str:
        """Return the name of a prepared column, made once for its key."""
        if key not in self._names:
            self._names[key] = f"_p{len(self._prepared)}"
            self._prepared[self._names[key]] = value()
        return self._names[key]

    def value(self, of: Expression) -> str:
        """Return the prepared column of an expression."""
        return self.prepare(("value", of), lambda: to_ibis(of, self._rows))

    def units(self, of: Expression, precision: int) -> tuple[str, int]:
        """Return the prepared column of an expression in integers, and their scale."""
        value = to_ibis(of, self._rows)
        scale = 1 if value.type().is_integer() else 10**precision
        number = value if scale == 1 else (value.cast("float64") * scale).round()
        return self.prepare(("units", of, scale), lambda: number.cast("int64")), scale

    def as_of(self) -> Made:
        """Return what makes the time from which a group looks."""
        if isinstance(self._as_of, datetime):
            import ibis

            literal = ibis.literal(self._as_of)
            return lambda _: literal
        name = self.aggregate("max", self.prepare(("as_of",), lambda: self._as_of), None)
        return lambda table: table[name]

    def latest(self, value: str, flag: str | None) -> str:
        """Return the name of the latest row (by event time, availability, arrival): a struct."""
        import ibis

        known = self._rows
        order = {"a": self.happened, "b": known._available_at, "c": known._row_no}
        by = self.prepare(
            ("order",), lambda: self.happened if self._is_unique else ibis.struct(order)
        )
        values = self._latest.setdefault(flag, [])
        values.append(value)

        def latest(rows: Any) -> Any:
            row = ibis.struct({value: rows[value] for value in values})
            return row.argmax(rows[by], where=_given(rows, flag))

        return self.aggregate_rows(("latest", flag), latest)

    def aggregate(self, function: str, column: str, flag: str | None) -> str:
        """Return the name of an aggregate of a prepared column, over the rows of a flag."""
        return self.aggregate_rows(
            (function, column, flag),
            lambda rows: getattr(rows[column], function)(where=_given(rows, flag)),
        )

    def aggregate_rows(self, key: tuple[Any, ...], aggregate: Made) -> str:
        """Return the name of an aggregate of the prepared rows, made once for its key."""
        if key not in self._names:
            self._names[key] = f"_a{len(self._aggregates)}"
            self._aggregates[self._names[key]] = aggregate
        return self._names[key]

    def _flag(self, column: FeatureColumn) -> str | None:
        """Return the prepared flag of the rows that count for a column; None: all do."""
        is_whole = column.reach == self._widest and not column.offset_days
        if is_whole and not column.where:
            return None
        reach = None if is_whole else column.reach

        def counts() -> Any:
            tests = []
            if reach is not None:
                tests.append(self.happened >= before(self._as_of, reach))
            if column.offset_days:
                end = before(self._as_of, timedelta(days=column.offset_days))
                tests.append(self.happened < end)
            if column.where:
                tests.append(condition(column.where, self._rows))
            return reduce(and_, tests)

        return self.prepare(("counts", reach, column.offset_days, column.where), counts)


def _given(rows: Any, flag: str | None) -> Any:
    """Return the rows of a flag, as a test; None: all."""
    return None if flag is None else rows[flag]


def before(as_of: Any, span: timedelta) -> Any:
    """Return the time (or the column of times) a span of whole seconds before as_of."""
    if isinstance(as_of, datetime):
        return as_of - span
    import ibis

    return as_of - ibis.interval(seconds=int(span.total_seconds()))


@dataclass(frozen=True)
class Computation:
    """An aggregate of a table (rows, column and flag of those that count), and of events."""

    of_table: Callable[[Rows, FeatureColumn, str | None], Made]
    of_events: Callable[[Window], Any]  # the value before it is of its declared type; None: missing
    kind: Kind | None = None  # of that value; None: the type of the values
    needs_numbers: bool = False  # text and times are refused
    reads_values: bool = True  # else only when events happened counts


# exact sums: `of_parts` takes the first of total, count and sum of squares


def _exact(
    parts: int, of_parts: Callable[..., Any], of_units: Callable[[Sequence[int]], float | None]
) -> Computation:
    def of_table(rows: Rows, column: FeatureColumn, flag: str | None) -> Made:
        units, scale = rows.units(column.value, column.precision)
        names = [rows.aggregate(function, units, flag) for function in ("sum", "count")[:parts]]
        if parts > len(names):

            def squares(given: Any) -> Any:
                # 128-bit integers: squares leave 64 bits from 3e9 units on, and in floats the
                # difference of two nearly equal numbers would leave noise
                wide = given[units].cast(WIDE)
                return (wide * wide).sum(where=_given(given, flag))

            names.append(rows.aggregate_rows(("squares", units, flag), squares))
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
    def of_table(rows: Rows, column: FeatureColumn, flag: str | None) -> Made:
        if column.of is None:  # how many rows there are
            key = ("rows", flag)
            name = rows.aggregate_rows(key, lambda given: given.count(where=_given(given, flag)))
        else:
            name = rows.aggregate(function, rows.value(column.of), flag)
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


def _days_since(function: str, of_times: Callable[[Sequence[int]], int]) -> Computation:
    def of_table(rows: Rows, column: FeatureColumn, flag: str | None) -> Made:
        name = rows.aggregate(function, rows.prepare(("happened",), lambda: rows.happened), flag)
        as_of = rows.as_of()

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


def _latest(rows: Rows, column: FeatureColumn, flag: str | None) -> Made:
    value = rows.value(column.value)
    row = rows.latest(value, flag)
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
    "count": _simple("count", len, "int64"),
    "count_distinct": _simple("nunique", _distinct, "int64"),
    "last": Computation(_latest, _latest_of_events),
    "days_since_last": _days_since("max", max),
    "days_since_first": _days_since("min", min),
}
