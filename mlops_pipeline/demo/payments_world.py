"""The card world: its parameters, its customers and its merchants.

Belongs here: what is fixed before anything is paid (who holds a card, where one can pay, and how
each kind of episode looks). Episodes and their transactions are in payments_episodes.py, the tables
that a bank would see in payments_tables.py, the entry point in payments.py.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlops_pipeline.demo.telecom_world import Booleans, Calendar, Integers

Numbers = npt.NDArray[np.float64]

COUNTRIES = ("DE", "ES", "FR", "IT", "NL")
REGIONS = ("north", "south", "east", "west")
SEGMENTS = ("student", "family", "professional", "retired")
AGE_BANDS = ("18-25", "26-40", "41-60", "61+")
GENDERS = ("female", "male", "other")
CARD_TYPES = ("debit", "credit", "prepaid")
CATEGORIES = (
    *("groceries", "fuel", "restaurants", "transport", "clothing"),
    *("electronics", "jewellery", "travel", "digital_goods", "cash"),
)
FUEL, DIGITAL, CASH = 1, 8, 9  # positions in CATEGORIES
CHANNELS = ("chip", "contactless", "online", "atm")
CHIP, CONTACTLESS, ONLINE, ATM = range(4)
RISKS = ("low", "medium", "high")

START_SHARE = 0.70  # of all customers: those who held a card before the world starts
MEAN_TENURE_DAYS = 1_500.0
MAX_TENURE_DAYS = 5_000
HABIT_MEAN, HABIT_SPREAD = float(np.log(22.0)), 0.40  # of the log of a usual amount (EUR)
ACTIVITY_SHAPE = 6.0  # of the gamma distribution of how often a customer pays, mean 1
SUSCEPTIBILITY_SPREAD = 0.9  # log scale: some cards are stolen again and again
CARD_SUSCEPTIBILITY = np.array([0.8, 1.3, 1.0])  # of a debit, credit, prepaid card
AGE_SHARES = np.array(  # by segment; age affects nothing else
    [
        [0.80, 0.17, 0.02, 0.01],
        [0.04, 0.52, 0.42, 0.02],
        [0.08, 0.44, 0.43, 0.05],
        [0.00, 0.00, 0.10, 0.90],
    ]
)
TRIPS_PER_YEAR = np.array([1.5, 1.2, 2.6, 1.6])  # by segment
TRIP_DAYS = (3, 15)  # shortest, one more than the longest
MERCHANTS_BY_RISK = (8, 4, 2)  # in every country and category

# How much more or less is paid than usual, by category (log scale).
CATEGORY_LEVEL = np.array([0.1, 0.5, 0.1, -0.9, 0.7, 1.5, 1.8, 1.8, -0.6, 1.0])

ERRAND_CATEGORIES = np.array(  # by segment
    [
        [0.300, 0.030, 0.220, 0.200, 0.070, 0.030, 0.005, 0.020, 0.085, 0.040],
        [0.390, 0.130, 0.100, 0.080, 0.080, 0.030, 0.005, 0.015, 0.070, 0.100],
        [0.270, 0.120, 0.210, 0.130, 0.070, 0.040, 0.010, 0.040, 0.060, 0.050],
        [0.430, 0.110, 0.120, 0.060, 0.050, 0.020, 0.010, 0.020, 0.020, 0.160],
    ]
)


@dataclass(frozen=True)
class Kind:
    """One kind of episode: transactions that follow one another within minutes or hours.

    Parameters
    ----------
    name : str
    daily : float
        Episodes a day of a mean customer (of a trip: on a day abroad).
    more : float
        Probability that after a transaction the episode goes on.
    gap : (float, float)
        Median minutes between two transactions, and the deviation of their logarithm.
    hour : (float, float, float)
        When it begins: the most likely hour, the spread in hours, the floor under the bell.
    amount : (float, float)
        Mean and deviation of the log amount over what the customer usually pays in the category.
    online, contactless : float
        Probability of paying online; of paying contactless where the card is present.
    foreign : (float, float)
        Probability of a merchant abroad, where the card is present and online.
    risk : (float, float, float)
        Probability of a merchant of low, medium, high risk.
    saturday : float
        How many times as frequent on a Saturday.
    categories : tuple of 10 floats; empty for errands, whose categories depend on the segment.
    """

    name: str
    daily: float
    more: float
    gap: tuple[float, float]
    hour: tuple[float, float, float]
    amount: tuple[float, float]
    online: float
    contactless: float
    foreign: tuple[float, float]
    risk: tuple[float, float, float]
    saturday: float = 1.0
    categories: tuple[float, ...] = ()


# The first four are the customer's own, the last three a thief's. Each sign of a theft has a
# harmless look-alike: tours are bursts of high amounts, top-ups are bursts online at night, often
# abroad, trips are abroad at all hours. Only a combination of signs tells.
KINDS = (
    Kind(
        "errand", 0.33, 0.22, (35, 0.9), (14, 4.0, 0.02), (0.0, 0.45), 0.15, 0.60, (0.004, 0.12),
        (0.74, 0.20, 0.06), 1.2,
    ),
    Kind(
        "tour", 0.016, 0.72, (15, 0.7), (15, 2.5, 0.01), (0.75, 0.50), 0.10, 0.40, (0.010, 0.12),
        (0.70, 0.23, 0.07), 3.0,
        (0.05, 0.01, 0.15, 0.02, 0.45, 0.16, 0.09, 0.01, 0.02, 0.04),
    ),
    Kind(
        "top_up", 0.016, 0.70, (5, 0.8), (23, 2.5, 0.08), (-0.30, 0.60), 0.95, 0.50, (0.004, 0.50),
        (0.55, 0.30, 0.15), 1.3,
        (0.01, 0.01, 0.06, 0.03, 0.12, 0.18, 0.01, 0.12, 0.45, 0.01),
    ),
    Kind(
        "trip", 1.9, 0.35, (35, 0.9), (19, 5.0, 0.12), (0.10, 0.55), 0.08, 0.50, (0.970, 0.30),
        (0.60, 0.28, 0.12), 1.0,
        (0.12, 0.04, 0.32, 0.16, 0.12, 0.02, 0.03, 0.09, 0.01, 0.09),
    ),
    Kind(
        "skimmed", 0.00020, 0.80, (9, 0.7), (2, 4.0, 0.12), (0.90, 0.50), 0.05, 0.05, (0.930, 0.50),
        (0.45, 0.32, 0.23), 1.0,
        (0.02, 0.02, 0.04, 0.02, 0.10, 0.28, 0.20, 0.02, 0.02, 0.28),
    ),
    Kind(
        "number", 0.00027, 0.82, (4, 0.8), (2, 4.0, 0.12), (1.00, 0.60), 0.97, 0.50, (0.050, 0.60),
        (0.45, 0.32, 0.23), 1.0,
        (0.01, 0.01, 0.02, 0.02, 0.14, 0.32, 0.05, 0.15, 0.27, 0.01),
    ),
    Kind(
        "pickpocket", 0.00020, 0.76, (10, 0.7), (22, 3.5, 0.10), (0.80, 0.50), 0.12, 0.75,
        (0.010, 0.15), (0.45, 0.32, 0.23), 1.0,
        (0.10, 0.10, 0.06, 0.04, 0.22, 0.22, 0.06, 0.01, 0.01, 0.18),
    ),
)  # fmt: skip
ERRAND, TOUR, TOP_UP, TRIP, SKIMMED, NUMBER, PICKPOCKET = range(len(KINDS))
FIRST_THEFT = SKIMMED
TEST_AMOUNT = -2.0  # a stolen number is tried with a small amount first (log scale, added)
ABROAD_ERRANDS, ABROAD_TOURS = 0.15, 0.0  # how many times as frequent while the customer travels


@dataclass(frozen=True)
class Customers:
    """The customers of one chunk; arrays of shape (n_customers,), categories as positions.

    `abroad` has the shape (n_customers, days): who is on a trip on which day of the world.
    """

    customer_id: Integers
    signup_day: Integers
    signup_second: Integers
    country: Integers
    region: Integers
    segment: Integers
    age_band: Integers
    gender: Integers
    card_type: Integers
    habit: Numbers
    activity: Numbers
    susceptibility: Numbers
    abroad: Booleans

    def __len__(self) -> int:
        """Return the number of customers."""
        return len(self.customer_id)


@dataclass(frozen=True)
class Merchants:
    """All merchants; arrays of shape (n_merchants,), in blocks by country, category and risk."""

    country: Integers
    category: Integers
    risk: Integers


def all_merchants() -> Merchants:
    """Return the merchants of the world; their id is their position plus 1."""
    cells = [
        (country, category, risk)
        for country in range(len(COUNTRIES))
        for category in range(len(CATEGORIES))
        for risk, count in enumerate(MERCHANTS_BY_RISK)
        for _ in range(count)
    ]
    return Merchants(*np.array(cells, dtype=np.int64).T)


def first_merchant(country: Integers, category: Integers, risk: Integers) -> Integers:
    """Return the position of the first merchant of a country, category and risk."""
    in_category = sum(MERCHANTS_BY_RISK)
    before = np.concatenate([[0], np.cumsum(MERCHANTS_BY_RISK)[:-1]])
    return np.asarray((country * len(CATEGORIES) + category) * in_category + before[risk])


def draw_customers(
    rng: np.random.Generator, calendar: Calendar, customer_id: Integers
) -> Customers:
    """Draw customers: signup, profile, habits, and when they travel."""
    n = len(customer_id)

    def choose(*shares: float) -> Integers:
        return rng.choice(len(shares), size=n, p=shares).astype(np.int64)

    days = calendar.end_day - calendar.first_day
    tenure = np.minimum(rng.exponential(MEAN_TENURE_DAYS, n).astype(np.int64), MAX_TENURE_DAYS)
    joined = calendar.first_day + rng.integers(0, days, n)
    from_start = rng.random(n) < START_SHARE
    segment = choose(0.18, 0.36, 0.28, 0.18)
    card_type = choose(0.55, 0.37, 0.08)
    spread = SUSCEPTIBILITY_SPREAD
    mean_one = np.exp(spread * rng.standard_normal(n) - spread**2 / 2)
    return Customers(
        customer_id=customer_id,
        signup_day=np.where(from_start, calendar.first_day - 1 - tenure, joined),
        signup_second=rng.integers(0, 86_400, n),
        country=choose(0.34, 0.17, 0.22, 0.17, 0.10),
        region=choose(0.26, 0.28, 0.22, 0.24),
        segment=segment,
        age_band=pick(rng, AGE_SHARES[segment]),
        gender=choose(0.47, 0.47, 0.06),
        card_type=card_type,
        habit=HABIT_MEAN + HABIT_SPREAD * rng.standard_normal(n),
        activity=rng.gamma(ACTIVITY_SHAPE, 1 / ACTIVITY_SHAPE, n),
        susceptibility=mean_one * CARD_SUSCEPTIBILITY[card_type],
        abroad=_trips(rng, segment, days),
    )


def pick(rng: np.random.Generator, shares: Numbers) -> Integers:
    """Draw one position a row from shares of shape (n, choices)."""
    bounds = shares.cumsum(axis=1)[:, :-1]
    return np.asarray((rng.random(len(shares))[:, None] > bounds).sum(axis=1), dtype=np.int64)


def _trips(rng: np.random.Generator, segment: Integers, days: int) -> Booleans:
    """Return who is abroad on which day, shape (n_customers, days)."""
    count = rng.poisson(TRIPS_PER_YEAR[segment] * days / 365.25)
    traveller = np.repeat(np.arange(len(segment)), count)
    first = rng.integers(0, days, len(traveller))
    after = np.minimum(first + rng.integers(*TRIP_DAYS, len(traveller)), days)
    steps = np.zeros((len(segment), days + 1), dtype=np.int16)
    np.add.at(steps, (traveller, first), 1)
    np.add.at(steps, (traveller, after), -1)
    return np.asarray(steps.cumsum(axis=1, dtype=np.int16)[:, :days] > 0)
