"""Feature columns as Ibis aggregates: which rows count, what is computed, how it is rounded.

Belongs here: the meaning of a column's keys. Which rows were known when is frames.py's.

Exactness: sums, means and deviations of floats add integers (the value scaled by its declared
precision), so that the result does not depend on the order of addition, that is, on threads.

The columns of one source are computed together, in three steps that each name what the next one
uses, so that nothing is computed twice: prepared columns (scaled values, who counts), their
aggregates, and the features made of these.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from mlops_pipeline.config.features import FeatureColumn
from mlops_pipeline.core.expressions.to_ibis import condition, to_ibis
from mlops_pipeline.errors import ExpressionError
from mlops_pipeline.spec.grammar import Expression

SECONDS_PER_DAY = 86_400
WIDE = "decimal(19, 0)"  # holds every int64; its products have 128 bits
ORDER = "_order"  # the prepared column that says which row is the latest

Made = Callable[[Any], Any]  # a table of the step before -> a value


class Aggregation:
    """The aggregates of some columns over rows that were known.

    Parameters
    ----------
    rows : ibis.Table
        Rows of one source known before as_of, with `_available_at` and `_row_no`.
    event_time : str
        The source's event time.
    as_of : datetime or ibis column
        The moment, or the column of moments `_as_of`.
    widest : timedelta or None
        How far back `rows` reach: such a window needs no test of its own.
    is_unique : bool
        At most one row of a group has the same event time: it alone says which is the latest.
    """

    def __init__(
        self, rows: Any, event_time: str, as_of: Any, *, widest: timedelta | None, is_unique: bool
    ) -> None:
        self._rows = rows
        self._happened = rows[event_time]
        self._as_of = as_of
        self._widest = widest
        self._is_unique = is_unique
        self._prepared: dict[str, Any] = {}
        self._aggregates: dict[str, Made] = {}
        self._names: dict[tuple[Any, ...], str] = {}

    def by(self, group: str, columns: Mapping[str, FeatureColumn], kept: Any = None) -> Any:
        """Return a table of one row per group: the group's key and the columns.

        `kept` is a test of the rows: only groups with a row that meets it are returned.
        """
        features = {
            name: self._feature(column)
            for name, column in columns.items()
            if column.aggregate != "last"
        }
        features |= self._latest({n: c for n, c in columns.items() if c.aggregate == "last"})
        is_kept = None
        if kept is not None:
            is_kept = self._simple("any", self._prepare(("kept",), lambda: kept), None)
        rows = self._rows.select(group, **self._prepared)
        made = {name: aggregate(rows) for name, aggregate in self._aggregates.items()}
        table = rows.group_by(group).aggregate(**made)
        if is_kept is not None:
            table = table.filter(table[is_kept])
        return table.select(group, **{name: features[name](table) for name in columns})

    # the three steps

    def _prepare(self, key: tuple[Any, ...], value: Callable[[], Any]) -> str:
        """Return the name of a prepared column, made once for its key."""
        if key not in self._names:
            self._names[key] = f"_p{len(self._prepared)}"
            self._prepared[self._names[key]] = value()
        return self._names[key]

    def _aggregate(self, key: tuple[Any, ...], aggregate: Made) -> str:
        """Return the name of an aggregate, made once for its key."""
        if key not in self._names:
            self._names[key] = f"_a{len(self._aggregates)}"
            self._aggregates[self._names[key]] = aggregate
        return self._names[key]

    def _feature(self, column: FeatureColumn) -> Made:
        """Return what makes a column of the aggregates."""
        flag = self._counted(column)
        match column.aggregate:
            case "count":
                return self._counting(column, flag)
            case "sum" | "mean" | "std":
                return self._exact(column, flag)
            case "days_since_last":
                return self._days_since("max", column, flag)
            case "days_since_first":
                return self._days_since("min", column, flag)
            case _:
                function = "nunique" if column.aggregate == "count_distinct" else column.aggregate
                name = self._simple(str(function), self._value(column.value), flag)
                return lambda table: typed(table[name], column.dtype, column.precision)

    # columns

    def _counting(self, column: FeatureColumn, flag: str | None) -> Made:
        if column.of is None:
            name = self._aggregate(
                ("rows", flag), lambda rows: rows.count(where=_given(rows, flag))
            )
        else:
            name = self._simple("count", self._value(column.of), flag)
        return lambda table: typed(table[name], column.dtype, column.precision)

    def _exact(self, column: FeatureColumn, flag: str | None) -> Made:
        """Sum, mean or sample standard deviation by exact integer addition."""
        value = to_ibis(column.value, self._rows)
        scale = 1 if value.type().is_integer() else 10**column.precision
        units = self._prepare(("units", column.of, scale), lambda: _units(value, scale))
        names = [self._simple("sum", units, flag)]
        if column.aggregate != "sum":
            names.append(self._simple("count", units, flag))
        if column.aggregate == "std":
            squares = ("squares", units, flag)
            names.append(self._aggregate(squares, lambda rows: _squares(rows, units, flag)))

        def exact(table: Any) -> Any:
            made = EXACT[column.aggregate](*(table[name] for name in names)) / scale
            return typed(made, column.dtype, column.precision, is_finite=True)

        return exact

    def _days_since(self, function: str, column: FeatureColumn, flag: str | None) -> Made:
        name = self._simple(function, self._prepare(("happened",), lambda: self._happened), flag)
        is_literal = isinstance(self._as_of, datetime)
        moment = None
        if not is_literal:
            moments = self._prepare(("as_of",), lambda: self._as_of)
            moment = self._simple("max", moments, None)

        def days(table: Any) -> Any:
            import ibis

            until = ibis.literal(self._as_of) if moment is None else table[moment]
            passed = (until.epoch_seconds() - table[name].epoch_seconds()) / SECONDS_PER_DAY
            return typed(passed, column.dtype, column.precision, is_finite=True)

        return days

    def _latest(self, columns: Mapping[str, FeatureColumn]) -> dict[str, Made]:
        """Take values of the latest row: by event time, then availability, then arrival."""
        import ibis

        alike: dict[str | None, list[str]] = {}
        for column in columns.values():
            values = alike.setdefault(self._counted(column), [])
            values.append(self._value(column.value))
        if columns:
            self._prepared[ORDER] = self._order()
        found = {}
        for flag, values in alike.items():

            def take(rows: Any, flag: str | None = flag, values: list[str] = values) -> Any:
                row = ibis.struct({value: rows[value] for value in values})
                return row.argmax(rows[ORDER], where=_given(rows, flag))

            found[flag] = self._aggregate(("latest", flag), take)
        made: dict[str, Made] = {}
        for name, column in columns.items():
            row, value = found[self._counted(column)], self._value(column.value)

            def field(
                table: Any, row: str = row, value: str = value, column: FeatureColumn = column
            ) -> Any:
                return typed(table[row][value], column.dtype, column.precision)

            made[name] = field
        return made

    def _order(self) -> Any:
        import ibis

        if self._is_unique:
            return self._happened
        rows = self._rows
        return ibis.struct({"a": self._happened, "b": rows._available_at, "c": rows._row_no})

    # parts of columns

    def _value(self, of: Expression) -> str:
        return self._prepare(("value", of), lambda: to_ibis(of, self._rows))

    def _simple(self, function: str, value: str, flag: str | None) -> str:
        def aggregate(rows: Any) -> Any:
            return getattr(rows[value], function)(where=_given(rows, flag))

        return self._aggregate((function, value, flag), aggregate)

    def _counted(self, column: FeatureColumn) -> str | None:
        """Return the prepared flag of the rows that count for a column; None: all do."""
        is_whole = column.reach == self._widest and not column.offset_days
        if is_whole and not column.where:
            return None
        key = ("counts", None if is_whole else column.reach, column.offset_days, column.where)
        return self._prepare(key, lambda: self._counts(column, is_whole=is_whole))

    def _counts(self, column: FeatureColumn, *, is_whole: bool) -> Any:
        tests = []
        if column.reach is not None and not is_whole:
            tests.append(self._happened >= before(self._as_of, column.reach))
        if column.offset_days:
            tests.append(self._happened < before(self._as_of, timedelta(days=column.offset_days)))
        if column.where:
            tests.append(condition(column.where, self._rows))
        result = tests[0]
        for test in tests[1:]:
            result &= test
        return result


def _given(rows: Any, flag: str | None) -> Any:
    return None if flag is None else rows[flag]


def _units(value: Any, scale: int) -> Any:
    if scale == 1:
        return value.cast("int64")
    return (value.cast("float64") * scale).round().cast("int64")


def _squares(rows: Any, units: str, flag: str | None) -> Any:
    # 128-bit integers: squares leave 64 bits from 3e9 units on, and in floats the difference of
    # two nearly equal numbers would leave noise
    wide = rows[units].cast(WIDE)
    return (wide * wide).sum(where=_given(rows, flag))


def _sum(total: Any) -> Any:
    return total.cast("float64")


def _mean(total: Any, count: Any) -> Any:
    return total.cast("float64") / count.cast("float64").nullif(0.0)


def _deviation(total: Any, count: Any, squares: Any) -> Any:
    spread = count.cast(WIDE) * squares - total.cast(WIDE) * total.cast(WIDE)
    pairs = count.cast("float64") * (count - 1).cast("float64")
    return (spread.cast("float64") / pairs.nullif(0.0)).sqrt()


EXACT: Mapping[str | None, Callable[..., Any]] = {"sum": _sum, "mean": _mean, "std": _deviation}


def before(as_of: Any, span: timedelta) -> Any:
    """Return the moment (or the column of moments) a span of whole seconds before as_of."""
    if isinstance(as_of, datetime):
        return as_of - span
    import ibis

    return as_of - ibis.interval(seconds=int(span.total_seconds()))


def typed(value: Any, dtype: str, precision: int, *, is_finite: bool = False) -> Any:
    """Return a value as a declared type; floats are rounded, infinities and NaN are missing.

    `is_finite` says that the value can be neither, and spares the test.

    Raises
    ------
    ExpressionError
        When a text is declared as another type: one bad row would fail a whole build.
    """
    if value.type().is_string() and dtype != "string":
        raise ExpressionError("a text is not of the declared type", expected="string", found=dtype)
    if dtype == "float64":
        import ibis

        number = value.cast("float64")
        if not is_finite and not value.type().is_integer():
            # NaN is above every number: one comparison tells both
            is_finite_number = number.abs() < ibis.literal(float("inf"))
            number = ibis.ifelse(is_finite_number, number, ibis.null("float64"))
        return number.round(precision).cast("float64")
    if dtype == "int64" and value.type().is_floating():
        return value.round().cast("int64")
    return value.cast(dtype)
