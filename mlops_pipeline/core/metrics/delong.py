"""DeLong's interval for one ROC AUC, and for the difference of two on the same rows.

Belongs here: the closed form, exact in its variance and without resampling. It treats rows as
independent: with several rows per entity use `intervals.paired_difference`, which resamples
entities.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.core.metrics.ranked_scores import Floats, binary_labels, probabilities
from mlops_pipeline.errors import ConfigError


def normal_quantile(level: float) -> float:
    """Return z with P(-z < N(0, 1) < z) = level; ConfigError unless 0 < level < 1."""
    if not 0 < level < 1:
        raise ConfigError("The level of an interval is wrong", expected="0..1", found=str(level))
    return NormalDist().inv_cdf((1 + level) / 2)


def _placements(labels: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Return the share of negatives below each positive, and of positives above each negative.

    A tie counts half. From midranks in O(n log n) (Sun & Xu 2014, eq. 5): the rank of a positive
    among all rows less its rank among positives is the number of negatives below it.
    """
    from scipy.stats import rankdata

    positive = labels == 1
    ranks: Floats = rankdata(scores)
    within_positives: Floats = rankdata(scores[positive])
    within_negatives: Floats = rankdata(scores[~positive])
    return (
        (ranks[positive] - within_positives) / len(within_negatives),
        1 - (ranks[~positive] - within_negatives) / len(within_positives),
    )


def _interval(
    value: float, of_positives: Floats, of_negatives: Floats, bounds: tuple[float, float], z: float
) -> Estimate:
    if min(len(of_positives), len(of_negatives)) < 2:
        return Estimate(value, reason="interval not computable: fewer than 2 rows of one class")
    variance = of_positives.var(ddof=1) / len(of_positives)
    variance += of_negatives.var(ddof=1) / len(of_negatives)
    if variance <= 1e-24:  # rounding of midranks; the smallest real variance is of order 1 / n^3
        return Estimate(value, reason="interval not computable: DeLong's variance is 0")
    low, high = np.clip([value - z * variance**0.5, value + z * variance**0.5], *bounds)
    return Estimate(value, float(low), float(high))


def _checked(y: ArrayLike, *scores: ArrayLike) -> tuple[Floats, list[Floats], str | None]:
    labels = binary_labels(y)
    checked = [probabilities(one, len(labels)) for one in scores]
    if len(labels) == 0:
        return labels, checked, "no rows"
    return labels, checked, "one class only" if len(np.unique(labels)) == 1 else None


def delong_auc(y: ArrayLike, p: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Return the ROC AUC with DeLong's interval, AUC -+ z sqrt(S10 / m + S01 / n), within [0, 1].

    Not computable with one class. Without an interval when a class has one row, or when the
    variance is 0: perfect separation says nothing about how far from 1 the AUC may be.

    DeLong, DeLong & Clarke-Pearson 1988; Sun & Xu, IEEE Signal Processing Letters 21(11), 2014.
    """
    z = normal_quantile(level)
    labels, (scores,), reason = _checked(y, p)
    if reason:
        return Estimate(None, reason=reason)
    of_positives, of_negatives = _placements(labels, scores)
    return _interval(float(of_positives.mean()), of_positives, of_negatives, (0, 1), z)


def delong_difference(
    y: ArrayLike, p_a: ArrayLike, p_b: ArrayLike, *, level: float = 0.95
) -> Estimate:
    """Return AUC(a) - AUC(b) on the same rows with DeLong's interval; above 0, a ranks better.

    The variance is that of the differences of placements, so the covariance of the two models is
    in it. When both order the rows identically, the difference is 0 with the interval [0, 0].
    """
    z = normal_quantile(level)
    labels, (scores_a, scores_b), reason = _checked(y, p_a, p_b)
    if reason:
        return Estimate(None, reason=reason)
    if np.array_equal(_dense_ranks(scores_a), _dense_ranks(scores_b)):
        return Estimate(0.0, 0.0, 0.0)
    positives_a, negatives_a = _placements(labels, scores_a)
    positives_b, negatives_b = _placements(labels, scores_b)
    value = float(positives_a.mean() - positives_b.mean())
    return _interval(value, positives_a - positives_b, negatives_a - negatives_b, (-1, 1), z)


def _dense_ranks(scores: Floats) -> NDArray[np.intp]:
    ranks: NDArray[np.intp] = np.unique(scores, return_inverse=True)[1]
    return ranks
