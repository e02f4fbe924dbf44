"""One feature column as an Ibis aggregate: which rows count, what is computed, how it is rounded.

Belongs here: the meaning of a column's keys. Which rows were known when is frames.py's.

Exactness: sums, means and deviations of floats add integers (the value scaled by its declared
precision), so that the result does not depend on the order of addition, that is, on threads.
"""

from datetime import datetime, timedelta
from typing import Any

from mlops_pipeline.config.features import FeatureColumn
from mlops_pipeline.features.compile import compiled, condition

SECONDS_PER_DAY = 86_400
WIDE = "decimal(19, 0)"  # holds every int64; its products have 128 bits


def aggregated(rows: Any, happened: Any, as_of: Any, column: FeatureColumn) -> Any:
    """Return the aggregate of the rows that count for a column, as its declared type."""
    where = counted(rows, happened, as_of, column)
    value: Any = compiled(column.of, rows) if column.of else None
    match column.aggregate:
        case "count":
            result = rows.count(where=where) if value is None else value.count(where=where)
        case "count_distinct":
            result = value.nunique(where=where)
        case "min":
            result = value.min(where=where)
        case "max":
            result = value.max(where=where)
        case "days_since_last":
            result = _days_between(happened.max(where=where), as_of, rows)
        case "days_since_first":
            result = _days_between(happened.min(where=where), as_of, rows)
        case _:
            result = _exact(value, where, column)
    return typed(result, column.dtype, column.precision)


def _exact(value: Any, where: Any, column: FeatureColumn) -> Any:
    """Sum, mean or sample standard deviation by exact integer addition."""
    scale = 1 if value.type().is_integer() else 10**column.precision
    units = value if scale == 1 else (value.cast("float64") * scale).round().cast("int64")
    total = units.cast("int64").sum(where=where)
    count = units.count(where=where)
    if column.aggregate == "sum":
        return total.cast("float64") / scale
    if column.aggregate == "mean":
        return total.cast("float64") / count.cast("float64").nullif(0.0) / scale
    # 128-bit integers: squares leave 64 bits from 3e9 units on, and in floats the difference of
    # two nearly equal numbers would leave noise
    wide = units.cast(WIDE)
    squares = (wide * wide).sum(where=where)
    spread = count.cast(WIDE) * squares - total.cast(WIDE) * total.cast(WIDE)
    pairs = count.cast("float64") * (count - 1).cast("float64")
    return (spread.cast("float64") / pairs.nullif(0.0)).sqrt() / scale


def counted(rows: Any, happened: Any, as_of: Any, column: FeatureColumn) -> Any:
    """Which rows count for a column: in its window, and satisfying its `where`; None: all."""
    window = _window(happened, as_of, column)
    if not column.where:
        return window
    satisfied = condition(column.where, rows)
    return satisfied if window is None else window & satisfied


def _window(happened: Any, as_of: Any, column: FeatureColumn) -> Any:
    conditions = []
    if column.reach is not None:
        conditions.append(happened >= before(as_of, column.reach))
    if column.offset_days:
        conditions.append(happened < before(as_of, timedelta(days=column.offset_days)))
    if not conditions:
        return None
    return conditions[0] if len(conditions) == 1 else conditions[0] & conditions[1]


def before(as_of: Any, span: timedelta) -> Any:
    """Return the moment (or the column of moments) a span of whole seconds before as_of."""
    if isinstance(as_of, datetime):
        return as_of - span
    import ibis

    return as_of - ibis.interval(seconds=int(span.total_seconds()))


def _days_between(earlier: Any, as_of: Any, rows: Any) -> Any:
    import ibis

    moment = ibis.literal(as_of) if isinstance(as_of, datetime) else rows._as_of.max()
    return (moment.epoch_seconds() - earlier.epoch_seconds()) / SECONDS_PER_DAY


def typed(value: Any, dtype: str, precision: int) -> Any:
    """Return a value as a declared type; floats are rounded, infinities and NaN are missing."""
    if dtype == "float64":
        number = value.cast("float64")
        infinite = number.isnan() | number.isinf()
        import ibis

        return ibis.ifelse(infinite, ibis.null("float64"), number).round(precision).cast("float64")
    if dtype == "int64" and value.type().is_floating():
        return value.round().cast("int64")
    return value.cast(dtype)
