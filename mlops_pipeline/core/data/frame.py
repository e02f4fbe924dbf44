"""Features with labels as named arrays; their division into train, validation and test parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.modelling import Split
from mlops_pipeline.config.tables import Grid
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.periods import Period, step_of
from mlops_pipeline.errors import SplitError

Values = npt.NDArray[Any]
Columns = Mapping[str, Values]
Flags = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int8]
Times = npt.NDArray[np.datetime64]
Indices = npt.NDArray[np.int64]
QUARTILES = (0.25, 0.5, 0.75)
PARTS = ("train", "validation", "test")


def missing_shares(columns: Columns) -> dict[str, float]:
    """Return the share of missing values of each column of at least one row."""
    return {name: float(is_missing(values).mean()) for name, values in columns.items()}


def is_missing(values: Values) -> Flags:
    """Return which values are missing: None among texts, NaN among numbers."""
    if values.dtype == object:
        return np.array([value is None for value in values], dtype=np.bool_)
    lacks: Flags = np.isnan(values)
    return lacks


@dataclass(frozen=True)
class LabelledFrame:
    """Rows ordered by as_of and row key.

    `columns` holds numbers as float32 `(n_rows,)` (NaN: missing) and texts as object arrays (None:
    missing), protected attributes declared as inputs included; `protected` every protected
    attribute; `label` is int8.
    """

    columns: Columns
    protected: Columns
    entity: Values
    as_of: Times
    known_at: Times
    label: Labels

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.label)

    @property
    def everything(self) -> Columns:
        """Inputs and protected attributes together: what a decision may be made from."""
        return {**self.protected, **self.columns}

    def take(self, rows: Values) -> "LabelledFrame":
        """Return the given rows (positions or a mask)."""
        return LabelledFrame(
            columns={name: values[rows] for name, values in self.columns.items()},
            protected={name: values[rows] for name, values in self.protected.items()},
            entity=self.entity[rows],
            as_of=self.as_of[rows],
            known_at=self.known_at[rows],
            label=self.label[rows],
        )

    def groups(self, column: str) -> list[tuple[str, Flags]]:
        """Return the groups of a column and their rows: its texts, or quartiles of its numbers."""
        values = self.protected.get(column, self.columns.get(column))
        if values is None:
            return []
        if values.dtype == object:
            names = sorted({str(value) for value in values if value is not None})
            groups = [(name, np.asarray(values == name, dtype=bool)) for name in names]
        else:
            edges = np.unique(np.nanquantile(values, QUARTILES)) if len(values) else np.empty(0)
            groups = [
                (f"({low:g}, {high:g}]", (values > low) & (values <= high))
                for low, high in pairwise([-np.inf, *edges, np.inf])
            ]
        missing = is_missing(values)
        return [*groups, ("(missing)", missing)] if missing.any() else groups


@dataclass(frozen=True)
class Parts:
    """Row positions of each part, the periods they cover, and what was purged between them."""

    train: Indices
    validation: Indices
    test: Indices
    periods: Mapping[str, tuple[str, ...]]
    purged: int

    def rows(self) -> dict[str, int]:
        """Return the number of rows of each part."""
        return {name: len(getattr(self, name)) for name in PARTS}


def split_frame(use_case: UseCase, frame: LabelledFrame) -> Parts:
    """Divide a use case's labelled rows: the same frame, the same parts. See split_rows."""
    return split_rows(use_case.split, use_case.grid, frame, use_case.training.seed)


def split_rows(split: Split, grid: Grid, frame: LabelledFrame, seed: int) -> Parts:
    """Divide rows by time (whole periods, one label horizon purged) or at random by entity."""
    if split.method == "random":
        parts = _at_random(split, frame.entity, frame.label, seed)
    else:
        parts = _by_time(split, _period_of(grid, frame.as_of), frame.known_at)
    for name in PARTS:
        rows: Indices = getattr(parts, name)
        where = f"periods {', '.join(parts.periods[name])}"
        if len(rows) == 0:
            raise SplitError(
                f"the {name} part is empty",
                where=where,
                expected="at least one labelled row",
                found=f"no row; {parts.rows()}",
                way_out="more data, or other split fractions",
            )
        classes = np.unique(frame.label[rows])
        if len(classes) < 2:
            raise SplitError(
                f"the {name} part has a single class",
                where=where,
                expected="labels 0 and 1",
                found=f"only {classes[0]} in {len(rows)} rows",
                way_out="check the label rule (label.where, label.positive) and the horizon",
            )
    return parts


def split_periods(use_case: UseCase, periods: Sequence[Period]) -> Parts:
    """Divide labelled periods by time as if each had one row, at its start; raises SplitError."""
    wait = timedelta(days=use_case.label_horizon_days)
    if use_case.label.kind == "column":  # its rows say when
        wait = timedelta(0)
    starts = [item.start.replace(tzinfo=None) for item in periods]
    known = np.array([start + wait for start in starts], dtype="datetime64[us]")
    return _by_time(use_case.split, np.array(starts, dtype="datetime64[D]"), known)


def _period_of(grid: Grid, as_of: Times) -> Times:
    days = as_of.astype("datetime64[D]")
    step = step_of(grid) if grid.every == "event" else "day"
    if step == "month":
        return as_of.astype("datetime64[M]").astype("datetime64[D]")
    if step == "week":
        since_monday = (days.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
        return np.asarray(days - since_monday.astype("timedelta64[D]"))
    return days


def _by_time(split: Split, period: Times, known_at: Times) -> Parts:
    names = np.unique(period)
    count = len(names)
    test = max(1, round(split.test * count)) if split.test else 0
    train = count - test - max(1, round(split.validation * count))
    if train < 1 or test < 1:
        raise SplitError(
            "there are too few labelled periods for three parts",
            expected="at least 3",
            found=f"{count}: {', '.join(map(str, names))}",
            way_out="run at a later as_of, or start the grid earlier",
        )
    starts = names[[train, count - test]]  # of validation and test
    part = np.searchsorted(starts, period, side="right")
    rows: list[Indices] = []
    for index, name in enumerate(PARTS):
        is_inside = part == index
        is_known = known_at <= starts[index] if index < len(starts) else is_inside
        rows.append(np.flatnonzero(is_inside & is_known))
        if not len(rows[-1]):
            raise SplitError(
                f"the {name} part is empty after purging rows whose label was not yet known",
                where=f"train before {starts[0]}, validation {starts[0]} to {starts[1]}, "
                f"test from {starts[1]}",
                expected="labels known before the next part starts",
                found=f"the first label of the part is known at {known_at[is_inside].min()}",
                way_out="more periods, a shorter horizon, or other split fractions",
            )
    periods = {
        name: tuple(map(str, np.unique(period[found])))
        for name, found in zip(PARTS, rows, strict=True)
    }
    purged = len(period) - sum(map(len, rows))
    return Parts(rows[0], rows[1], rows[2], periods, purged)


def _at_random(split: Split, entity: Values, label: Labels, seed: int) -> Parts:
    """Divide entities with a positive row and those without one in the same shares."""
    names, codes = np.unique(entity, return_inverse=True)
    is_positive = np.zeros(len(names), dtype=np.bool_)
    is_positive[codes[label == 1]] = True
    draw, place = np.random.default_rng(seed), np.empty(len(names))
    for members in (np.flatnonzero(is_positive), np.flatnonzero(~is_positive)):
        place[draw.permutation(members)] = (np.arange(len(members)) + 0.5) / max(len(members), 1)
    where = place[codes]
    train = where < split.train
    test = where >= 1 - split.test
    return Parts(
        train=np.flatnonzero(train),
        validation=np.flatnonzero(~train & ~test),
        test=np.flatnonzero(test),
        periods=dict.fromkeys(PARTS, ("random",)),
        purged=0,
    )
