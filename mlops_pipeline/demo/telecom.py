"""The churn world: a simulated telecom operator, drawn chunk by chunk.

Belongs here: the entry point and what is documented about the world's changes. Parameters and
customers are in telecom_world.py, hidden state and churn in telecom_latent.py, the six tables in
telecom_tables.py, the true probabilities in telecom_truth.py; writing files is in
demo/simulated.py. docs/simulation.md describes the world.
"""

from collections.abc import Iterator
from datetime import date

import numpy as np
import pyarrow as pa

from mlops_pipeline.demo.telecom_latent import Lives, live
from mlops_pipeline.demo.telecom_tables import DAY_US, TABLES, TIME, record
from mlops_pipeline.demo.telecom_truth import true_probability
from mlops_pipeline.demo.telecom_world import (
    CONCEPT_CHANGE_MONTH,
    MIX_CHANGE_MONTH,
    Calendar,
    Population,
    draw_population,
)
from mlops_pipeline.errors import MlopsError

__all__ = [
    "CONCEPT_CHANGE_MONTH",
    "DRIFTED_FEATURES_MONTH_25",
    "HISTORY_FEATURES_MONTH_25",
    "MIX_CHANGE_MONTH",
    "MIX_FEATURES_MONTH_25",
    "RELATION_FEATURES_MONTH_27",
    "TABLES",
    "TRUTH",
    "TRUTH_SCHEMA",
    "simulate_churn",
]

START = date(2023, 1, 1)
CHUNK_CUSTOMERS = 20_000
TRUTH = "_truth"
TRUTH_SCHEMA = pa.schema(
    [("customer_id", pa.int64()), ("as_of", TIME), ("p_churn_90d", pa.float64())]
)
# Features of configs/churn.yaml whose distribution over the customers at the end of month 25 truly
# differs from that of the stable months: population stability index of at least 0.1 in a sample of
# 200,000 customers, missing values as a bin of their own (docs/simulation.md has the figures).
MIX_FEATURES_MONTH_25 = (  # who the customers are; these stay moved
    "tenure_days",
    "acquisition_channel",
    "contract",
    "plan",
    "amount_mean_90d",
    "amount_last",
)
HISTORY_FEATURES_MONTH_25 = (  # the newcomers have no eight weeks before; gone after two months
    "data_gb_mean_prior_56d",
    "data_gb_std_84d",
    "voice_minutes_mean_prior_56d",
    "dropped_calls_mean_prior_56d",
    "app_sessions_mean_prior_56d",
    "data_trend",
    "voice_trend",
    "app_trend",
    "usage_trend",
)
DRIFTED_FEATURES_MONTH_25: tuple[str, ...] = MIX_FEATURES_MONTH_25 + HISTORY_FEATURES_MONTH_25
# In month 27 no feature moves by itself: the weight of price rises, that of unhappiness vanishes.
RELATION_FEATURES_MONTH_27: tuple[str, ...] = ("price_index", "discount_share", "amount_mean_90d")


def simulate_churn(
    *,
    customers: int,
    months: int = 30,
    seed: int,
    start: date = START,
    chunk_customers: int = CHUNK_CUSTOMERS,
    truth: bool = False,
) -> Iterator[dict[str, pa.Table]]:
    """Yield all tables of the world, one chunk of customers after the other."""
    _check(customers, months, seed, start, chunk_customers)
    calendar = Calendar(start, months)
    for chunk, first in enumerate(range(0, customers, chunk_customers)):
        rng = np.random.Generator(np.random.Philox(key=np.array([seed, chunk], dtype=np.uint64)))
        ids = np.arange(first, min(first + chunk_customers, customers), dtype=np.int64) + 1
        people = draw_population(rng, calendar, ids)
        lives = live(rng, calendar, people)
        tables = record(rng, calendar, people, lives)
        if truth:
            tables[TRUTH] = _truth(calendar, people, lives)
        yield tables


def _check(customers: int, months: int, seed: int, start: date, chunk_customers: int) -> None:
    for name, value, least in (
        ("customers", customers, 1),
        ("months", months, 1),
        ("seed", seed, 0),
        ("chunk_customers", chunk_customers, 1),
    ):
        if value < least:
            raise MlopsError(
                "the world cannot be simulated",
                where=name,
                expected=f"at least {least}",
                found=str(value),
            )
    if start.day != 1:
        raise MlopsError(
            "the world cannot be simulated",
            where="start",
            expected="the first day of a month",
            found=start.isoformat(),
        )


def _truth(calendar: Calendar, people: Population, lives: Lives) -> pa.Table:
    tables = []
    for as_of_day in calendar.month_starts[1:]:
        members, probability = true_probability(calendar, people, lives, int(as_of_day))
        as_of = np.full(len(members), as_of_day * DAY_US, dtype=np.int64)
        arrays = [people.customer_id[members], pa.array(as_of).view(TIME), probability]
        tables.append(pa.Table.from_arrays([pa.array(a) for a in arrays], schema=TRUTH_SCHEMA))
    return pa.concat_tables(tables)
