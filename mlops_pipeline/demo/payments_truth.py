"""The true probability that a transaction is a thief's, given what was seen of its episode.

Belongs here: what no model can beat (Bayes). It knows more than any model: which transactions
belong to one episode, and the customer's true habits, susceptibility and trips. By Bayes' rule over
the kinds of episodes,

    P(kind | the first k transactions) ~ rate(kind; customer, day, hour)
        * product over the k of P(category, channel, abroad, risk, amount | kind)
        * product over the k - 1 that follow the first of P(it goes on) * density(gap | kind)
"""

import numpy as np

from mlops_pipeline.demo.payments_episodes import (
    AMOUNTS,
    CATEGORY_SHARES,
    CONTACTLESS_SHARES,
    DAY_SECONDS,
    FOREIGN_SHARES,
    GAPS,
    HOUR_SECONDS,
    HOURS,
    MORE,
    ONLINE_SHARES,
    RISK_SHARES,
    Transactions,
    abroad_factor,
    amount_shift,
    customer_rates,
    weekday_factor,
)
from mlops_pipeline.demo.payments_world import (
    ATM,
    CATEGORY_LEVEL,
    CONTACTLESS,
    FIRST_THEFT,
    KINDS,
    ONLINE,
    Customers,
    Numbers,
)
from mlops_pipeline.demo.telecom_world import Calendar, Integers


def fraud_probability(calendar: Calendar, people: Customers, made: Transactions) -> Numbers:
    """Return the probability of fraud of each transaction, in their order, shape (n,)."""
    by_episode = np.lexsort((made.place, made.episode))
    made = made.take(by_episode)
    with np.errstate(divide="ignore"):  # the logarithm of what a kind never does
        logs = [_log_density(calendar, people, made, kind) for kind in range(len(KINDS))]
    running = _running_sum(np.stack(logs, axis=1), made.place)
    weight = np.exp(running - running.max(axis=1, keepdims=True))
    probability = np.empty(len(weight))
    probability[by_episode] = weight[:, FIRST_THEFT:].sum(axis=1) / weight.sum(axis=1)
    return probability


def _running_sum(logs: Numbers, place: Integers) -> Numbers:
    """Add up the rows of each episode; a later row never makes an impossible kind possible."""
    running = logs.copy()
    for step in range(1, int(place.max(initial=0)) + 1):
        rows = np.flatnonzero(place == step)
        running[rows] += running[rows - 1]
    return running


def _log_density(calendar: Calendar, people: Customers, made: Transactions, kind: int) -> Numbers:
    """Return the log density of each transaction given its predecessors, were it of a kind."""
    is_first = made.place == 0
    density = np.where(is_first, _log_begin(calendar, people, made, kind), _log_next(made, kind))
    is_online = made.channel == ONLINE
    online = ONLINE_SHARES[kind, made.category]
    contactless = np.where(
        made.channel == CONTACTLESS, CONTACTLESS_SHARES[kind], 1 - CONTACTLESS_SHARES[kind]
    )
    density += np.log(CATEGORY_SHARES[kind, people.segment[made.customer], made.category])
    density += np.log(np.where(is_online, online, 1 - online))
    density += np.where(is_online | (made.channel == ATM), 0.0, np.log(contactless))
    foreign = FOREIGN_SHARES[kind, is_online.astype(np.int64)]
    density += np.log(np.where(made.foreign, foreign, 1 - foreign))
    density += np.log(RISK_SHARES[kind, made.risk])
    usual = people.habit[made.customer] + CATEGORY_LEVEL[made.category]
    shift = amount_shift(np.full(len(made.kind), kind), made.place)
    return density + _log_normal(np.log(made.amount) - usual - shift, AMOUNTS[kind, 1])


def _log_begin(calendar: Calendar, people: Customers, made: Transactions, kind: int) -> Numbers:
    """Return the log rate at which episodes of a kind begin at that customer, day and hour."""
    hour = made.second % DAY_SECONDS // HOUR_SECONDS
    rate = customer_rates(people, kind)[made.customer] * HOURS[kind, hour]
    rate *= weekday_factor(kind, calendar.first_day + made.day)
    return np.asarray(np.log(rate * abroad_factor(kind, people.abroad[made.customer, made.day])))


def _log_next(made: Transactions, kind: int) -> Numbers:
    """Return the log density of the next transaction of an episode after this gap."""
    middle, spread = GAPS[kind]
    gap = np.log(np.maximum(made.gap, 1) - 0.5)  # drawn gaps are rounded up to whole seconds
    return np.asarray(np.log(MORE[kind]) + _log_normal(gap - middle, spread))


def _log_normal(deviation: Numbers, spread: float) -> Numbers:
    """Return the log density of a normal deviate, up to a constant common to all kinds."""
    return np.asarray(-0.5 * (deviation / spread) ** 2 - np.log(spread))
