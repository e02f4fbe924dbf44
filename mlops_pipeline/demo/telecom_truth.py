"""The true probability of churning within 90 days, given the hidden state at a month end.

Belongs here: what no model can beat (Bayes). It is averaged over a fixed set of future paths of
the unhappiness, on each of which the probability is exact; only the randomness of future tickets
is replaced by their expectation.
"""

import numpy as np
import numpy.typing as npt

from mlops_pipeline.demo.telecom_latent import (
    FADING,
    MEMORY,
    SEVERITY_BURDEN,
    Lives,
    severity_shares,
    ticket_rate,
    weekly_hazard,
)
from mlops_pipeline.demo.telecom_world import (
    SOUTH_UNHAPPINESS,
    WEEK_DAYS,
    Calendar,
    Floats,
    Integers,
    Population,
)

HORIZON_DAYS = 90
FUTURE_PATHS = 64  # 32 and their mirror images


def true_probability(
    calendar: Calendar, people: Population, lives: Lives, as_of_day: int
) -> tuple[Integers, npt.NDArray[np.float64]]:
    """Return who is a customer at an as_of, and their probability of churning within 90 days."""
    members = np.flatnonzero((people.signup_day + 1 < as_of_day) & (lives.churn_day >= as_of_day))
    last = (lives.week_end[:, members] < as_of_day).sum(axis=0) - 1
    mean = np.where(people.south[members], SOUTH_UNHAPPINESS, 0.0).astype(np.float32)
    deviation = lives.unhappiness[last, members] - mean
    support = np.tile(lives.support[last, members], (FUTURE_PATHS, 1))
    week_end = lives.week_end[last, members]
    subset = _members(people, members)
    paths = _future_paths(int(np.ceil(HORIZON_DAYS / WEEK_DAYS)) + 1)
    log_survival = np.zeros_like(support, dtype=np.float64)
    for step, shocks in enumerate(paths):
        unhappiness = mean + np.float32(MEMORY**step) * deviation + shocks[:, None]
        if step:
            support = np.float32(FADING) * support + _expected_burden(unhappiness)
        week_end = week_end + WEEK_DAYS
        inside = np.minimum(week_end + 1, as_of_day + HORIZON_DAYS) - np.maximum(
            week_end + 1 - WEEK_DAYS, as_of_day
        )
        share = np.clip(inside, 0, None) / WEEK_DAYS
        hazard = weekly_hazard(calendar, subset, week_end[None, :], unhappiness, support)
        log_survival += share * np.log1p(-hazard.astype(np.float64))
    return members, 1 - np.exp(log_survival).mean(axis=0)


def _future_paths(steps: int) -> Floats:
    """Return departures from the expected unhappiness, shape (steps, FUTURE_PATHS); row 0 is 0.

    The weekly shocks are made uncorrelated and of unit variance over the paths, so that few paths
    have the exact covariance of the process.
    """
    drawn = np.random.default_rng(20_230_101).standard_normal((FUTURE_PATHS // 2, steps))
    half = np.linalg.qr(drawn)[0].T * np.sqrt(FUTURE_PATHS // 2)
    noise = np.sqrt(1 - MEMORY**2) * np.concatenate([half, -half], axis=1)
    paths = np.zeros((steps, FUTURE_PATHS))
    for step in range(1, steps):
        paths[step] = MEMORY * paths[step - 1] + noise[step]
    return paths.astype(np.float32)


def _expected_burden(unhappiness: Floats) -> Floats:
    worse, severe = severity_shares(unhappiness)
    light, medium, heavy = SEVERITY_BURDEN
    burden = light * (1 - worse) + medium * (worse - severe) + heavy * severe
    return np.asarray(ticket_rate(unhappiness) * burden, dtype=np.float32)


def _members(people: Population, members: Integers) -> Population:
    return Population(**{name: values[members] for name, values in vars(people).items()})
