"""The difference of two models' ROC AUC in closed form, with rows as independent (DeLong)."""

from statistics import NormalDist

import numpy as np

from mlops_pipeline.core.metrics.metrics import Estimate, Floats
from mlops_pipeline.core.metrics.shares import Z_ONE_SIDED


def normal_interval(
    value: float, error: float, *, bounds: tuple[float, float], level: float = 0.95
) -> Estimate:
    """Return a value with the interval and bounds of a normal one with this standard error."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    half = np.array([-z, z, -Z_ONE_SIDED, Z_ONE_SIDED]) * error
    low, high, lower, upper = (float(end) for end in np.clip(value + half, *bounds))
    return Estimate(value, low, high, lower=lower, upper=upper)


def delong_difference(labels: Floats, p_a: Floats, p_b: Floats, *, level: float = 0.95) -> Estimate:
    """Return AUC(a) - AUC(b) -+ z sqrt(S10 / m + S01 / n); labels and scores are checked.

    The variances are of the differences of placements, so that the covariance of the two models is
    in it. The interval is [0, 0] when both order the rows identically.

    DeLong, DeLong & Clarke-Pearson 1988; Sun & Xu, IEEE Signal Processing Letters 21(11), 2014.
    """
    order_a, order_b = (np.unique(scores, return_inverse=True)[1] for scores in (p_a, p_b))
    if np.array_equal(order_a, order_b):
        return Estimate(0.0, 0.0, 0.0, lower=0.0, upper=0.0)
    positives_a, negatives_a = _placements(labels, p_a)
    positives_b, negatives_b = _placements(labels, p_b)
    value = float(positives_a.mean() - positives_b.mean())
    of_positives, of_negatives = positives_a - positives_b, negatives_a - negatives_b
    if min(len(of_positives), len(of_negatives)) < 2:
        return Estimate(value, reason="interval not computable: fewer than 2 rows of one class")
    variance = of_positives.var(ddof=1) / len(of_positives)
    variance += of_negatives.var(ddof=1) / len(of_negatives)
    if variance <= 1e-24:  # rounding of midranks; the smallest real variance is of order 1 / n^3
        return Estimate(value, reason="interval not computable: DeLong's variance is 0")
    return normal_interval(value, variance**0.5, bounds=(-1, 1), level=level)


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
