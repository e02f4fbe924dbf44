import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import beta, betabinom, binom

from mlops_pipeline.core.rollout.sequential import (
    MOST_AT_STAKE,
    distribution_radius,
    mean_log_wealth,
    mean_lower,
    mean_upper,
    rows_until,
    sample_radius,
    share_log_wealth,
    share_lower,
    share_upper,
    stakes,
)

Floats = NDArray[np.float64]
SERIES = 300
ALPHA = 0.1
LOOKS = np.unique(np.geomspace(1, 1_500, 25).astype(int))
MOST_MISSES = SERIES * ALPHA + 2 * math.sqrt(SERIES * ALPHA * (1 - ALPHA))
JEFFREYS = beta(0.5, 0.5)
BOUNDS = (mean_lower, mean_upper)
PAIR = {"most": 1.0, "effect": 0.05}

shares = st.integers(1, 400).flatmap(
    lambda trials: st.tuples(st.integers(0, trials), st.just(trials))
)


@pytest.mark.parametrize(("hits", "trials"), [(0, 5), (1, 1), (7, 20), (40, 1_000)])
@pytest.mark.parametrize("limit", [0.01, 0.3])
def test_share_wealth_both_halves_together_are_the_beta_binomial(
    hits: int, trials: int, limit: float
) -> None:
    """The mixture over larger and over smaller shares, each by its prior, is the whole mixture."""
    above = math.exp(share_log_wealth(hits, trials, limit)) * JEFFREYS.sf(limit)
    below = math.exp(share_log_wealth(trials - hits, trials, 1 - limit)) * JEFFREYS.cdf(limit)
    whole = betabinom(trials, 0.5, 0.5).pmf(hits) / binom(trials, limit).pmf(hits)

    assert above + below == pytest.approx(whole, rel=1e-9)


def test_share_wealth_against_integration_is_equal() -> None:
    hits, trials, limit = 6, 40, 0.05

    def ratio(share: float) -> float:
        odds = (share / limit) ** hits * ((1 - share) / (1 - limit)) ** (trials - hits)
        return float(odds * JEFFREYS.pdf(share) / JEFFREYS.sf(limit))

    found = math.exp(share_log_wealth(hits, trials, limit))

    assert found == pytest.approx(quad(ratio, limit, 1, limit=200)[0], rel=1e-6)


def test_share_bounds_without_trials_or_hits_are_the_ends() -> None:
    assert (share_lower(0, 0, 0.05), share_upper(0, 0, 0.05)) == (0.0, 1.0)
    assert share_lower(0, 1_000, 0.05) == 0.0
    assert share_upper(1_000, 1_000, 0.05) == 1.0


def test_share_lower_wealth_is_one_over_alpha_there() -> None:
    lower = share_lower(30, 100, 0.01)

    assert share_log_wealth(30, 100, lower) == pytest.approx(math.log(100), abs=1e-4)


@given(shares, st.sampled_from([0.2, 0.05, 0.001]))
def test_share_bounds_hold_the_share_and_are_monotone(share: tuple[int, int], alpha: float) -> None:
    hits, trials = share
    lower, upper = share_lower(hits, trials, alpha), share_upper(hits, trials, alpha)

    assert lower <= hits / trials <= upper
    assert lower <= share_lower(hits + 1, trials + 1, alpha)
    assert share_lower(hits, trials + 1, alpha) <= lower + 1e-9
    assert share_lower(hits, trials, alpha / 2) <= lower


@given(shares, st.floats(0.001, 0.99), st.floats(0.001, 0.99))
def test_share_wealth_of_a_larger_limit_is_smaller(
    share: tuple[int, int], one: float, other: float
) -> None:
    smaller, larger = (share_log_wealth(*share, limit) for limit in sorted((one, other)))

    assert larger <= smaller + 1e-9


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_share_bounds_looked_at_often_miss_as_seldom_as_said(share: float) -> None:
    counts = np.cumsum(np.random.default_rng(1).random((SERIES, LOOKS[-1])) < share, axis=1)
    missed = np.zeros((SERIES, 2), dtype=bool)
    for look in LOOKS:
        for series, hits in enumerate(counts[:, look - 1]):
            above = share_log_wealth(int(hits), int(look), share) >= -math.log(ALPHA)
            below = share_log_wealth(int(look - hits), int(look), 1 - share) >= -math.log(ALPHA)
            missed[series] |= (above, below)

    assert (missed.sum(axis=0) <= MOST_MISSES).all()


def _slow_wealth(values: Floats, null: float, effect: float) -> float:
    """Bet value by value, with a variance over all values before and one pseudo-value."""
    wealth = 1.0
    for index, value in enumerate(values):
        before = values[:index]
        squares = float(((before - before.mean()) ** 2).sum()) if index else 0.0
        variance = (0.5**2 + squares) / (index + 1)
        bet = min(effect / (variance + effect**2), MOST_AT_STAKE / (null + 1))
        wealth *= 1 + bet * (value - null)
    return math.log(wealth)


def test_mean_wealth_against_a_slow_one_is_equal() -> None:
    values = np.random.default_rng(2).uniform(-0.4, 0.6, 300)
    bets = stakes(values, 0.05, 0.5)

    for null in (-0.1, 0.0, 0.07):
        found = mean_log_wealth(values, null, -1.0, bets)
        assert found == pytest.approx(_slow_wealth(values, null, 0.05), abs=1e-9)


def test_mean_wealth_of_two_values_by_hand() -> None:
    values = np.array([0.5, -0.5])
    # the first: 0.1 / (0.25 + 0.01); the second: variance (0.25 + 0) / 2
    first, second = 0.1 / 0.26, 0.1 / 0.135

    found = mean_log_wealth(values, 0.0, -1.0, stakes(values, 0.1, 0.5))

    assert found == pytest.approx(math.log(1 + 0.5 * first) + math.log(1 - 0.5 * second))


def test_mean_bounds_without_values_are_the_ends() -> None:
    assert (mean_lower(np.empty(0), 0.05, **PAIR), mean_upper(np.empty(0), 0.05, **PAIR)) == (-1, 1)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60), st.floats(-0.9, 0.9))
def test_mean_lower_is_above_a_null_where_its_wealth_is_enough(
    given_values: list[float], null: float
) -> None:
    values = np.array(given_values)
    bets = stakes(values, PAIR["effect"], 0.5)
    is_rejected = mean_log_wealth(values, null, -1.0, bets) >= -math.log(0.2)

    lower = mean_lower(values, 0.2, **PAIR)

    assert (lower > null) == is_rejected or lower == pytest.approx(null, abs=4e-6)
    assert lower <= mean_lower(np.append(values, 1.0), 0.2, **PAIR) + 1e-9
    assert mean_lower(values, 0.1, **PAIR) <= lower <= mean_upper(values, 0.2, **PAIR)
    assert mean_upper(-values, 0.2, **PAIR) == pytest.approx(-lower)


def test_mean_bounds_of_ranges_that_differ_hold_each_range() -> None:
    """Values weighted by 1 / share have another range in each stage."""
    rng = np.random.default_rng(3)
    high = np.repeat([20.0, 2.0], 2_000)
    values = np.where(rng.random(4_000) < 1 / high, high, -high / (high - 1)) * 0.2
    shifted = np.minimum(values + 0.5, high)

    lower, upper = (bound(values, 0.05, most=high, effect=0.05) for bound in BOUNDS)

    assert lower < 0 < upper
    assert mean_lower(shifted, 0.05, most=high, effect=0.05) > 0


def test_mean_bounds_looked_at_often_miss_as_seldom_as_said() -> None:
    """Skewed values: seldom large, as differences of squared errors are."""
    rng = np.random.default_rng(4)
    values = np.where(rng.random((SERIES, LOOKS[-1])) < 0.05, 0.57, -0.03)  # mean 0
    missed = np.zeros((SERIES, 2), dtype=bool)
    for series, row in enumerate(values):
        for side, sign in enumerate((1, -1)):
            bets = stakes(sign * row, 0.05, 0.5)
            bets = np.minimum(bets, MOST_AT_STAKE)
            wealth = np.cumsum(np.log1p(bets * sign * row))
            missed[series, side] = (wealth >= -math.log(ALPHA)).any()
            last = mean_log_wealth(sign * row, 0.0, -1.0, bets)
            assert wealth[-1] == pytest.approx(last)

    assert (missed.sum(axis=0) <= MOST_MISSES).all()


def test_mean_lower_finds_the_effect_it_is_made_for() -> None:
    rng = np.random.default_rng(5)
    found = [
        mean_lower(rng.normal(0.01, 0.1, 3_000).clip(-1, 1), 0.05, most=1.0, effect=0.01) > 0
        for _ in range(100)
    ]

    assert np.mean(found) >= 0.8  # 3,000 are 1.5 variances above what is needed on average


def test_distribution_radius_by_hand() -> None:
    # 0.85 sqrt((ln ln 100 e + 0.8 ln (1612 / 0.05)) / 100)
    assert distribution_radius(100, 0.05) == pytest.approx(0.26919, abs=1e-4)
    assert distribution_radius(0, 0.05) == distribution_radius(1, 0.05) == 1.0


@pytest.mark.parametrize("alpha", [0.05, 0.0025, 1e-6])
def test_distribution_radius_constants_are_those_of_the_theorem(alpha: float) -> None:
    """Theorem 2: P <= min over eta of 4 exp(-gamma^2 C) (1 + 1 / ((gamma^2 - 1) ln eta))."""
    factor, constant = 0.85, 0.8 * math.log(1612 / alpha)
    eta = np.linspace(1.001, 2 * factor**2 - 0.001, 20_000)
    gamma = np.sqrt(2 / eta) * (factor - np.sqrt(2 * (eta - 1) / constant))
    eta, squared = eta[gamma > 1], gamma[gamma > 1] ** 2
    bound = 4 * np.exp(-squared * constant) * (1 + 1 / ((squared - 1) * np.log(eta)))

    assert bound.min() <= alpha


def test_radii_looked_at_often_hold_the_distribution() -> None:
    rng = np.random.default_rng(6)
    missed = 0
    for _ in range(SERIES):
        values = rng.random(LOOKS[-1])
        distances = [
            max(
                (np.arange(1, look + 1) / look - np.sort(values[:look])).max(),
                (np.sort(values[:look]) - np.arange(look) / look).max(),
            )
            for look in LOOKS
        ]
        radii = [distribution_radius(int(look), ALPHA) for look in LOOKS]
        missed += bool((np.array(distances) > radii).any())

    assert missed <= MOST_MISSES


def test_sample_radius_by_hand() -> None:
    assert sample_radius(200, 0.02) == pytest.approx(math.sqrt(math.log(100) / 400))
    assert sample_radius(0, 0.02) == 1.0


def test_rows_until_are_within_a_thousandth() -> None:
    assert rows_until(lambda rows: rows >= 12_345, 0) == pytest.approx(12_345, rel=1e-3)
    assert rows_until(lambda rows: rows >= 5_000, 4_000) == pytest.approx(1_000, abs=6)
    assert rows_until(lambda _: False, 10) is None
