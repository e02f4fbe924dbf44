"""Bounds that hold at every time: whoever looks as often as they like is misled as seldom as said.

Each is an e-process of a null hypothesis turned round. Its expected wealth is at most 1 at any time
that anybody stops, so that it reaches 1 / alpha with a probability of at most alpha (Ville 1939).
What the figures are of, and what follows, belongs to guardrails.py.
"""

import math
from collections.abc import Callable

import numpy as np

from mlops_pipeline.core.metrics.metrics import Floats

PRIOR = 0.5  # Jeffreys': Beta(1/2, 1/2)
MOST_AT_STAKE = 0.9  # of the wealth, on one value
HALVINGS = 20  # of what is possible: a millionth of it
MOST_ROWS = 1_000_000_000


def share_log_wealth(successes: int, trials: int, limit: float) -> float:
    """Return the log wealth against "the share is at most `limit`", 0 < limit < 1.

    The likelihood ratio to `limit`, mixed over all larger shares by a prior Beta(1/2, 1/2) cut off
    at `limit`. So it holds also where the share changes, as long as it stays below.

    Robbins, Ann. Math. Statist. 41, 1970; Howard, Ramdas, McAuliffe & Sekhon, Ann. Statist. 49,
    2021 (one-sided beta-binomial mixture).
    """
    from scipy.special import betaincc, betaln

    failures = trials - successes
    after = (successes + PRIOR, failures + PRIOR)
    above = float(betaincc(*after, limit)) / float(betaincc(PRIOR, PRIOR, limit))
    if above <= 0:  # the smallest number: nothing speaks for a larger share
        return -math.inf
    mixed = float(betaln(*after)) - math.log(math.pi) + math.log(above)  # B(1/2, 1/2) is pi
    return mixed - successes * math.log(limit) - failures * math.log1p(-limit)


def share_lower(successes: int, trials: int, alpha: float) -> float:
    """Return what a share is at least, in all but `alpha` of the series, whenever one looks."""
    if successes == 0:
        return 0.0
    needed = -math.log(alpha)
    return _last(
        lambda share: share_log_wealth(successes, trials, share) >= needed,
        (0.0, successes / trials),
    )


def share_upper(successes: int, trials: int, alpha: float) -> float:
    """Return what a share is at most, as `share_lower`."""
    return 1 - share_lower(trials - successes, trials, alpha)


def stakes(values: Floats, effect: Floats | float, spread: Floats | float) -> Floats:
    """Return how much is bet on each value being above the null: effect / (variance + effect^2).

    That makes wealth grow fastest when the truth is above it by `effect`. The variance is that of
    the values before; `spread` stands for one more, which is not known.

    Waudby-Smith & Ramdas, JRSS B 86(1), 2024, section 4 (predictable bets, GRAPA).
    """
    count = np.arange(1, len(values) + 1)
    squares = np.cumsum(values**2) - np.cumsum(values) ** 2 / count
    before = np.concatenate([[0.0], np.maximum(squares[:-1], 0.0)])
    found: Floats = effect / ((np.square(spread) + before) / count + np.square(effect))
    return found


def mean_log_wealth(values: Floats, null: float, low: Floats | float, bets: Floats) -> float:
    """Return the log wealth against "the mean is at most `null`" after all values.

    `values` in order of time, each at least its `low`, which lies below `null`. At most
    MOST_AT_STAKE can be lost on one.

    Waudby-Smith & Ramdas, JRSS B 86(1), 2024 (capital process, one-sided).
    """
    most = MOST_AT_STAKE / (null - np.asarray(low))
    return float(np.log1p(np.minimum(bets, most) * (values - null)).sum())


def mean_lower(
    values: Floats, alpha: float, *, most: Floats | float, effect: Floats | float
) -> float:
    """Return what the mean of values in order is at least; exact for any distribution.

    None is further from 0 than its `most`. It says most where the truth is about `effect` above it.
    """
    largest = float(np.max(most, initial=0.0))
    bets, needed = stakes(values, effect, np.asarray(most) / 2), -math.log(alpha)
    return _last(
        lambda null: mean_log_wealth(values, null, -np.asarray(most), bets) >= needed,
        (-float(np.min(most, initial=largest)), largest),
    )


def mean_upper(
    values: Floats, alpha: float, *, most: Floats | float, effect: Floats | float
) -> float:
    """Return what the mean is at most, as `mean_lower`."""
    return -mean_lower(-values, alpha, most=most, effect=effect)


def distribution_radius(rows: int, alpha: float) -> float:
    """Return how far the distribution of the rows so far is from the true one at most, at any time.

    Howard & Ramdas, Bernoulli 28(3), 2022, theorem 2 with A = 0.85.
    """
    if rows == 0:
        return 1.0
    spent = np.log(np.log(np.e * rows)) + 0.8 * np.log(1612 / alpha)
    return min(1.0, 0.85 * float(np.sqrt(spent / rows)))


def sample_radius(rows: int, alpha: float) -> float:
    """Return the same of a sample of fixed size (Massart, Ann. Probab. 18, 1990)."""
    return min(1.0, float(np.sqrt(np.log(2 / alpha) / (2 * rows)))) if rows else 1.0


def rows_until(is_enough: Callable[[int], bool], rows: int) -> int | None:
    """Return how many more than `rows` are enough; None where 1,000,000,000 are not."""
    below, above = rows, max(1, rows)
    while not is_enough(above):
        below, above = above, 2 * above
        if above > MOST_ROWS:
            return None
    while above - below > 1 + above // 1_000:
        middle = (below + above) // 2
        below, above = (below, middle) if is_enough(middle) else (middle, above)
    return above - rows


def _last(is_rejected: Callable[[float], bool], ends: tuple[float, float]) -> float:
    """Return the largest null that is rejected, by bisection; the lower end if there is none."""
    low, high = ends
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_rejected(middle) else (low, middle)
    return low
