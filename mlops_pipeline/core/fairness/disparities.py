"""Shares of groups, and the disparities between them, with bounds that hold the truth.

The counts that they are made of are audit.py's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mlops_pipeline.core.metrics.metrics import Floats
from mlops_pipeline.core.metrics.shares import NOISE_DRAWS, ONE_SIDED

DISPARITIES = {  # the rates that each is made of
    "demographic_parity_difference": ("selection_rate",),
    "demographic_parity_ratio": ("selection_rate",),
    "equalized_odds_difference": ("tpr", "fpr"),
    "equal_opportunity_difference": ("tpr",),
}


@dataclass(frozen=True)
class Share:
    """One rate of some groups: values, the rows that its interval is worth, entities behind it."""

    value: Floats
    worth: Floats
    entities: NDArray[np.intp]

    def take(self, groups: Sequence[int]) -> "Share":
        """Return the share of these groups only."""
        kept = list(groups)
        return Share(self.value[kept], self.worth[kept], self.entities[kept])

    def bounds(self, z: float) -> tuple[Floats, Floats]:
        """Return Wilson's bounds (1927) at z standard errors."""
        weight = z**2 / self.worth
        middle = (self.value + weight / 2) / (1 + weight)
        half = np.sqrt(self.value * (1 - self.value) * weight + weight**2 / 4) / (1 + weight)
        # rounding must not leave a value that is 0 or 1 outside of its own bounds
        return np.minimum(middle - half, self.value), np.maximum(middle + half, self.value)


def spread(name: str, rates: Sequence[Floats]) -> float:
    """Return a disparity of rates (n_groups), NaN where it has none."""
    if name == "demographic_parity_ratio":
        (selection,) = rates
        most = float(selection.max())
        return float(selection.min()) / most if most > 0 else np.nan
    return max(float(np.ptp(rate)) for rate in rates)


def disparity_bounds(name: str, shares: Sequence[Share], level: float) -> tuple[float, float]:
    """Return the one-sided bounds of a disparity, each at this level.

    That the largest of all differences is below a bound, it is enough that the one pair which truly
    differs most is: pair by pair. That it is above 0, all pairs have to be looked at together
    (Tukey & Kramer's studentized range; Bonferroni over two rates). Pairs are compared by MOVER
    (Donner & Zou, Statistical Methods in Medical Research 21(4), 2012), ratios as logarithms.
    """
    alone = NormalDist().inv_cdf(level)
    ends = []
    for share in shares:
        together = 1 - (1 - level) / len(shares)
        jointly = _range_quantile(together, len(share.value)) / 2**0.5
        pairs = _ratios if name == "demographic_parity_ratio" else _differences
        ends.append((pairs(share, jointly), pairs(share, alone)))
    if name == "demographic_parity_ratio":
        ((together_ends, alone_ends),) = ends
        return float(alone_ends[0].min()), min(1.0, float(together_ends[1].min()))
    lowest = max(float(joint[0].max()) for joint, _ in ends)
    return max(0.0, lowest), min(1.0, max(float(single[1].max()) for _, single in ends))


@cache
def _range_quantile(level: float, groups: int) -> float:
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(level, groups, np.inf))


def _differences(share: Share, z: float) -> tuple[Floats, Floats]:
    """Return the bounds (n_groups, n_groups) of the row's rate less the column's."""
    low, high = share.bounds(z)
    below, above = share.value - low, high - share.value
    gaps = share.value[:, None] - share.value
    return gaps - np.hypot(below[:, None], above), gaps + np.hypot(above[:, None], below)


def _ratios(share: Share, z: float) -> tuple[Floats, Floats]:
    """Return the bounds (n_groups, n_groups) of the row's rate over the column's."""
    low, high = share.bounds(z)
    with np.errstate(divide="ignore", invalid="ignore"):
        value, least, most = np.log(share.value), np.log(low), np.log(high)
        below, above = value - least, most - value
        gaps = value[:, None] - value
        lower = np.exp(gaps - np.hypot(below[:, None], above))
        upper = np.exp(gaps + np.hypot(above[:, None], below))
        farthest = high[:, None] / low
    is_none = share.value == 0
    lower[is_none, :] = 0.0
    upper = np.where(is_none[:, None] & ~is_none, farthest, upper)  # logarithms of 0 say nothing
    lower[:, is_none] = upper[:, is_none] = np.inf  # never the smallest
    np.fill_diagonal(lower, 1.0)
    np.fill_diagonal(upper, 1.0)
    return lower, upper


def chance_disparity(name: str, shares: Sequence[Share]) -> float:
    """Return the disparity that 95 of 100 such samples stay within when all groups are alike."""
    rng = np.random.default_rng(0)
    drawn = []
    for share in shares:
        common = float(np.average(share.value, weights=share.worth))
        errors = np.sqrt(common * (1 - common) / share.worth)
        rates = common + errors * rng.normal(size=(NOISE_DRAWS, len(errors)))
        drawn.append(np.clip(rates, 0, 1))
    if name == "demographic_parity_ratio":
        most = drawn[0].max(axis=1)
        ratios = np.divide(drawn[0].min(axis=1), most, out=np.ones_like(most), where=most > 0)
        return float(np.quantile(ratios, 1 - ONE_SIDED))
    return float(np.quantile(np.max([np.ptp(one, axis=1) for one in drawn], axis=0), ONE_SIDED))
