"""Aggregates of a list of present values, as the offline engine has them; empty is missing.

Belongs here: the arithmetic. Which values count is streams.py's.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from mlops_pipeline.core.expressions.values import decimal38, double_of, whole


def exact(aggregate: str, values: Sequence[Any], scale: int) -> float | None:
    """Sum, mean or sample standard deviation by exact integer addition."""
    if not values:
        return None
    units = values if scale == 1 else [whole(float(value) * scale) for value in values]
    total, count = sum(units), len(units)
    if aggregate == "sum":
        return double_of(total) / scale
    if aggregate == "mean":
        return double_of(total) / count / scale
    if count < 2:
        return None
    squares = decimal38(sum(unit * unit for unit in units))
    spread = decimal38(decimal38(count * squares) - decimal38(total * total))
    return math.sqrt(double_of(spread) / (count * (count - 1))) / scale


def _smallest(values: Sequence[Any]) -> Any:
    """Return the least value; NaN only where nothing else is."""
    numbers = [value for value in values if value == value]  # noqa: PLR0124 # NaN
    return min(numbers) if numbers else math.nan if values else None


def _largest(values: Sequence[Any]) -> Any:
    """Return the greatest value; NaN is above every number."""
    if any(value != value for value in values):  # noqa: PLR0124 # NaN
        return math.nan
    return max(values, default=None)


def _distinct(values: Sequence[Any]) -> int:
    numbers = {value for value in values if value == value}  # noqa: PLR0124 # NaN
    return len(numbers) + any(value != value for value in values)  # noqa: PLR0124 # NaN


REDUCTIONS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "count": len,
    "count_distinct": _distinct,
    "min": _smallest,
    "max": _largest,
}
