"""Metrics of a binary classifier, and the `Estimate` that carries a number.

Scores are sorted once, so that each vector of weights, as a resample of a bootstrap is one, costs
O(n). Intervals, and differences between models, belong to `intervals`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlops_pipeline.errors import ConfigError, DataError, masked
from mlops_pipeline.spec.metrics import ECE_BIN_ROWS, ECE_BINS, METRICS, TOP_SHARE

Floats = NDArray[np.float64]
Selection = NDArray[np.bool_] | slice


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, or the reason why there is none.

    `value` None means not computable, never 0 or NaN; `reason` says why it is, or has no interval.
    `low` and `high` are the 95 % interval (of a comparison: at the level of its rules), `lower` and
    `upper` the one-sided 95 % bounds, by which rules judge. `by_chance` is what 95 of 100 samples
    of this size stay below where nothing is wrong: scores perfectly calibrated, groups alike.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    lower: float | None = None
    upper: float | None = None
    by_chance: float | None = None

    def __post_init__(self) -> None:
        given = (self.value, self.low, self.high, self.lower, self.upper, self.by_chance)
        numbers = [number for number in given if number is not None]
        if not np.all(np.isfinite(numbers)):
            raise DataError("An estimate must be finite", found=repr(numbers))
        if self.value is None and not self.reason:
            raise DataError("An estimate without a value needs the reason why")

    @property
    def width(self) -> float | None:
        """From the lower to the upper bound."""
        return None if self.lower is None or self.upper is None else self.upper - self.lower


Outcome = Literal["passed", "failed", "uncertain", "not computable"]
SEVERITY: tuple[Outcome, ...] = ("failed", "not computable", "uncertain", "passed")


def hold(figure: Estimate, limit: float, *, is_floor: bool, among: int = 1) -> Outcome:
    """Hold the one-sided bounds of a figure against the least, or the most, that it may be.

    `among` is of how many figures one rule says the worst outcome. It passes when all do, and each
    at 95 % is enough (Berger, Technometrics 24, 1982); it fails when one does, so that bound is
    held at 1 - 0.05 / among, by its normal quantile (Bonferroni).
    """
    if figure.value is None or figure.lower is None or figure.upper is None:
        return "not computable"
    sign = 1 if is_floor else -1
    good, bad = (figure.lower, figure.upper) if is_floor else (figure.upper, figure.lower)
    if sign * good >= sign * limit:
        return "passed"
    if among > 1:
        normal = NormalDist()
        bad = figure.value + (bad - figure.value) * (
            normal.inv_cdf(1 - 0.05 / among) / normal.inv_cdf(0.95)
        )
    return "failed" if sign * bad < sign * limit else "uncertain"


def _floats(values: ArrayLike, what: str) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} are not numbers", found=masked(str(error))) from error


def binary_labels(y: ArrayLike) -> Floats:
    """Return labels as float64 (n_rows,); DataError unless each is exactly 0 or 1."""
    labels = _floats(y, "Labels")
    if labels.ndim != 1 or not np.isin(labels, (0.0, 1.0)).all():
        found = f"shape {labels.shape}, values {np.unique(labels)[:5].tolist()}"
        expected = "one dimension of 0 and 1, none missing"
        raise DataError("Labels are not binary", expected=expected, found=found)
    return labels


def probabilities(p: ArrayLike, rows: int | None = None) -> Floats:
    """Return scores as float64; DataError unless each is in [0, 1] and there are `rows` of them."""
    scores = _floats(p, "Scores")
    if scores.ndim != 1 or not ((scores >= 0) & (scores <= 1)).all():
        expected = "one dimension of numbers in [0, 1], none missing"
        raise DataError("Scores are not probabilities", expected=expected)
    if rows is not None and len(scores) != rows:
        found = str(len(scores))
        raise DataError("Labels and scores differ in length", expected=str(rows), found=found)
    return scores


def ece_bins(scores: Floats) -> NDArray[np.intp]:
    """Return each score's bin of the calibration error: up to 15, of at least 50 rows each."""
    return equal_mass_bins(scores, min(ECE_BINS, max(1, len(scores) // ECE_BIN_ROWS)))


def equal_mass_bins(scores: Floats, bins: int) -> NDArray[np.intp]:
    """Return the bin of each score, from 0 on; equal scores share one, and none is empty."""
    if len(scores) == 0:
        return np.empty(0, dtype=np.intp)
    edges = np.unique(np.quantile(scores, np.arange(1, bins) / bins, method="higher"))
    found = np.searchsorted(edges, scores, side="right")
    return np.unique(found, return_inverse=True)[1]


def debiased_gap(gaps: Floats, errors: Floats) -> Floats:
    """Return |gap| of bins (..., n_bins) less what noise of this standard error adds to it.

    The mean of |gap + noise| is that of a folded normal; the gap found stands for the true one
    (Kumar, Liang & Ma, NeurIPS 2019, for the absolute error).
    """
    size = np.abs(gaps)
    ratio = np.divide(size, errors, out=np.full_like(size, np.inf), where=errors > 0)
    finite = np.where(np.isfinite(ratio), ratio, 0.0)
    return np.where(np.isfinite(ratio), 2 * size - errors * folded_mean(finite), size)


def folded_mean(mean: Floats) -> Floats:
    """Return the mean of |x|, x normal with this mean and variance 1."""
    from scipy.special import ndtr

    folded: Floats = np.sqrt(2 / np.pi) * np.exp(-(mean**2) / 2) + mean * (1 - 2 * ndtr(-mean))
    return folded


@dataclass(frozen=True)
class RankedScores:
    """Rows sorted by descending score, with everything that does not depend on their weights.

    `tie_ends` are the positions of the last row of each distinct score (the points of the ROC
    curve); `bin_starts` the first row of each bin of the ECE; `selected` which rows reach
    their threshold, None without one; `order` maps a ranked row to its original position.
    """

    order: NDArray[np.intp]
    y: Floats
    residuals: Floats  # y - p
    variances: Floats  # p (1 - p), of a label where the score is its probability
    log_losses: Floats
    tie_ends: NDArray[np.intp]
    bin_starts: NDArray[np.intp]
    selected: Selection | None


def rank_scores(y: ArrayLike, p: ArrayLike, threshold: ArrayLike | None = None) -> RankedScores:
    """Sort the scores once, O(n log n); each weight vector afterwards costs O(n).

    A row is selected when p >= threshold, one for all or one for each. DataError if labels are not
    0 and 1, scores not in [0, 1], any is missing, or lengths differ.
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
        variances=p_ranked * (1 - p_ranked),
        log_losses=-np.log(np.clip(likelihood, tiny, 1 - tiny)),
        tie_ends=np.append(changes, len(order) - 1),
        bin_starts=np.insert(np.flatnonzero(np.diff(bins)) + 1, 0, 0),
        selected=None if threshold is None else _selected(p_ranked, threshold, order),
    )


def _selected(p_ranked: Floats, threshold: ArrayLike, order: NDArray[np.intp]) -> Selection:
    limits = _floats(threshold, "Thresholds")
    if limits.ndim and limits.shape != p_ranked.shape:
        expected, found = f"one threshold, or {len(p_ranked)}", str(limits.shape)
        raise DataError("Thresholds and scores differ in length", expected=expected, found=found)
    reached: NDArray[np.bool_] = p_ranked >= (limits[order] if limits.ndim else limits)
    count = int(reached.sum())
    return slice(count) if reached[:count].all() else reached  # a slice is faster, and usual


@dataclass(frozen=True)
class WeightedRows:
    """Ranked rows under weights >= 0 in ranked order; what several metrics need is summed once."""

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

    @property
    def has_both_classes(self) -> bool:
        """Whether metrics that compare positive with negative rows are computable."""
        return 0 < self.positives < self.total

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
    def confusion(self) -> tuple[float, float, float, float]:
        """TP, FP, FN, TN, each summed by itself: an empty one is exactly 0; NaN as `selected`."""
        chosen = self.ranked.selected
        if chosen is None:
            return np.nan, np.nan, np.nan, np.nan
        others = slice(chosen.stop, None) if isinstance(chosen, slice) else ~chosen
        of_label = (self.positive_weights, self.weights - self.positive_weights)
        hits, false_hits = (float(weights[chosen].sum()) for weights in of_label)
        misses, rejections = (float(weights[others].sum()) for weights in of_label)
        return hits, false_hits, misses, rejections


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else np.nan


def _dot(first: Floats, second: Floats) -> float:
    # not `@`: BLAS starts threads from 10,000 rows on, which wait for each other on a busy machine
    return float(np.einsum("i,i->", first, second))


def roc_auc(rows: WeightedRows) -> float:
    """Area under the ROC curve: P(score+ > score-) + P(tie) / 2 (Hanley & McNeil 1982)."""
    if not rows.has_both_classes:
        return np.nan
    above, true_positives = rows.curve
    false_positives = above - true_positives
    steps = np.diff(false_positives, prepend=0.0)
    heights = true_positives - np.diff(true_positives, prepend=0.0) / 2
    return _dot(steps, heights) / (rows.positives * (rows.total - rows.positives))


def pr_auc(rows: WeightedRows) -> float:
    """Average precision, sum of (R_k - R_{k-1}) P_k without interpolation, as sklearn."""
    if not rows.has_both_classes:
        return np.nan  # with positives only it is 1 whatever the scores
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
    """ECE, the calibration error: sum over bins of n_b / n |mean(y) - mean(p)|, debiased, >= 0.

    Up to 15 bins of equal numbers of rows, at least 50. What noise adds to the absolute gaps is
    taken off, as in `debiased_gap`, with rows as independent.
    """
    if rows.total <= 0:
        return np.nan
    starts = rows.ranked.bin_starts
    gaps = np.add.reduceat(rows.weights * rows.ranked.residuals, starts)
    noise = np.add.reduceat(np.square(rows.weights) * rows.ranked.variances, starts)
    return max(0.0, float(debiased_gap(gaps, np.sqrt(noise)).sum()) / rows.total)


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
    if not rows.has_both_classes:
        return np.nan
    above, true_positives = rows.curve
    found = np.interp(TOP_SHARE * rows.total, np.append(0, above), np.append(0, true_positives))
    return float(found) / (TOP_SHARE * rows.positives)


def accuracy(rows: WeightedRows) -> float:
    """(TP + TN) / rows: share of decisions that are right."""
    hits, _, _, rejections = rows.confusion
    return _ratio(hits + rejections, rows.total)


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


FORMULAS: Mapping[str, Callable[[WeightedRows], float]] = {
    formula.__name__: formula
    for formula in (
        *(roc_auc, pr_auc, lift_top_decile, log_loss, brier, ece),
        *(precision, recall, f1, accuracy, balanced_accuracy, mcc, selection_rate),
    )
}


def evaluate(
    ranked: RankedScores, weights: Floats | None = None, names: Iterable[str] = tuple(METRICS)
) -> dict[str, float]:
    """Return each metric under weights >= 0 in the ORIGINAL row order; NaN: not computable."""
    ranked_weights = np.ones(len(ranked.y)) if weights is None else weights[ranked.order]
    if ranked_weights.sum() <= 0:
        return dict.fromkeys(names, np.nan)
    rows = WeightedRows(ranked, ranked_weights)
    return {name: FORMULAS[name](rows) for name in names}


def point_metrics(
    y: ArrayLike,
    p: ArrayLike,
    threshold: ArrayLike | None = None,
    *,
    metrics: Iterable[str] = tuple(METRICS),
) -> dict[str, Estimate]:
    """Return each metric as an `Estimate` without an interval."""
    names = tuple(metrics)
    unknown = sorted(set(names) - set(METRICS))
    if unknown:
        raise ConfigError("Unknown metric", expected=", ".join(METRICS), found=", ".join(unknown))
    ranked = rank_scores(y, p, threshold)
    found = {}
    for name, value in evaluate(ranked, names=names).items():
        reason = (METRICS[name].undefined if len(ranked.y) else None) or "no rows"
        if len(ranked.y) and METRICS[name].needs_threshold and threshold is None:
            reason = "no decision threshold"
        found[name] = Estimate(None, reason=reason) if np.isnan(value) else Estimate(value)
    return found
