"""The card world: a simulated bank whose customers' cards are stolen, drawn chunk by chunk.

Belongs here: the entry point. Parameters, customers and merchants are in payments_world.py, what is
paid in payments_episodes.py, the four tables in payments_tables.py, the true probabilities in
payments_truth.py; writing files is in demo/simulated.py. docs/simulation.md describes the world.
"""

from collections.abc import Iterator
from datetime import date

import numpy as np
import pyarrow as pa

from mlops_pipeline.demo.payments_episodes import pay
from mlops_pipeline.demo.payments_tables import (
    TABLES,
    customers_table,
    merchants_table,
    reports_table,
    transactions_table,
)
from mlops_pipeline.demo.payments_truth import fraud_probability
from mlops_pipeline.demo.payments_world import all_merchants, draw_customers
from mlops_pipeline.demo.telecom_world import Calendar
from mlops_pipeline.errors import MlopsError

__all__ = ["CHUNK_CUSTOMERS", "MONTHS", "TABLES", "TRUTH", "TRUTH_SCHEMA", "simulate_fraud"]

START = date(2024, 1, 1)
MONTHS = 18
CHUNK_CUSTOMERS = 2_000
IDS_PER_CUSTOMER = 100_000  # more than the transactions of one customer in ten years
TRUTH = "_truth"
TRUTH_SCHEMA = pa.schema([("transaction_id", pa.int64()), ("p_fraud", pa.float64())])


def simulate_fraud(
    *,
    customers: int,
    months: int = MONTHS,
    seed: int,
    start: date = START,
    chunk_customers: int = CHUNK_CUSTOMERS,
    truth: bool = False,
) -> Iterator[dict[str, pa.Table]]:
    """Yield all tables of the world, one chunk of customers after the other."""
    _check(customers, months, seed, start, chunk_customers)
    calendar, merchants = Calendar(start, months), all_merchants()
    for chunk, first in enumerate(range(0, customers, chunk_customers)):
        rng = np.random.Generator(np.random.Philox(key=np.array([seed, chunk], dtype=np.uint64)))
        ids = np.arange(first, min(first + chunk_customers, customers), dtype=np.int64) + 1
        people = draw_customers(rng, calendar, ids)
        made = pay(rng, calendar, people)
        transaction_id = first * IDS_PER_CUSTOMER + 1 + np.arange(len(made.second), dtype=np.int64)
        known = merchants_table(merchants)
        tables = {
            "customers": customers_table(people),
            "merchants": known if chunk == 0 else known.slice(0, 0),
            "transactions": transactions_table(rng, people, merchants, made, transaction_id),
            "fraud_reports": reports_table(calendar, people, made, transaction_id),
        }
        if truth:
            values = [transaction_id, fraud_probability(calendar, people, made)]
            arrays = [pa.array(item) for item in values]
            tables[TRUTH] = pa.Table.from_arrays(arrays, schema=TRUTH_SCHEMA)
        yield tables


def _check(customers: int, months: int, seed: int, start: date, chunk_customers: int) -> None:
    at_least = {
        "customers": (customers, 1),
        "months": (months, 1),
        "seed": (seed, 0),
        "chunk_customers": (chunk_customers, 1),
        "start.day": (-start.day, -1),
    }
    for name, (value, least) in at_least.items():
        if value < least:
            raise MlopsError(
                "the world cannot be simulated",
                where=name,
                expected=f"at least {least}",
                found=str(value),
            )
