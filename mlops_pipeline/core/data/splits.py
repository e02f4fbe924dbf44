"""Dividing labelled rows into train, validation and test parts: on whole periods, purged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.modelling import Split
from mlops_pipeline.config.tables import Grid
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.data.periods import step_of
from mlops_pipeline.errors import SplitError

Indices = npt.NDArray[np.int64]
PARTS = ("train", "validation", "test")


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


def split_rows(
    split: Split,
    grid: Grid,
    *,
    as_of: npt.NDArray[np.datetime64],
    known_at: npt.NDArray[np.datetime64],
    entity: npt.NDArray[Any],
    label: npt.NDArray[np.int8],
    seed: int,
) -> Parts:
    """Divide rows by time (whole periods, one label horizon purged) or at random by entity.

    A row belongs to a part only if its label was known when the next part starts; what is purged
    comes off the end of the earlier part. A part that is empty or has one class is a SplitError.
    """
    if split.method == "random":
        parts = _random(split, entity, seed)
    else:
        parts = _by_time(split, _period_of(grid, as_of), known_at)
    _check(parts, label)
    return parts


def split_frame(use_case: UseCase, frame: LabelledFrame) -> Parts:
    """Divide a use case's labelled rows: the same frame, the same parts. See split_rows."""
    return split_rows(
        use_case.split,
        use_case.grid,
        as_of=frame.as_of,
        known_at=frame.known_at,
        entity=frame.entity,
        label=frame.label,
        seed=use_case.training.seed,
    )


def _period_of(grid: Grid, as_of: npt.NDArray[np.datetime64]) -> npt.NDArray[np.datetime64]:
    if grid.every != "event":
        return as_of.astype("datetime64[D]")
    step = step_of(grid)
    if step == "month":
        return as_of.astype("datetime64[M]").astype("datetime64[D]")
    days = as_of.astype("datetime64[D]")
    if step == "week":
        since_monday = (days.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
        mondays: npt.NDArray[np.datetime64] = days - since_monday.astype("timedelta64[D]")
        return mondays
    return days


def _by_time(
    split: Split, period: npt.NDArray[np.datetime64], known_at: npt.NDArray[np.datetime64]
) -> Parts:
    names = np.unique(period)
    count = len(names)
    test_count = max(1, round(split.test * count)) if split.test else 0
    validation_count = max(1, round(split.validation * count))
    train_count = count - test_count - validation_count
    if train_count < 1 or test_count < 1:
        raise SplitError(
            "there are too few labelled periods for three parts",
            expected="at least 3",
            found=f"{count}: {', '.join(map(str, names))}",
            way_out="run at a later as_of, or start the grid earlier",
        )
    validation_start, test_start = names[train_count], names[train_count + validation_count]
    train = (period < validation_start) & (known_at <= validation_start)
    validation = (period >= validation_start) & (period < test_start) & (known_at <= test_start)
    test = period >= test_start
    chosen = {"train": train, "validation": validation, "test": test}
    for name, mask in chosen.items():
        if not mask.any():
            raise SplitError(
                f"the {name} part is empty after purging rows whose label was not yet known",
                where=f"train before {validation_start}, validation {validation_start} to "
                f"{test_start}, test from {test_start}",
                expected="labels known before the next part starts",
                found=f"the first label of the part is known at "
                f"{known_at[_window(name, period, validation_start, test_start)].min()}",
                way_out="more periods, a shorter horizon, or other split fractions",
            )
    return Parts(
        train=np.flatnonzero(train),
        validation=np.flatnonzero(validation),
        test=np.flatnonzero(test),
        periods={
            name: tuple(str(item) for item in np.unique(period[mask]))
            for name, mask in chosen.items()
        },
        purged=len(period) - int(train.sum() + validation.sum() + test.sum()),
    )


def _window(
    name: str, period: npt.NDArray[np.datetime64], second: np.datetime64, third: np.datetime64
) -> npt.NDArray[np.bool_]:
    if name == "train":
        return period < second
    return (period >= second) & (period < third) if name == "validation" else period >= third


def _random(split: Split, entity: npt.NDArray[Any], seed: int) -> Parts:
    names, codes = np.unique(entity, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    place = np.empty(len(names))
    place[order] = (np.arange(len(names)) + 0.5) / len(names)
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


def _check(parts: Parts, label: npt.NDArray[np.int8]) -> None:
    for name in PARTS:
        rows: Indices = getattr(parts, name)
        if len(rows) == 0:
            raise SplitError(
                f"the {name} part is empty",
                where=f"periods {', '.join(parts.periods[name])}",
                expected="at least one labelled row",
                found=f"no row; {parts.rows()}",
                way_out="more data, or other split fractions",
            )
        classes = np.unique(label[rows])
        if len(classes) < 2:
            raise SplitError(
                f"the {name} part has a single class",
                where=f"periods {', '.join(parts.periods[name])}",
                expected="labels 0 and 1",
                found=f"only {classes[0]} in {len(rows)} rows",
                way_out="check the label rule (label.where, label.positive) and the horizon",
            )
