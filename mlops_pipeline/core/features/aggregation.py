"""Aggregates of a table together: which rows count, what is computed once for all; latest values.

Belongs here: what aggregates are made of. What each one makes of it is aggregates.py's, which rows
were known when frames.py's.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from mlops_pipeline.config.tables import FeatureColumn
from mlops_pipeline.core.expressions.to_ibis import condition, to_ibis
from mlops_pipeline.spec.grammar import Expression

Made = Callable[[Any], Any]  # a table of the step before -> a value


class Aggregation:
    """The aggregates of some columns over rows that were known.

    They are computed together, in three steps that each name what the next one uses, so that
    nothing is computed twice: prepared columns (scaled values, who counts), their aggregates, and
    the features made of these.

    Parameters
    ----------
    rows : ibis.Table
        Rows of one source known before as_of, with `_available_at` and `_row_no`.
    event_time : str
        The source's event time.
    as_of : datetime or ibis column
        The time of all, or the column of times `_as_of`.
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
        self._latest: dict[str | None, list[str]] = {}

    def by(self, group: str, features: Mapping[str, Made], kept: Any = None) -> Any:
        """Return a table of one row per group: the group's key and the features.

        `kept` is a test of the rows: only groups with a row that meets it are returned.
        """
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

    def happened(self) -> str:
        """Return the prepared column of event times."""
        return self.prepare(("happened",), lambda: self._happened)

    def as_of(self) -> Made:
        """Return what makes the time from which a group looks."""
        if isinstance(self._as_of, datetime):
            import ibis

            literal = ibis.literal(self._as_of)
            return lambda _: literal
        name = self.aggregate("max", self.prepare(("as_of",), lambda: self._as_of), None)
        return lambda table: table[name]

    def latest(self, value: str, flag: str | None) -> str:
        """Return the name of the latest row that counts: a struct of this and other values.

        Latest by event time, then availability, then arrival.
        """
        import ibis

        values = self._latest.setdefault(flag, [])
        values.append(value)
        order = self.prepare(("order",), self._order)

        def latest(rows: Any) -> Any:
            row = ibis.struct({value: rows[value] for value in values})
            return row.argmax(rows[order], where=given(rows, flag))

        return self.aggregate_rows(("latest", flag), latest)

    def _order(self) -> Any:
        import ibis

        if self._is_unique:
            return self._happened
        rows = self._rows
        return ibis.struct({"a": self._happened, "b": rows._available_at, "c": rows._row_no})

    def aggregate(self, function: str, column: str, flag: str | None) -> str:
        """Return the name of an aggregate of a prepared column, over the rows of a flag."""
        return self.aggregate_rows(
            (function, column, flag),
            lambda rows: getattr(rows[column], function)(where=given(rows, flag)),
        )

    def aggregate_rows(self, key: tuple[Any, ...], aggregate: Made) -> str:
        """Return the name of an aggregate of the prepared rows, made once for its key."""
        if key not in self._names:
            self._names[key] = f"_a{len(self._aggregates)}"
            self._aggregates[self._names[key]] = aggregate
        return self._names[key]

    # which rows count

    def counted(self, column: FeatureColumn) -> str | None:
        """Return the prepared flag of the rows that count for a column; None: all do."""
        is_whole = column.reach == self._widest and not column.offset_days
        if is_whole and not column.where:
            return None
        key = ("counts", None if is_whole else column.reach, column.offset_days, column.where)
        return self.prepare(key, lambda: self._counts(column, is_whole=is_whole))

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


def given(rows: Any, flag: str | None) -> Any:
    """Return the rows of a flag, as a test; None: all."""
    return None if flag is None else rows[flag]


def before(as_of: Any, span: timedelta) -> Any:
    """Return the time (or the column of times) a span of whole seconds before as_of."""
    if isinstance(as_of, datetime):
        return as_of - span
    import ibis

    return as_of - ibis.interval(seconds=int(span.total_seconds()))


def with_latest(
    frame: Any,
    rows: Any,
    values: Mapping[str, Any],
    *,
    as_of: Any,
    event_time: str,
    key: str,
    reach: timedelta | None,
    is_ordered: bool,
) -> Any:
    """Return the frame with the latest values by a join on time; every row of it stays.

    For many rows that each look from a time of their own. The latest of an entity's known rows (by
    event time, then availability, then arrival) changes only when a row becomes known that is later
    than all known before it. Those rows, ordered by when they were known, are what an as-of join
    needs: each row of the frame meets one of them, not its whole history.
    """
    import ibis

    names, values = list(values), dict(values)
    known = rows[event_time]
    if not is_ordered:
        known = ibis.greatest(known, rows._available_at)
    right = rows.mutate(_key=rows[key], _happened=rows[event_time], _known=known)
    if not is_ordered:
        values = {f"_value_{index}": value for index, value in enumerate(values.values())}
        right = _changes(right.mutate(**values))
        values = {name: right[f"_value_{index}"] for index, name in enumerate(names)}
    times = ["_known"] if reach is None else ["_happened", "_known"]
    right = right.select("_key", *times, **values)
    left = frame.mutate(_as_of=as_of)
    joined = left.asof_join(
        right, on=left._as_of > right._known, predicates=[left[key] == right._key]
    )
    if reach is not None:
        is_recent = joined._happened >= before(joined._as_of, reach)
        nothing = {name: ibis.null(joined[name].type()) for name in names}
        joined = joined.mutate(
            **{name: ibis.ifelse(is_recent, joined[name], nothing[name]) for name in names}
        )
    return joined.select(*frame.columns, *names)


def _changes(rows: Any) -> Any:
    """Keep the rows that were the latest known of their entity when they became known."""
    import ibis

    order = [rows._happened, rows._available_at, rows._row_no]
    rows = rows.mutate(_rank=ibis.row_number().over(group_by=rows._key, order_by=order))
    so_far = rows._rank.max().over(
        ibis.window(group_by=rows._key, order_by=rows._known, range=(None, 0))
    )
    rows = rows.mutate(_newest=so_far)
    return rows.filter(rows._rank == rows._newest)
