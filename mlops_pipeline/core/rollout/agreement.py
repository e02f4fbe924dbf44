"""How much two versions agree on the same requests, and what each expects of itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlops_pipeline.core.rollout.evidence import Pairs


@dataclass(frozen=True)
class Flips:
    """Of `rows` requests of a group, how many were decided otherwise, and to yes."""

    rows: int
    changed: int
    to_positive: int


@dataclass(frozen=True)
class Expected:
    """What calibrated scores say of themselves; None where it is not computable."""

    roc_auc: float | None
    brier: float | None


@dataclass(frozen=True)
class Agreement:
    """Figures of all requests that both scored; None where there is none.

    `same` is the share of equal decisions, `difference` the mean of the new score less the old,
    `distance` that of its size; `flips` are by column and group. What is expected is as true as the
    scores are calibrated: it is shown, and judged by nothing.
    """

    rows: int
    same: float | None
    difference: float | None
    distance: float | None
    flips: Mapping[str, Mapping[str, Flips]]
    champion: Expected
    challenger: Expected


def agreement(pairs: Pairs, slices: Mapping[str, NDArray[np.object_]], min_rows: int) -> Agreement:
    """Compare two versions row by row; groups of fewer than `min_rows` requests are left out."""
    old, new = pairs.champion, pairs.challenger
    scored = ~np.isnan(old.probability) & ~np.isnan(new.probability)
    change = (new.probability - old.probability)[scored]
    flipped = old.decision != new.decision
    flips = {
        name: {
            str(group): _flips(flipped[rows], new.decision[rows])
            for group in sorted({one for one in values if one is not None}, key=str)
            if (rows := values == group).sum() >= min_rows
        }
        for name, values in slices.items()
    }
    return Agreement(
        rows=int(scored.sum()),
        same=_mean(~flipped),
        difference=_mean(change),
        distance=_mean(np.abs(change)),
        flips=flips,
        champion=expected(old.probability[scored]),
        challenger=expected(new.probability[scored]),
    )


def expected(probability: NDArray[np.float64]) -> Expected:
    """Return AUC and Brier score if each row is positive with the probability of its score.

    Without labels. The AUC is the ratio of the expected numbers of ordered pairs and of pairs
    of a positive and a negative row, ties half. Confidence-based performance estimation: Bialek et
    al., arXiv 2401.08348, 2024.
    """
    if not len(probability):
        return Expected(None, None)
    variance = probability * (1 - probability)
    _, group = np.unique(probability, return_inverse=True)
    positive, negative = np.bincount(group, probability), np.bincount(group, 1 - probability)
    below = np.cumsum(negative) - negative / 2
    pairs = positive.sum() * negative.sum() - variance.sum()  # no row is a pair with itself
    ordered = (positive * below).sum() - variance.sum() / 2
    return Expected(float(ordered / pairs) if pairs > 0 else None, float(variance.mean()))


def _flips(flipped: NDArray[np.bool_], decision: NDArray[np.bool_]) -> Flips:
    return Flips(len(flipped), int(flipped.sum()), int((flipped & decision).sum()))


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None
