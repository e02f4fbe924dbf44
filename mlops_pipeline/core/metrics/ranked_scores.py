"""Labels and scores checked and sorted once, so that any weight vector is evaluated in O(n).

Belongs here: the checks of labels and scores, the ranking, and the weighted sums that several
metrics share. A bootstrap replicate is a weight vector. The metrics belong to `metrics`,
resampling to `intervals`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlops_pipeline.errors import DataError, masked
from mlops_pipeline.spec.metrics import ECE_BINS

Floats = NDArray[np.float64]


def _floats(values: ArrayLike, what: str) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} are not numbers", found=masked(str(error))) from error


def binary_labels(y: ArrayLike) -> Floats:
    """Return labels as float64 of shape (n_samples,); DataError unless each is exactly 0 or 1."""
    labels = _floats(y, "Labels")
    if labels.ndim != 1 or not np.isin(labels, (0.0, 1.0)).all():
        found = f"shape {labels.shape}, values {np.unique(labels)[:5].tolist()}"
        raise DataError(
            "Labels are not binary", expected="one dimension of 0 and 1, none missing", found=found
        )
    return labels


def probabilities(p: ArrayLike, rows: int | None = None) -> Floats:
    """Return scores as float64; DataError unless each is in [0, 1] and there are `rows` of them."""
    scores = _floats(p, "Scores")
    if scores.ndim != 1 or not ((scores >= 0) & (scores <= 1)).all():
        expected = "one dimension of numbers in [0, 1], none missing"
        raise DataError("Scores are not probabilities", expected=expected)
    if rows is not None and len(scores) != rows:
        raise DataError(
            "Labels and scores differ in length", expected=f"{rows} scores", found=str(len(scores))
        )
    return scores


def ece_bins(scores: Floats) -> NDArray[np.intp]:
    """Return the calibration bin of each score, 0 to 14: bin m is (m/15, (m+1)/15]."""
    return np.searchsorted(np.linspace(0, 1, ECE_BINS + 1)[1:-1], scores, side="left")


@dataclass(frozen=True)
class RankedScores:
    """Rows sorted by descending score, with everything that does not depend on their weights.

    `tie_ends` are the positions of the last row of each distinct score (the points of the ROC
    curve); `bin_starts` the first row of each non-empty ECE bin; `selected` which rows reach
    their threshold, None without one; `order` maps a ranked row to its original position.
    """

    order: NDArray[np.intp]
    y: Floats
    residuals: Floats  # y - p
    log_losses: Floats
    tie_ends: NDArray[np.intp]
    bin_starts: NDArray[np.intp]
    selected: NDArray[np.bool_] | slice | None


def rank_scores(y: ArrayLike, p: ArrayLike, threshold: ArrayLike | None = None) -> RankedScores:
    """Sort the scores once, O(n log n); each weight vector afterwards costs O(n).

    A row is selected when p >= threshold, one for all or one for each; without it, metrics of
    decisions are not computable. DataError if labels are not 0 and 1, scores not in [0, 1], any is
    missing, or lengths differ.
    """
    labels = binary_labels(y)
    scores = probabilities(p, len(labels))
    order = np.argsort(-scores, kind="stable")
    y_ranked, p_ranked = labels[order], scores[order]
    tiny = np.finfo(np.float64).eps  # the clipping of sklearn.metrics.log_loss
    likelihood = np.where(y_ranked == 1, p_ranked, 1 - p_ranked)
    bins = ece_bins(p_ranked)
    changes = np.flatnonzero(np.diff(p_ranked))
    return RankedScores(
        order=order,
        y=y_ranked,
        residuals=y_ranked - p_ranked,
        log_losses=-np.log(np.clip(likelihood, tiny, 1 - tiny)),
        tie_ends=np.append(changes, len(order) - 1),
        bin_starts=np.insert(np.flatnonzero(np.diff(bins)) + 1, 0, 0),
        selected=None if threshold is None else _selected(p_ranked, threshold, order),
    )


def _selected(
    p_ranked: Floats, threshold: ArrayLike, order: NDArray[np.intp]
) -> NDArray[np.bool_] | slice:
    limits = _floats(threshold, "Thresholds")
    if limits.ndim and limits.shape != p_ranked.shape:
        raise DataError(
            "Thresholds and scores differ in length",
            expected=f"one threshold, or {len(p_ranked)}",
            found=str(limits.shape),
        )
    reached: NDArray[np.bool_] = p_ranked >= (limits[order] if limits.ndim else limits)
    count = int(reached.sum())
    return slice(count) if reached[:count].all() else reached  # a slice is faster, and usual


class Confusion(NamedTuple):
    """Weights of the rows by decision and label; NaN without a threshold."""

    true_positives: float
    false_positives: float
    false_negatives: float
    true_negatives: float


@dataclass(frozen=True)
class WeightedRows:
    """Ranked rows under one weight vector; sums that several metrics need are computed once.

    `weights` are finite and >= 0, shape (n_samples,), in ranked order (`weights[ranked.order]`).
    """

    ranked: RankedScores
    weights: Floats

    @cached_property
    def total(self) -> float:
        """Sum of the weights."""
        return float(self.weights.sum())

    @cached_property
    def positive_weights(self) -> Floats:
        """Weight of each row that is positive, else 0."""
        return self.weights * self.ranked.y

    @cached_property
    def positives(self) -> float:
        """Weight of the positive rows."""
        return float(self.positive_weights.sum())

    @cached_property
    def curve(self) -> tuple[Floats, Floats]:
        """Weight of all rows and of positive rows at or above each distinct score."""
        ends = self.ranked.tie_ends
        return np.cumsum(self.weights)[ends], np.cumsum(self.positive_weights)[ends]

    @cached_property
    def selected(self) -> tuple[float, float]:
        """Weight of the selected rows and of the true positives; NaN without a threshold."""
        chosen = self.ranked.selected
        if chosen is None:
            return np.nan, np.nan
        return float(self.weights[chosen].sum()), float(self.positive_weights[chosen].sum())

    @cached_property
    def confusion(self) -> Confusion:
        """Each cell summed by itself, so that an empty one is exactly 0."""
        chosen = self.ranked.selected
        if chosen is None:
            return Confusion(*[np.nan] * 4)
        others = slice(chosen.stop, None) if isinstance(chosen, slice) else ~chosen
        by_label = self.positive_weights, self.weights - self.positive_weights
        cells = (cell[rows] for rows in (chosen, others) for cell in by_label)
        return Confusion(*(float(cell.sum()) for cell in cells))
