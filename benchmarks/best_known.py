"""Widths of the best known interval of each figure that `statistics` simulates.

Closed forms of the literature, made robust against clusters, from the lower to the upper one-sided
95 % bound. Where there is none, the figure's own spread stands for it: from the 5 % to the 95 %
quantile of the simulated figures, which nobody knows who has one sample.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import chndtr, expit, logit
from scipy.stats import rankdata

from mlops_pipeline.core.metrics.metrics import ece_bins
from mlops_pipeline.core.metrics.shares import SHARES, clustered_error

Floats = NDArray[np.float64]
Z = 1.6448536269514722
METHODS = {
    "roc_auc": "DeLong, logit scale",
    "difference of roc_auc": "DeLong",
    "difference of brier": "normal",
    "log_loss": "normal",
    "brier": "normal",
    **dict.fromkeys(SHARES, "Wilson"),
    "balanced_accuracy": "MOVER of Wilson's",
    "mcc": "Fisher's z",
    "ece": "noncentral chi-square of the bins",
}
OWN_SPREAD = "its own spread"
OF_PAIR = "of the pair that truly differs"


def score_widths(
    y: Floats, score: Floats, other: Floats, entity: NDArray[np.intp]
) -> dict[str, float]:
    """Return the widths for figures of scores, and for the differences of two models."""
    parts = [_auc_parts(y, each) for each in (score, other)]
    area = 0.5 + _mean_auc(y, score)
    error = clustered_error(parts[0], entity) / (area * (1 - area))
    ends = expit(logit(area) + np.array([-Z, Z]) * error)
    briers = [(y - each) ** 2 for each in (score, other)]
    losses = -np.log(np.where(y == 1, score, 1 - score))
    means = {"brier": briers[0], "log_loss": losses, "difference of brier": briers[0] - briers[1]}
    return {
        "roc_auc": float(ends[1] - ends[0]),
        "difference of roc_auc": 2 * Z * clustered_error(parts[0] - parts[1], entity),
        **{
            name: 2 * Z * clustered_error(rows - rows.mean(), entity)
            for name, rows in means.items()
        },
    }


def _mean_auc(y: Floats, score: Floats) -> float:
    ranks, positives = rankdata(score), y.sum()
    area = (
        (ranks[y == 1].sum() - positives * (positives + 1) / 2) / positives / (len(y) - positives)
    )
    return float(area) - 0.5


def _auc_parts(y: Floats, score: Floats) -> Floats:
    """Return what each row moves the AUC by (Obuchowski, Biometrics 53, 1997)."""
    positive = y == 1
    ranks, count = rankdata(score), len(y)
    parts = np.empty(count)
    of_positives = (ranks[positive] - rankdata(score[positive])) / (~positive).sum()
    of_negatives = 1 - (ranks[~positive] - rankdata(score[~positive])) / positive.sum()
    parts[positive] = (of_positives - of_positives.mean()) * count / positive.sum()
    parts[~positive] = (of_negatives - of_negatives.mean()) * count / (~positive).sum()
    return parts


def wilson(share: float, rows: float) -> Floats:
    """Return Wilson's one-sided bounds (1927)."""
    weight = Z**2 / rows
    half = np.sqrt(share * (1 - share) * weight + weight**2 / 4) / (1 + weight)
    return (share + weight / 2) / (1 + weight) + np.array([-half, half])


def _share(
    hit: NDArray[np.bool_], counted: NDArray[np.bool_], entity: NDArray[np.intp]
) -> tuple[float, Floats]:
    share, codes = float(hit[counted].mean()), np.unique(entity[counted], return_inverse=True)[1]
    rows = float(len(codes))
    if 1 < codes.max() + 1 < rows and 0 < share < 1:
        rows = share * (1 - share) / clustered_error(hit[counted] - share, codes) ** 2
    return share, wilson(share, rows)


def decision_widths(
    y: Floats, selected: NDArray[np.bool_], entity: NDArray[np.intp]
) -> dict[str, float]:
    """Return the widths for figures of decisions; of MCC without one where a cell is empty."""
    is_positive, found = y == 1, {}
    for name, counts in SHARES.items():
        hit, counted = counts(is_positive, selected)
        if counted.any():
            low, high = _share(hit, counted, entity)[1]
            found[name] = 2 * (high / (1 + high) - low / (1 + low)) if name == "f1" else high - low
    (tpr, of_tpr), (fpr, of_fpr) = (
        _share(selected, is_positive == side, entity) for side in (True, False)
    )
    below = np.hypot(of_tpr[0] - tpr, of_fpr[1] - fpr)
    above = np.hypot(of_tpr[1] - tpr, of_fpr[0] - fpr)
    found["balanced_accuracy"] = (below + above) / 2
    cells = 2 * is_positive + selected
    counts = np.bincount(cells, minlength=4) / len(y)
    if (counts > 0).all():
        slopes = np.array([_slope(counts, cell) for cell in range(4)])[cells]
        error, middle = clustered_error(slopes - slopes.mean(), entity), _fisher(counts)
        found["mcc"] = np.tanh(middle + Z * error) - np.tanh(middle - Z * error)
    return {name: float(width) for name, width in found.items()}


def _fisher(shares: Floats) -> float:
    rejections, false_hits, misses, hits = shares
    labels = (hits + misses) * (rejections + false_hits)
    return float(
        np.arctanh(
            (hits * rejections - false_hits * misses)
            / np.sqrt(labels * (hits + false_hits) * (rejections + misses))
        )
    )


def _slope(shares: Floats, cell: int, step: float = 1e-5) -> float:
    moved = shares * (1 - step)
    moved[cell] += step
    return (_fisher(moved) - _fisher(shares)) / step


def ece_width(y: Floats, score: Floats, entity: NDArray[np.intp]) -> float:
    """Return the width for the root mean square of the bins' gaps, at least their mean.

    As Sun, Chaudhuri et al. (ICLR 2024) have it of the squared error, by the noncentral chi-square
    of the bins' gaps over their errors; rows of an entity widen it by their design effect.
    """
    bins, residuals = ece_bins(score), y - score
    count = int(bins.max()) + 1
    rows = np.bincount(bins)
    errors = np.sqrt(np.bincount(bins, weights=score * (1 - score))) / rows
    of_all = clustered_error(residuals - residuals.mean(), entity)
    errors *= max(1.0, of_all / float(np.sqrt((score * (1 - score)).sum()) / len(y)))
    statistic = float(((np.bincount(bins, weights=residuals) / rows / errors) ** 2).sum())
    low, high = (_noncentrality(statistic, count, level) for level in (0.95, 0.05))
    return float(np.sqrt((errors**2).mean() / count) * (high**0.5 - low**0.5))


def _noncentrality(statistic: float, degrees: int, level: float) -> float:
    if chndtr(statistic, degrees, 0.0) < level:
        return 0.0
    return float(brentq(lambda nc: chndtr(statistic, degrees, nc) - level, 0.0, 4 * statistic + 50))


def disparity_widths(rates: Mapping[str, tuple[Floats, Floats]]) -> dict[str, float]:
    """Return the widths for the pair of groups that truly differs most, as if it were known.

    `rates` has two groups' rates and the rows that they are worth, of `selection_rate` and `tpr`.
    Newcombe's (Statistics in Medicine 17, 1998) of a difference, Katz's (1978) of a ratio.
    """
    found = {}
    for name, pair in rates.items():
        order = np.argsort(pair[0])
        share, rows = (each[order] for each in pair)
        low, high = np.array([wilson(*each) for each in zip(share, rows, strict=True)]).T
        gap = share[1] - share[0]
        below = np.hypot(share[1] - low[1], high[0] - share[0])
        above = np.hypot(high[1] - share[1], share[0] - low[0])
        found[name] = float(min(1, gap + above) - max(0, gap - below))
        if name == "selection_rate" and (share > 0).all():
            error = float(np.sqrt(((1 - share) / share / rows).sum()))
            ratio = share[0] / share[1]
            found["ratio"] = float(
                min(1, ratio * np.exp(Z * error)) - min(1, ratio * np.exp(-Z * error))
            )
    return found
