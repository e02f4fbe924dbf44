"""What a feature means, one row at a time, without a database: slow and plain."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mlops_pipeline.config.tables import FeatureColumn

Row = dict[str, Any]
Value = Callable[[Row], Any]
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 # naive UTC, as in the tables


def known_before(
    rows: Sequence[Row], as_of: datetime, *, event_time: str = "at", revised: bool = False
) -> list[Row]:
    """Rows that had happened and were known strictly before as_of, in their version of then."""
    return [
        row
        for row in rows
        if row[event_time] < as_of
        and row["_available_at"] < as_of
        and not (revised and row["_superseded_at"] is not None and row["_superseded_at"] < as_of)
    ]


@dataclass(frozen=True)
class Feature:
    """A configured column with its expressions as Python."""

    config: FeatureColumn
    of: Value | None = None
    where: Value | None = None

    def value(self, rows: Sequence[Row], as_of: datetime) -> Any:
        """The feature of one entity, from the rows of it that were known before as_of."""
        counted = [row for row in rows if self._counts(row, as_of)]
        value = typed(self._aggregate(counted, as_of), self.config)
        if value is None and self.config.unseen is not None:
            return typed(self.config.unseen, self.config)
        return value

    def _counts(self, row: Row, as_of: datetime) -> bool:
        end = as_of - timedelta(days=self.config.offset_days)
        if row["at"] >= end:
            return False
        days = self.config.window_days
        if days is not None and row["at"] < end - timedelta(days=days):
            return False
        return self.where is None or bool(self.where(row))

    def _aggregate(self, rows: list[Row], as_of: datetime) -> Any:
        kind = self.config.aggregate
        if kind == "count" and self.of is None:
            return len(rows)
        if kind in ("days_since_last", "days_since_first"):
            times = [row["at"] for row in rows]
            if not times:
                return None
            chosen = max(times) if kind == "days_since_last" else min(times)
            return (_seconds(as_of) - _seconds(chosen)) / 86_400
        assert self.of is not None
        if kind == "last":
            latest = max(
                rows,
                key=lambda row: (row["at"], row["_available_at"], row["_row_no"]),
                default=None,
            )
            return None if latest is None else self.of(latest)
        return self._of_values([value for row in rows if (value := self.of(row)) is not None])

    def _of_values(self, values: list[Any]) -> Any:
        kind = self.config.aggregate
        if kind == "count":
            return len(values)
        if kind == "count_distinct":
            return len(set(values))
        if not values:
            return None
        if kind in ("min", "max"):
            return min(values) if kind == "min" else max(values)
        scale = 1 if isinstance(values[0], int) else 10**self.config.precision
        units = [half_away(value * scale) for value in values]
        total, count = sum(units), len(units)
        if kind == "sum":
            return total / scale
        if kind == "mean":
            return total / count / scale
        if count < 2:
            return None
        spread = count * sum(unit * unit for unit in units) - total * total
        return math.sqrt(spread / (count * (count - 1))) / scale


def typed(value: Any, config: FeatureColumn) -> Any:
    if value is None:
        return None
    if config.dtype == "float64":
        scale = 10**config.precision
        return half_away(float(value) * scale) / scale
    if config.dtype == "int64":
        return half_away(value)
    return value


def half_away(value: float) -> int:
    """Round halves away from zero."""
    whole = math.trunc(value)
    return whole + (1 if value > 0 else -1) if abs(value - whole) >= 0.5 else whole


def _seconds(moment: datetime) -> int:
    return ((moment - EPOCH) // timedelta(microseconds=1) + 500_000) // 1_000_000
