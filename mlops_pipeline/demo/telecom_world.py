"""The telecom world: its calendar, its parameters and its customers.

Belongs here: what is fixed before anything happens (who exists, since when, with which plan, price
and habits). The weekly latent state and the churn are in telecom_latent.py, the tables that an
operator would see in telecom_tables.py, the entry point in telecom.py.
"""

from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

EPOCH = date(1970, 1, 1)
WEEK_DAYS = 7
MIX_CHANGE_MONTH = 25  # the acquisition campaign
CONCEPT_CHANGE_MONTH = 27  # the relation between features and label

PLANS = ("basic", "plus", "premium")
CONTRACTS = ("monthly", "yearly")
PAYMENT_METHODS = ("card", "debit", "invoice")
CHANNELS = ("shop", "web", "partner", "campaign")
GENDERS = ("female", "male", "other")
AGE_BANDS = ("18-25", "26-40", "41-60", "61+")
REGIONS = ("north", "south", "east", "west")
CAMPAIGN, INVOICE, MONTHLY, SOUTH = 3, 2, 0, 1  # positions in the tuples above

PLAN_FEE = np.array([15.0, 30.0, 50.0], dtype=np.float32)  # EUR per month
PLAN_DATA = np.array([0.0, 0.35, 0.70], dtype=np.float32)  # log of weekly GB over basic
PLAN_VOICE = np.array([0.0, 0.15, 0.30], dtype=np.float32)

START_SHARE = 0.60  # of all customers ever: those who signed up before the world starts
CAMPAIGN_MONTHS = 24.0  # the campaign month brings as many joiners as this many other months
CAMPAIGN_DAYS = 10  # they all join in the first days of it
MEAN_TENURE_DAYS = 1_300.0
MAX_TENURE_DAYS = 4_000

SOUTH_SURCHARGE = 0.06  # built-in bias: the same plan costs more in the south,
SOUTH_UNHAPPINESS = 0.38  # the neglected network makes its customers unhappier,
SOUTH_DROPPED_CALLS = 1.6  # and its calls drop this many times as often


@dataclass(frozen=True)
class Calendar:
    """Days and months of the world; a day is an integer since 1970-01-01.

    Parameters
    ----------
    start : date
        First day, the first of a month.
    months : int
        How many months the world lasts.
    """

    start: date
    months: int

    @cached_property
    def month_starts(self) -> Integers:
        """First day of every month and, last, the day after the end, shape (months + 1,)."""
        first = np.datetime64(self.start, "M")
        months = first + np.arange(self.months + 1)
        return months.astype("datetime64[D]").astype(np.int64)

    @property
    def first_day(self) -> int:
        """First day of the world."""
        return int(self.month_starts[0])

    @property
    def end_day(self) -> int:
        """The day after the last."""
        return int(self.month_starts[-1])

    @property
    def weeks(self) -> int:
        """Number of week rows that cover the world (the first may begin before it)."""
        return -(-(self.end_day - self.first_day) // WEEK_DAYS) + 1

    def month_start(self, month: int) -> int:
        """First day of a month counted from 1, also beyond the end."""
        first = np.datetime64(self.start, "M") + (month - 1)
        return int(first.astype("datetime64[D]").astype(np.int64))


@dataclass(frozen=True)
class Population:
    """The customers of one chunk; arrays of shape (n_customers,).

    `phase` is the number of days between the end of a customer's last week and the end of the
    world's last day: customers end their weeks on all weekdays, so that every month-end sees the
    same mix of complete and running weeks. It falls with the position, so rows of one week number
    come out in order of time. `bill_lead` is the number of days from a customer's bill to the last
    day of the month.
    """

    customer_id: Integers
    signup_day: Integers
    signup_microsecond: Integers
    plan: Integers
    contract: Integers
    payment_method: Integers
    channel: Integers
    gender: Integers
    age_band: Integers
    region: Integers
    phase: Integers
    bill_lead: Integers
    price_factor: Floats
    discount_share: Floats
    price_pressure: Floats
    data_habit: Floats
    voice_habit: Floats
    sms_habit: Floats
    app_habit: Floats

    @property
    def size(self) -> int:
        """Number of customers."""
        return len(self.customer_id)

    @property
    def south(self) -> Booleans:
        """Who lives in the disadvantaged region."""
        return np.equal(self.region, SOUTH)


def draw_population(
    rng: np.random.Generator, calendar: Calendar, customer_id: Integers
) -> Population:
    """Draw customers: signup, attributes, price and habits."""
    n = len(customer_id)
    signup_day, campaign = _signup(rng, calendar, n)

    def choose(shares: list[float], campaign_shares: list[float] | None = None) -> Integers:
        drawn = rng.choice(len(shares), size=n, p=shares)
        if campaign_shares is not None:
            other = rng.choice(len(shares), size=n, p=campaign_shares)
            drawn = np.where(campaign, other, drawn)
        return drawn.astype(np.int64)

    def habit(spread: float) -> Floats:
        return (spread * rng.standard_normal(n, dtype=np.float32)).astype(np.float32)

    plan = choose([0.35, 0.45, 0.20], [0.95, 0.04, 0.01])
    contract = choose([0.55, 0.45], [1.00, 0.00])
    survivor = signup_day < calendar.first_day  # who churns more is already rarer among them
    contract = np.where(survivor, choose([0.38, 0.62]), contract)
    region = choose([0.28, 0.24, 0.26, 0.22])
    price_factor = np.exp(habit(0.10)) * np.where(region == SOUTH, 1 + SOUTH_SURCHARGE, 1.0)
    discounted = rng.random(n) < 0.35
    discount_share = np.where(discounted, rng.uniform(0.05, 0.30, n), 0.0)
    return Population(
        customer_id=customer_id,
        signup_day=signup_day,
        signup_microsecond=rng.integers(0, 86_400, n) * 1_000_000,
        plan=plan,
        contract=contract,
        payment_method=choose([0.45, 0.40, 0.15]),
        channel=choose([0.35, 0.37, 0.20, 0.08], [0.0, 0.0, 0.0, 1.0]),
        gender=choose([0.45, 0.43, 0.12]),
        age_band=choose([0.20, 0.35, 0.28, 0.17], [0.70, 0.22, 0.06, 0.02]),
        region=region,
        phase=WEEK_DAYS - 1 - np.arange(n, dtype=np.int64) * WEEK_DAYS // n,
        bill_lead=np.where(campaign, rng.integers(0, 16, n), rng.integers(0, 28, n)),
        price_factor=price_factor.astype(np.float32),
        discount_share=discount_share.astype(np.float32),
        price_pressure=_price_pressure(price_factor, discount_share),
        data_habit=habit(0.30) + PLAN_DATA[plan],
        voice_habit=habit(0.30) + PLAN_VOICE[plan],
        sms_habit=habit(0.50),
        app_habit=habit(0.30),
    )


def _signup(rng: np.random.Generator, calendar: Calendar, n: int) -> tuple[Integers, Booleans]:
    """Return the signup day, and who joined in the campaign."""
    weights = np.ones(calendar.months)
    if calendar.months >= MIX_CHANGE_MONTH:
        weights[MIX_CHANGE_MONTH - 1] = CAMPAIGN_MONTHS
    month = rng.choice(calendar.months, size=n, p=weights / weights.sum())
    first, after = calendar.month_starts[month], calendar.month_starts[month + 1]
    campaign = month == MIX_CHANGE_MONTH - 1
    days = np.where(campaign, CAMPAIGN_DAYS, after - first)
    joined = first + (rng.random(n) * days).astype(np.int64)
    tenure = np.minimum(rng.exponential(MEAN_TENURE_DAYS, n).astype(np.int64), MAX_TENURE_DAYS)
    from_start = rng.random(n) < START_SHARE
    signup_day = np.where(from_start, calendar.first_day - 1 - tenure, joined)
    return signup_day, campaign & ~from_start


def _price_pressure(price_factor: npt.ArrayLike, discount_share: npt.ArrayLike) -> Floats:
    """Net price over the plan's list price, on a log scale, mean 0 and deviation about 1."""
    net = np.log(price_factor) + np.log1p(-np.asarray(discount_share))
    return np.asarray((net + 0.055) / 0.145, dtype=np.float32)
