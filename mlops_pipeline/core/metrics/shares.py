"""Intervals of figures that decisions make: shares of rows, and what is computed from shares.

In closed form, which holds the truth also where few rows are selected or positive; a bootstrap is
too wide there, or misses on one side (docs/benchmarks.md). Figures of scores are `intervals`'.
"""

from collections.abc import Callable, Mapping
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mlops_pipeline.core.metrics.metrics import Estimate, Floats

ONE_SIDED = 0.95  # level of `lower` and `upper`
Z_ONE_SIDED, Z_TWO_SIDED = (NormalDist().inv_cdf(level) for level in (ONE_SIDED, 0.975))
NOISE_DRAWS = 4000  # the standard error of a 95 % quantile is then 1.5 % of a standard deviation
LEVELS = (0.025, 0.975, 0.05, 0.95)  # of low, high, lower and upper
STEP = 1e-4  # of the share of a cell, for a derivative
Codes = NDArray[np.intp]


def clustered_error(deviations: Floats, entities: Codes) -> float:
    """Return the standard error of a mean whose rows' deviations from it are these.

    Rows of an entity count as one draw (Liang & Zeger, Biometrika 73, 1986), with the factor
    n / (n - 1) of n entities.
    """
    sums = np.bincount(entities, weights=deviations)
    count = len(sums)
    return float(np.sqrt((sums**2).sum() * count / (count - 1))) / len(deviations)


def decision_interval(
    name: str, value: float, y: Floats, selected: NDArray[np.bool_], entities: Codes
) -> Estimate:
    """Return a figure of decisions with its interval; `entities` number the rows' from 0 on."""
    if name == "mcc":
        ends = _mcc_ends(y, selected, entities)
    elif name == "balanced_accuracy":
        (first, of_first), (second, of_second) = (
            clustered_ends(selected == is_positive, (y == 1) == is_positive, entities)
            for is_positive in (True, False)
        )
        half = np.hypot(of_first - first, of_second - second) / 2  # MOVER, Donner & Zou 2012
        ends = value + np.sign(np.array(LEVELS) - 0.5) * half
    else:
        hit, counted = SHARES[name](y == 1, selected)
        ends = clustered_ends(hit, counted, entities)[1]
        if name == "f1":  # 2 s / (1 + s) of s = TP / (TP + FP + FN)
            ends = 2 * ends / (1 + ends)
    low, high, lower, upper = (float(end) for end in ends)
    return Estimate(
        *(value, min(low, value), max(high, value)),
        lower=min(lower, value),
        upper=max(upper, value),
    )


Rows = NDArray[np.bool_]
SHARES: Mapping[str, Callable[[Rows, Rows], tuple[Rows, Rows]]] = {  # hits, and of which rows
    "precision": lambda y, selected: (y, selected),
    "recall": lambda y, selected: (selected, y),
    "f1": lambda y, selected: (y & selected, y | selected),
    "accuracy": lambda y, selected: (y == selected, np.ones_like(y)),
    "selection_rate": lambda y, selected: (selected, np.ones_like(y)),
}
OF_DECISIONS = (*SHARES, "balanced_accuracy", "mcc")


def clustered_ends(hit: Rows, counted: Rows, entities: Codes) -> tuple[float, Floats]:
    """Return a share and its ends at LEVELS.

    Those of Jeffreys, with the exact ones where every row is alike (Brown, Cai & DasGupta,
    Statistical Science 16, 2001; Cai, J. Stat. Plan. Inference 131, 2005), of so many rows as the
    interval is worth: n / design effect (cluster-robust over binomial variance), at most n, and
    less where few entities tell the effect (Korn & Graubard, Survey Methodology 24, 1998).
    """
    from scipy.special import stdtrit

    codes = np.unique(entities[counted], return_inverse=True)[1]
    rows, several = len(codes), int(codes.max()) + 1
    share = float(hit[counted].mean())
    worth = float(several)
    if 0 < share < 1 and several > 1:
        robust = clustered_error(hit[counted].astype(np.float64) - share, codes) ** 2
        effect = robust * (rows - 1) / (share * (1 - share))
        by_t = stdtrit(rows - 1, 0.95) / stdtrit(several - 1, 0.95)
        worth = rows / max(1.0, effect) * float(by_t) ** 2
    return share, share_ends(share, worth)


def share_ends(share: float, rows: float) -> Floats:
    """Return Jeffreys' ends of a share of `rows` rows at LEVELS."""
    from scipy.special import betaincinv

    levels = np.array(LEVELS)
    hits = share * rows
    ends: Floats = betaincinv(hits + 0.5, rows - hits + 0.5, levels)
    if share == 0:
        return np.where(levels < 0.5, 0.0, 1 - (1 - levels) ** (1 / rows))
    return np.where(levels > 0.5, 1.0, levels ** (1 / rows)) if share == 1 else ends


def _mcc_ends(y: Floats, selected: Rows, entities: Codes) -> Floats:
    """Return the ends of MCC at LEVELS: normal on Fisher's scale, by the delta method.

    With one row more in each cell of the confusion matrix. Rows of an entity widen it by the root
    of their design effect.
    """
    from scipy.special import ndtri

    cells = 2 * (y == 1) + selected
    counts = np.bincount(cells, minlength=4) + 1.0
    shares: Floats = counts / counts.sum()
    middle, slopes = _fisher(shares), np.empty(4)
    for cell in range(4):
        moved = shares * (1 - STEP)
        moved[cell] += STEP
        slopes[cell] = (_fisher(moved) - middle) / STEP
    error = float(np.sqrt((shares * slopes**2).sum() / len(y)))
    deviations = slopes[cells] - slopes[cells].mean()
    alone = float(deviations.std()) / len(y) ** 0.5
    effect = clustered_error(deviations, entities) / alone if alone > 0 else 1.0
    ends: Floats = np.tanh(middle + ndtri(np.array(LEVELS)) * error * max(1.0, effect))
    return ends


def _fisher(shares: Floats) -> float:
    """Return artanh of MCC, of the shares of true negatives, false positives, and so on."""
    rejections, false_hits, misses, hits = shares
    of_labels = (hits + misses) * (rejections + false_hits)
    of_decisions = (hits + false_hits) * (rejections + misses)
    value = (hits * rejections - false_hits * misses) / np.sqrt(of_labels * of_decisions)
    return float(np.arctanh(value))
