"""Weighted point metrics of a binary classifier, and the `Estimate` that carries a number.

Belongs here: the definition of each metric and of "not computable". The checks of labels and
scores and the sums that metrics share belong to `ranked_scores`; intervals and differences between
models to `intervals`; per-group numbers to `governance.fairness`; calibration to `calibration`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from mlops_pipeline.core.metrics.ranked_scores import (
    Floats,
    RankedScores,
    WeightedRows,
    rank_scores,
)
from mlops_pipeline.errors import ConfigError, DataError
from mlops_pipeline.spec.metrics import METRICS, TOP_SHARE


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, or the reason why there is none.

    `value` None means not computable, never 0 or NaN; `reason` says why it is, or why there is no
    interval. DataError if a number is not finite, or `value` is None without a reason.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        numbers = [number for number in (self.value, self.low, self.high) if number is not None]
        if not np.all(np.isfinite(numbers)):
            raise DataError("An estimate must be finite", found=repr(numbers))
        if self.value is None and not self.reason:
            raise DataError("An estimate without a value needs the reason why")


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else np.nan


def _dot(first: Floats, second: Floats) -> float:
    # not `@`: BLAS starts threads from 10,000 rows on, which wait for each other on a busy machine
    return float(np.einsum("i,i->", first, second))


def _has_both_classes(rows: WeightedRows) -> bool:
    return 0 < rows.positives < rows.total


def roc_auc(rows: WeightedRows) -> float:
    """Area under the ROC curve: P(score+ > score-) + P(tie) / 2 (Hanley & McNeil 1982)."""
    if not _has_both_classes(rows):
        return np.nan
    above, true_positives = rows.curve
    false_positives = above - true_positives
    steps = np.diff(false_positives, prepend=0.0)
    heights = true_positives - np.diff(true_positives, prepend=0.0) / 2
    return _dot(steps, heights) / (rows.positives * (rows.total - rows.positives))


def pr_auc(rows: WeightedRows) -> float:
    """Average precision, sum of (R_k - R_{k-1}) P_k without interpolation, as sklearn.

    Needs both classes: with positives only it is 1 whatever the scores.
    """
    if not _has_both_classes(rows):
        return np.nan
    above, true_positives = rows.curve
    precisions = np.divide(true_positives, above, out=np.zeros_like(above), where=above > 0)
    return _dot(np.diff(true_positives, prepend=0.0), precisions) / rows.positives


def log_loss(rows: WeightedRows) -> float:
    """Mean of -log(probability of the label), in nats; scores clipped at 2.2e-16 as sklearn."""
    return _ratio(_dot(rows.weights, rows.ranked.log_losses), rows.total)


def brier(rows: WeightedRows) -> float:
    """Mean of (p - y)^2 (Brier 1950); 0 is perfect."""
    return _ratio(_dot(rows.weights, np.square(rows.ranked.residuals)), rows.total)


def ece(rows: WeightedRows) -> float:
    """ECE, the calibration error: sum over bins of n_b / n |mean(y) - mean(p)|.

    15 bins of equal width, (m/15, (m+1)/15] (Naeini et al. 2015; Guo et al. 2017). It is biased
    upwards in small samples: a perfectly calibrated model does not reach 0.
    """
    if rows.total <= 0:
        return np.nan
    gaps = np.add.reduceat(rows.weights * rows.ranked.residuals, rows.ranked.bin_starts)
    return float(np.abs(gaps).sum()) / rows.total


def precision(rows: WeightedRows) -> float:
    """TP / (TP + FP): share of selected rows that are positive."""
    selected, true_positives = rows.selected
    return _ratio(true_positives, selected)


def recall(rows: WeightedRows) -> float:
    """TP / (TP + FN): share of positive rows that are selected."""
    return _ratio(rows.selected[1], rows.positives)


def f1(rows: WeightedRows) -> float:
    """2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall."""
    selected, true_positives = rows.selected
    return _ratio(2 * true_positives, selected + rows.positives)


def selection_rate(rows: WeightedRows) -> float:
    """Share of rows with p >= threshold."""
    return _ratio(rows.selected[0], rows.total)


def lift_top_decile(rows: WeightedRows) -> float:
    """Rate of positives among the 10 % of rows with the highest scores, over that of all rows.

    Of rows with equal scores, of which only some are within the 10 %, each counts in part: the
    mean over all ways to pick them.
    """
    if not _has_both_classes(rows):
        return np.nan
    above, true_positives = rows.curve
    found = np.interp(TOP_SHARE * rows.total, np.append(0, above), np.append(0, true_positives))
    return float(found) / (TOP_SHARE * rows.positives)


def accuracy(rows: WeightedRows) -> float:
    """(TP + TN) / rows: share of decisions that are right."""
    return _ratio(rows.confusion.true_positives + rows.confusion.true_negatives, rows.total)


def balanced_accuracy(rows: WeightedRows) -> float:
    """(TPR + TNR) / 2, with both classes (Brodersen et al. 2010)."""
    hits, false_hits, misses, rejections = rows.confusion
    return (_ratio(hits, hits + misses) + _ratio(rejections, rejections + false_hits)) / 2


def mcc(rows: WeightedRows) -> float:
    """Matthews' correlation of labels and decisions, the phi coefficient (Matthews 1975)."""
    hits, false_hits, misses, rejections = rows.confusion
    of_labels = (hits + misses) * (rejections + false_hits)
    of_decisions = (hits + false_hits) * (rejections + misses)
    return _ratio(hits * rejections - false_hits * misses, (of_labels * of_decisions) ** 0.5)


FORMULAS: Mapping[str, Callable[[WeightedRows], float]] = MappingProxyType(
    {
        formula.__name__: formula
        for formula in (
            *(roc_auc, pr_auc, lift_top_decile, log_loss, brier, ece),
            *(precision, recall, f1, accuracy, balanced_accuracy, mcc, selection_rate),
        )
    }
)


def evaluate(
    ranked: RankedScores, weights: Floats | None = None, names: Iterable[str] = tuple(METRICS)
) -> dict[str, float]:
    """Return each metric under one weight vector; NaN means not computable.

    `weights` (>= 0) are in the ORIGINAL row order and not checked: this is the inner loop.
    """
    ranked_weights = np.ones(len(ranked.y)) if weights is None else weights[ranked.order]
    if ranked_weights.sum() <= 0:
        return dict.fromkeys(names, np.nan)
    rows = WeightedRows(ranked, ranked_weights)
    return {name: FORMULAS[name](rows) for name in names}


def why_not_computable(ranked: RankedScores, name: str, total_weight: float) -> str:
    """Say why `evaluate` gave NaN for a metric, for `Estimate.reason`."""
    if total_weight <= 0:
        return "no rows"
    if METRICS[name].needs_threshold and ranked.selected is None:
        return "no decision threshold"
    return METRICS[name].undefined or "no rows"


def known_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names as a tuple; ConfigError if one is not in `METRICS`."""
    wanted = tuple(names)
    unknown = sorted(set(wanted) - set(METRICS))
    if unknown:
        raise ConfigError("Unknown metric", expected=", ".join(METRICS), found=", ".join(unknown))
    return wanted


def point_metrics(
    y: ArrayLike,
    p: ArrayLike,
    threshold: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    metrics: Iterable[str] = tuple(METRICS),
) -> dict[str, Estimate]:
    """Return each metric as an `Estimate` without an interval.

    A row of weight 2 counts as two rows, of weight 0 as absent. ConfigError if a metric is unknown,
    DataError if labels, scores or weights cannot be used.
    """
    names = known_metrics(metrics)
    ranked = rank_scores(y, p, threshold)
    row_weights = None if weights is None else np.asarray(weights, dtype=np.float64)
    if row_weights is not None and (
        row_weights.shape != ranked.y.shape
        or not (np.isfinite(row_weights) & (row_weights >= 0)).all()
    ):
        raise DataError("Weights are wrong", expected=f"{len(ranked.y)} finite numbers >= 0")
    total = float(len(ranked.y) if row_weights is None else row_weights.sum())
    return {
        name: Estimate(None, reason=why_not_computable(ranked, name, total))
        if np.isnan(value)
        else Estimate(value)
        for name, value in evaluate(ranked, row_weights, names).items()
    }
