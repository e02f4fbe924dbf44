"""Declared directions held against a model: where the score should rise, does it.

The dependence is the accumulated local effect (Apley & Zhu 2020, J. R. Stat. Soc. B 82): the range
of a feature is cut at its quantiles, and within each interval the rows that lie in it are scored
at its two ends, everything else unchanged. Their mean difference is the *move* of that interval, in
log-odds before calibration. Unlike partial dependence it scores no row far from where it is, so
correlated features (a count of 28 and of 84 days) are not put together in ways that never happen.

Violation = moves against the declared direction / all moves, in absolute size: 0 is monotone as
declared, 1 is all against it, above 0.5 the score ends up on the wrong side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.features import Direction
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.spec.gates import DirectionRule

INTERVALS = 20  # of equal numbers of rows; fewer where values repeat
FLAT = 0.05  # all moves together, in log-odds: below, the odds change by less than about 5 %

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DirectionCheck:
    """One declared direction and what the model does.

    `found` is the net direction, or flat; None with a reason: not computable.
    """

    feature: str
    expected: Direction
    found: str | None
    violation: float | None
    passed: bool | None
    reason: str | None


def check_directions(
    use_case: UseCase, model: ScoringModel, columns: Mapping[str, npt.NDArray[Any]]
) -> tuple[DirectionCheck, ...]:
    """Hold every declared direction against a model's dependence on rows it was not fitted on.

    `passed` goes by the strictest `expected_directions` rule, or that rule's default.
    """
    limits = [rule.at_most for rule in use_case.gates if isinstance(rule, DirectionRule)]
    limit = min(limits, default=DirectionRule(rule="expected_directions").at_most)
    matrix = model.encode(columns)
    return tuple(
        _check(feature, expected, model, matrix, limit)
        for feature, expected in use_case.directions.items()
    )


def local_moves(model: ScoringModel, matrix: Matrix, index: int) -> Floats:
    """Return the mean change of the log-odds in each interval of an input, lowest first.

    Rows that lack the input are left out. Empty: fewer than two different values.
    """
    rows = matrix[~np.isnan(matrix[:, index])]
    values = rows[:, index]
    if len(values) == 0:
        return np.empty(0)
    steps = np.linspace(0, 1, INTERVALS + 1)
    edges = np.unique(np.quantile(values, steps, method="inverted_cdf"))
    if len(edges) < 2:
        return np.empty(0)
    interval = np.clip(np.searchsorted(edges, values), 1, len(edges) - 1) - 1
    ends = []
    for end in (edges[interval], edges[interval + 1]):
        moved = rows.copy(order="F")
        moved[:, index] = end
        ends.append(model.log_odds(moved))
    total = np.bincount(interval, weights=ends[1] - ends[0])
    return np.asarray(total / np.bincount(interval), dtype=np.float64)


def _check(
    feature: str, expected: Direction, model: ScoringModel, matrix: Matrix, limit: float
) -> DirectionCheck:
    if feature not in model.input_names:
        return DirectionCheck(feature, expected, "flat", 0.0, True, "no input of this model")
    moves = local_moves(model, matrix, model.input_names.index(feature))
    if len(moves) == 0:
        reason = "fewer than two different values among the rows"
        return DirectionCheck(feature, expected, None, None, None, reason)
    total = float(np.abs(moves).sum())
    if total < FLAT:
        reason = f"flat: the log-odds move by {total:.4f} in all"
        return DirectionCheck(feature, expected, "flat", 0.0, True, reason)
    against = np.clip(-moves if expected == "increasing" else moves, 0, None)
    violation = float(against.sum()) / total
    found = "increasing" if moves.sum() > 0 else "decreasing"
    return DirectionCheck(feature, expected, found, violation, violation <= limit, None)
