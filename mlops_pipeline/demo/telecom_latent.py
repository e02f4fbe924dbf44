"""The telecom world's hidden truth: unhappiness, support burden, weekly churn hazard.

Belongs here: the latent processes and who churns when. The exact probabilities that follow from
them are in telecom_truth.py; what an operator records of all this is in telecom_tables.py.

A customer's unhappiness u is a stationary first-order autoregression by week; tickets arrive at a
rate that grows with u and, by severity, feed a support burden s that fades. In week w a customer
churns with

    logit h_w = a + b_u u_{w-1} + b_s s_{w-1} + b_p price + contract + tenure_w + payment

so the state at the end of a week is all that the following weeks depend on.
"""

from dataclasses import dataclass

import numpy as np

from mlops_pipeline.demo.telecom_world import (
    CONCEPT_CHANGE_MONTH,
    INVOICE,
    MONTHLY,
    SOUTH_UNHAPPINESS,
    WEEK_DAYS,
    Booleans,
    Calendar,
    Floats,
    Integers,
    Population,
)

MEMORY = 0.968  # of unhappiness, from one week to the next
SURVIVOR_MEAN, SURVIVOR_SPREAD = np.float32(-0.25), np.float32(0.85)
FADING = 0.80  # of the support burden, from one week to the next
TICKET_RATE = 0.030  # a week, of a customer with u = 0
TICKET_SLOPE = 0.55  # of the log rate per unit of u
MAX_TICKET_RATE = 1.0
SEVERITY_BURDEN = np.array([0.2, 0.6, 1.2], dtype=np.float32)  # of severity 1, 2, 3

YEARLY_CONTRACT = -0.80
TENURE_SLOPE = -0.45  # per unit of ln(1 + years)
INVOICE_PAYMENT = 0.25


@dataclass(frozen=True)
class Relation:
    """How the state turns into a weekly churn hazard (all on the logit scale)."""

    intercept: float
    unhappiness: float
    support: float
    price: float


STABLE = Relation(intercept=-5.58, unhappiness=2.35, support=0.40, price=0.20)
AFTER_CONCEPT_CHANGE = Relation(intercept=-4.90, unhappiness=0.20, support=0.05, price=1.60)


@dataclass(frozen=True)
class Tickets:
    """Support tickets; arrays of shape (n_tickets,). `week` and `customer` are positions."""

    week: Integers
    customer: Integers
    severity: Integers  # 0, 1, 2 for severity 1, 2, 3


@dataclass(frozen=True)
class Lives:
    """What happens to the customers of one chunk.

    week_end : shape (weeks, n), last day of each customer's weeks.
    unhappiness, support, hazard : shape (weeks, n); hazard[w] follows from the state at w - 1.
    churn_day : shape (n,), the day after the world's end for who stays.
    churn_week : shape (n,), the number of weeks for who stays.
    """

    week_end: Integers
    unhappiness: Floats
    support: Floats
    hazard: Floats
    tickets: Tickets
    churn_week: Integers
    churn_day: Integers


def live(rng: np.random.Generator, calendar: Calendar, people: Population) -> Lives:
    """Draw the latent processes and the churn of a chunk of customers."""
    weeks = np.arange(calendar.weeks, dtype=np.int64)[:, None]
    last = calendar.end_day - 1 - people.phase[None, :]
    week_end = last - WEEK_DAYS * (calendar.weeks - 1 - weeks)
    joined = people.signup_day >= calendar.first_day
    unhappiness = _unhappiness(rng, calendar.weeks, joined, people)
    tickets = _tickets(rng, unhappiness, week_end, people)
    support = _support(tickets, unhappiness.shape)
    hazard = np.zeros_like(unhappiness)
    hazard[1:] = weekly_hazard(calendar, people, week_end[1:], unhappiness[:-1], support[:-1])
    exposed = (week_end >= calendar.first_day) & (week_end > people.signup_day)
    churns = exposed & (rng.random(hazard.shape, dtype=np.float32) < hazard)
    churn_week = np.where(churns.any(axis=0), churns.argmax(axis=0), calendar.weeks)
    end_of_week = week_end[np.minimum(churn_week, calendar.weeks - 1), np.arange(people.size)]
    earliest = np.maximum(
        np.maximum(end_of_week - WEEK_DAYS + 1, people.signup_day + 1), calendar.first_day
    )
    day = earliest + (rng.random(people.size) * (end_of_week - earliest + 1)).astype(np.int64)
    churn_day = np.where(churn_week < calendar.weeks, day, calendar.end_day)
    return Lives(week_end, unhappiness, support, hazard, tickets, churn_week, churn_day)


def weekly_hazard(
    calendar: Calendar,
    people: Population,
    week_end: Integers,
    unhappiness: Floats,
    support: Floats,
) -> Floats:
    """Return the probability of churning in weeks that end at `week_end`, given the state before.

    Arrays have shape (..., n); the relation is the one that holds in the middle of the week.
    """
    changed = week_end - WEEK_DAYS // 2 >= calendar.month_start(CONCEPT_CHANGE_MONTH)
    years = np.maximum(week_end - people.signup_day, 0).astype(np.float32) / np.float32(365.25)
    fixed = np.where(people.contract == MONTHLY, 0.0, YEARLY_CONTRACT) + np.where(
        people.payment_method == INVOICE, INVOICE_PAYMENT, 0.0
    )
    common = fixed.astype(np.float32) + np.float32(TENURE_SLOPE) * np.log1p(years)
    logit = common + _relation(STABLE, people, unhappiness, support)
    if changed.any():
        other = common + _relation(AFTER_CONCEPT_CHANGE, people, unhappiness, support)
        logit = np.where(changed, other, logit)
    return np.asarray(1 / (1 + np.exp(-logit)), dtype=np.float32)


def ticket_rate(unhappiness: Floats) -> Floats:
    """Return the expected tickets a week."""
    rate = np.float32(TICKET_RATE) * np.exp(np.float32(TICKET_SLOPE) * unhappiness)
    return np.asarray(np.minimum(rate, np.float32(MAX_TICKET_RATE)))


def severity_shares(unhappiness: Floats) -> tuple[Floats, Floats]:
    """Return the probabilities of severity 2 or 3, and of severity 3."""
    worse = 1 / (1 + np.exp(-(0.1 + 0.5 * unhappiness)))
    severe = worse / (1 + np.exp(-(-0.9 + 0.6 * unhappiness)))
    return worse.astype(np.float32), severe.astype(np.float32)


def _relation(
    relation: Relation, people: Population, unhappiness: Floats, support: Floats
) -> Floats:
    price = np.float32(relation.intercept) + np.float32(relation.price) * people.price_pressure
    felt = np.float32(relation.unhappiness) * unhappiness
    return np.asarray(price + felt + np.float32(relation.support) * support)


def _unhappiness(
    rng: np.random.Generator, weeks: int, joined: Booleans, people: Population
) -> Floats:
    """Return a stationary autoregression with deviation 1, shifted up in the south.

    Who is already a customer when the world starts has survived: the unhappiest are gone.
    """
    state = rng.standard_normal((weeks, people.size), dtype=np.float32)
    state[0] = np.where(joined, state[0], SURVIVOR_MEAN + SURVIVOR_SPREAD * state[0])
    step = np.float32(np.sqrt(1 - MEMORY**2))
    for week in range(1, weeks):
        state[week] *= step
        state[week] += np.float32(MEMORY) * state[week - 1]
    state += np.where(people.south, SOUTH_UNHAPPINESS, 0.0).astype(np.float32)
    return state


def _tickets(
    rng: np.random.Generator, unhappiness: Floats, week_end: Integers, people: Population
) -> Tickets:
    counts = rng.poisson(ticket_rate(unhappiness))
    counts[week_end <= people.signup_day] = 0
    week, customer = np.nonzero(counts)
    times = counts[week, customer]
    week, customer = np.repeat(week, times), np.repeat(customer, times)
    worse, severe = severity_shares(unhappiness[week, customer])
    drawn = rng.random(len(week), dtype=np.float32)
    severity = (drawn < worse).astype(np.int64) + (drawn < severe)
    return Tickets(week, customer, severity)


def _support(tickets: Tickets, shape: tuple[int, ...]) -> Floats:
    weeks, n = shape
    burden = np.bincount(
        tickets.week * n + tickets.customer,
        weights=SEVERITY_BURDEN[tickets.severity],
        minlength=weeks * n,
    )
    support = burden.reshape(shape).astype(np.float32)
    for week in range(1, weeks):
        support[week] += np.float32(FADING) * support[week - 1]
    return support
