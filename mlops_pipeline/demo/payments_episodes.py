"""The card world's events: episodes of payments, and the transactions of each.

Belongs here: what is drawn, and from which distributions. Their densities are in
payments_truth.py and have to be the same; what a bank records of all this is in
payments_tables.py.

Each kind of episode begins as a Poisson process of its own, with a rate that depends on the
customer, the day and the hour. Given its kind, the transactions of an episode are independent of
one another, so that the probability of a theft given what was seen of an episode is exact.
"""

from dataclasses import dataclass

import numpy as np

from mlops_pipeline.demo.payments_world import (
    ABROAD_ERRANDS,
    ABROAD_TOURS,
    ATM,
    CASH,
    CATEGORIES,
    CATEGORY_LEVEL,
    CHIP,
    CONTACTLESS,
    COUNTRIES,
    DIGITAL,
    ERRAND,
    ERRAND_CATEGORIES,
    FIRST_THEFT,
    FUEL,
    KINDS,
    MERCHANTS_BY_RISK,
    NUMBER,
    ONLINE,
    SEGMENTS,
    TEST_AMOUNT,
    TOUR,
    TRIP,
    Customers,
    Numbers,
    first_merchant,
    pick,
)
from mlops_pipeline.demo.telecom_world import Booleans, Calendar, Integers

HOUR_SECONDS = 3_600
DAY_SECONDS = 86_400
SATURDAY = 2  # day number modulo 7: 1970-01-01 was a Thursday
SMALLEST_AMOUNT = 0.5  # EUR


def _hours() -> Numbers:
    """Return the share of episodes that begin in each hour, shape (kinds, 24)."""
    hour = np.arange(24)
    rows = []
    for kind in KINDS:
        middle, spread, floor = kind.hour
        distance = (hour - middle + 12) % 24 - 12
        weight = np.exp(-0.5 * (distance / spread) ** 2) + floor
        rows.append(weight / weight.sum())
    return np.array(rows)


def _category_shares() -> Numbers:
    """Return the share of each category, shape (kinds, segments, categories)."""
    shares = [
        np.tile(kind.categories, (len(SEGMENTS), 1)) if kind.categories else ERRAND_CATEGORIES
        for kind in KINDS
    ]
    return np.array(shares)


def _online_shares() -> Numbers:
    """Return the probability of paying online, shape (kinds, categories)."""
    shares = np.tile(np.array([kind.online for kind in KINDS])[:, None], len(CATEGORIES))
    shares[:, [FUEL, CASH]] = 0.0
    shares[:, DIGITAL] = 1.0
    return shares


HOURS = _hours()
CATEGORY_SHARES = _category_shares()
ONLINE_SHARES = _online_shares()
CONTACTLESS_SHARES = np.array([kind.contactless for kind in KINDS])
FOREIGN_SHARES = np.array([kind.foreign for kind in KINDS])  # card present, online
RISK_SHARES = np.array([kind.risk for kind in KINDS])
GAPS = np.array([(np.log(60 * kind.gap[0]), kind.gap[1]) for kind in KINDS])  # of log seconds
AMOUNTS = np.array([kind.amount for kind in KINDS])
MORE = np.array([kind.more for kind in KINDS])


@dataclass(frozen=True)
class Episodes:
    """Which kind begins with which customer on which day; arrays of shape (n_episodes,)."""

    kind: Integers
    customer: Integers
    day: Integers


@dataclass(frozen=True)
class Transactions:
    """The transactions of one chunk; arrays of shape (n_transactions,).

    `customer`, `merchant` and the categories are positions; `place` counts the transactions of an
    episode from 0; `gap` is the seconds since the one before (0 for the first); `second` counts
    from 1970-01-01; `day` is the day of the world on which the episode began.
    """

    episode: Integers
    kind: Integers
    customer: Integers
    day: Integers
    place: Integers
    gap: Integers
    second: Integers
    category: Integers
    channel: Integers
    foreign: Booleans
    risk: Integers
    merchant: Integers
    amount: Numbers

    @property
    def fraud(self) -> Booleans:
        """Which transactions a thief made."""
        return np.asarray(self.kind >= FIRST_THEFT)

    def take(self, rows: Integers | Booleans) -> "Transactions":
        """Return some of the transactions."""
        return Transactions(**{name: values[rows] for name, values in vars(self).items()})


def customer_rates(people: Customers, kind: int) -> Numbers:
    """Return the episodes of a kind on a usual day (of a trip: a day abroad), shape (n,)."""
    scale = people.susceptibility if kind >= FIRST_THEFT else people.activity
    return KINDS[kind].daily * scale


def abroad_factor(kind: int, abroad: Booleans) -> Numbers:
    """Return how many times as frequent a kind is, given who is abroad."""
    at_home, away = {
        ERRAND: (1.0, ABROAD_ERRANDS),
        TOUR: (1.0, ABROAD_TOURS),
        TRIP: (0.0, 1.0),
    }.get(kind, (1.0, 1.0))
    return np.where(abroad, away, at_home)


def weekday_factor(kind: int, day: Integers) -> Numbers:
    """Return how many times as frequent a kind is on a day since 1970-01-01."""
    return np.where(day % 7 == SATURDAY, KINDS[kind].saturday, 1.0)


def pay(rng: np.random.Generator, calendar: Calendar, people: Customers) -> Transactions:
    """Draw all transactions of these customers, ordered by time."""
    made = _transactions(rng, calendar, people, _episodes(rng, calendar, people))
    made = made.take(made.second < calendar.end_day * DAY_SECONDS)
    return made.take(np.lexsort((made.place, made.customer, made.second)))


def _episodes(rng: np.random.Generator, calendar: Calendar, people: Customers) -> Episodes:
    kinds, customers, days = [], [], []
    every_day = np.arange(calendar.first_day, calendar.end_day)
    holds = every_day[None, :] > people.signup_day[:, None]
    for kind in range(len(KINDS)):
        rate = customer_rates(people, kind)[:, None] * weekday_factor(kind, every_day)[None, :]
        count = rng.poisson(rate * abroad_factor(kind, people.abroad) * holds)
        customer, day = np.nonzero(count)
        repeats = count[customer, day]
        customers.append(np.repeat(customer, repeats))
        days.append(np.repeat(day, repeats))
        kinds.append(np.full(int(repeats.sum()), kind))
    return Episodes(*(np.concatenate(part) for part in (kinds, customers, days)))


def _transactions(
    rng: np.random.Generator, calendar: Calendar, people: Customers, episodes: Episodes
) -> Transactions:
    begun = (calendar.first_day + episodes.day) * DAY_SECONDS + _begin(rng, episodes.kind)
    length = rng.geometric(1 - MORE[episodes.kind])
    episode = np.repeat(np.arange(len(length)), length)
    head = np.cumsum(length) - length
    place = np.arange(len(episode)) - head[episode]
    kind, customer = episodes.kind[episode], episodes.customer[episode]
    n = len(episode)
    middle, spread = GAPS[kind].T
    gap = np.ceil(np.exp(middle + spread * rng.standard_normal(n))).astype(np.int64)
    gap[place == 0] = 0
    passed = np.cumsum(gap)
    category = pick(rng, CATEGORY_SHARES[kind, people.segment[customer]])
    channel = _channel(rng, kind, category)
    foreign = rng.random(n) < FOREIGN_SHARES[kind, (channel == ONLINE).astype(np.int64)]
    risk = pick(rng, RISK_SHARES[kind])
    usual = people.habit[customer] + CATEGORY_LEVEL[category] + amount_shift(kind, place)
    amount = np.exp(usual + AMOUNTS[kind, 1] * rng.standard_normal(n))
    return Transactions(
        episode=episode,
        kind=kind,
        customer=customer,
        day=episodes.day[episode],
        place=place,
        gap=gap,
        second=begun[episode] + passed - passed[head][episode],
        category=category,
        channel=channel,
        foreign=foreign,
        risk=risk,
        merchant=_merchant(rng, people.country[customer], foreign, category, risk),
        amount=np.round(np.maximum(amount, SMALLEST_AMOUNT), 2),
    )


def amount_shift(kind: Integers, place: Integers) -> Numbers:
    """Return the mean log amount over the usual, of kinds and places in the episode."""
    is_test = (kind == NUMBER) & (place == 0)
    return np.asarray(AMOUNTS[kind, 0] + np.where(is_test, TEST_AMOUNT, 0.0))


def _begin(rng: np.random.Generator, kind: Integers) -> Integers:
    hour = pick(rng, HOURS[kind])
    return hour * HOUR_SECONDS + rng.integers(0, HOUR_SECONDS, len(kind))


def _channel(rng: np.random.Generator, kind: Integers, category: Integers) -> Integers:
    n = len(kind)
    is_online = rng.random(n) < ONLINE_SHARES[kind, category]
    present = np.where(rng.random(n) < CONTACTLESS_SHARES[kind], CONTACTLESS, CHIP)
    return np.where(category == CASH, ATM, np.where(is_online, ONLINE, present))


def _merchant(
    rng: np.random.Generator, home: Integers, foreign: Booleans, category: Integers, risk: Integers
) -> Integers:
    """Draw a merchant of the category and risk, at home or in one of the other countries."""
    elsewhere = (home + rng.integers(1, len(COUNTRIES), len(home))) % len(COUNTRIES)
    country = np.where(foreign, elsewhere, home)
    return first_merchant(country, category, risk) + rng.integers(
        0, np.array(MERCHANTS_BY_RISK)[risk]
    )
