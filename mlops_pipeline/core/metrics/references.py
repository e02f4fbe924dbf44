"""The distribution of a model's scores on rows that it had not seen, small enough to be kept."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POINTS = 1_000  # a distribution read between two of them is off by at most 0.001


@dataclass(frozen=True)
class ScoreReference:
    """Of `rows` scores, a share of `shares[i]` is at most `scores[i]`; scores rise."""

    rows: int
    scores: tuple[float, ...]
    shares: tuple[float, ...]

    def distance(self, scores: NDArray[np.float64]) -> float:
        """Return the Kolmogorov-Smirnov distance to other scores, at the points that are kept."""
        found = np.searchsorted(np.sort(scores), self.scores, side="right") / len(scores)
        return float(np.abs(found - np.array(self.shares)).max())


def score_reference(probability: NDArray[np.float64]) -> ScoreReference:
    """Return the distribution of scores: exact up to 1,000 distinct ones, else at quantiles."""
    ordered = np.sort(np.asarray(probability, dtype=np.float64))
    points = np.unique(ordered)
    if len(points) > POINTS:
        points = np.unique(np.quantile(ordered, np.linspace(0, 1, POINTS + 1), method="higher"))
    shares = np.searchsorted(ordered, points, side="right") / max(len(ordered), 1)
    return ScoreReference(len(ordered), tuple(points.tolist()), tuple(shares.tolist()))
