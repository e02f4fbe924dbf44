"""What the bank of the card world records: customers, merchants, transactions, fraud reports.

Belongs here: how customers and transactions show in rows, and when each row is loaded.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlops_pipeline.demo.payments_episodes import DAY_SECONDS, HOUR_SECONDS, Transactions
from mlops_pipeline.demo.payments_world import (
    AGE_BANDS,
    ATM,
    CARD_TYPES,
    CATEGORIES,
    CHANNELS,
    COUNTRIES,
    GENDERS,
    ONLINE,
    REGIONS,
    RISKS,
    SEGMENTS,
    Customers,
    Merchants,
    Numbers,
)
from mlops_pipeline.demo.telecom_world import Calendar, Integers

TIME = pa.timestamp("us", tz="UTC")
SECOND_US = 1_000_000
LABEL_DELAY_DAYS = 30
LATE_SHARE = 0.03  # of the transactions where the card is present: the terminal was offline
LATE_HOURS = (1, 20)  # shortest, longest
DELAY_SECONDS, DELAY_SPREAD = 20.0, 1.0  # of all the others: median, deviation of the logarithm
_TEXT, _REAL, _WHOLE, _FLAG = pa.string(), pa.float64(), pa.int64(), pa.bool_()
TABLES: dict[str, pa.Schema] = {
    "customers": pa.schema(
        [
            ("customer_id", _WHOLE),
            ("signup_at", TIME),
            ("home_country", _TEXT),
            ("home_region", _TEXT),
            ("segment", _TEXT),
            ("age_band", _TEXT),
            ("gender", _TEXT),
            ("card_type", _TEXT),
            ("loaded_at", TIME),
        ]
    ),
    "merchants": pa.schema(
        [("merchant_id", _WHOLE), ("country", _TEXT), ("category", _TEXT), ("risk", _TEXT)]
    ),
    "transactions": pa.schema(
        [
            ("transaction_id", _WHOLE),
            ("customer_id", _WHOLE),
            ("merchant_id", _WHOLE),
            ("merchant_category", _TEXT),
            ("merchant_country", _TEXT),
            ("merchant_risk", _TEXT),
            ("channel", _TEXT),
            ("amount", _REAL),
            ("is_foreign", _FLAG),
            ("hour", _WHOLE),
            ("occurred_at", TIME),
            ("loaded_at", TIME),
            ("is_fraud", _WHOLE),
            ("label_known_at", TIME),
        ]
    ),
    "fraud_reports": pa.schema(
        [
            ("transaction_id", _WHOLE),
            ("customer_id", _WHOLE),
            ("occurred_at", TIME),
            ("amount", _REAL),
            ("confirmed_at", TIME),
        ]
    ),
}


def customers_table(people: Customers) -> pa.Table:
    """Return the profiles, each loaded at the midnight after the signup."""
    signup = people.signup_day * DAY_SECONDS + people.signup_second
    columns = {
        "customer_id": people.customer_id,
        "signup_at": signup,
        "home_country": _texts(people.country, COUNTRIES),
        "home_region": _texts(people.region, REGIONS),
        "segment": _texts(people.segment, SEGMENTS),
        "age_band": _texts(people.age_band, AGE_BANDS),
        "gender": _texts(people.gender, GENDERS),
        "card_type": _texts(people.card_type, CARD_TYPES),
        "loaded_at": (people.signup_day + 1) * DAY_SECONDS,
    }
    return _table("customers", columns)


def merchants_table(merchants: Merchants) -> pa.Table:
    """Return all merchants."""
    columns = {
        "merchant_id": np.arange(len(merchants.country)) + 1,
        "country": _texts(merchants.country, COUNTRIES),
        "category": _texts(merchants.category, CATEGORIES),
        "risk": _texts(merchants.risk, RISKS),
    }
    return _table("merchants", columns)


def transactions_table(
    rng: np.random.Generator,
    people: Customers,
    merchants: Merchants,
    made: Transactions,
    transaction_id: Integers,
) -> pa.Table:
    """Return the transactions, loaded within seconds, or hours where the terminal was offline."""
    columns = {
        "transaction_id": transaction_id,
        "customer_id": people.customer_id[made.customer],
        "merchant_id": made.merchant + 1,
        "merchant_category": _texts(made.category, CATEGORIES),
        "merchant_country": _texts(merchants.country[made.merchant], COUNTRIES),
        "merchant_risk": _texts(made.risk, RISKS),
        "channel": _texts(made.channel, CHANNELS),
        "amount": made.amount,
        "is_foreign": made.foreign,
        "hour": made.second % DAY_SECONDS // HOUR_SECONDS,
        "occurred_at": made.second,
        "loaded_at": made.second + _delay(rng, made.channel),
        "is_fraud": made.fraud.astype(np.int64),
        "label_known_at": _known_at(made),
    }
    return _table("transactions", columns)


def reports_table(
    calendar: Calendar, people: Customers, made: Transactions, transaction_id: Integers
) -> pa.Table:
    """Return the frauds confirmed before the world's end."""
    rows = np.flatnonzero(made.fraud & (_known_at(made) < calendar.end_day * DAY_SECONDS))
    columns = {
        "transaction_id": transaction_id[rows],
        "customer_id": people.customer_id[made.customer[rows]],
        "occurred_at": made.second[rows],
        "amount": made.amount[rows],
        "confirmed_at": _known_at(made)[rows],
    }
    return _table("fraud_reports", columns)


def _known_at(made: Transactions) -> Integers:
    return made.second + LABEL_DELAY_DAYS * DAY_SECONDS


def _delay(rng: np.random.Generator, channel: Integers) -> Integers:
    """Return the seconds from a transaction to its load."""
    n = len(channel)
    usual: Numbers = DELAY_SECONDS * np.exp(DELAY_SPREAD * rng.standard_normal(n))
    late = (rng.random(n) < LATE_SHARE) & (channel != ONLINE) & (channel != ATM)
    hours = rng.uniform(*LATE_HOURS, n)
    return np.where(late, hours * HOUR_SECONDS, np.maximum(usual, 1.0)).astype(np.int64)


def _texts(codes: npt.NDArray[np.integer], names: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(codes.astype(np.int32), pa.array(names)).cast(_TEXT)


def _table(name: str, columns: Mapping[str, object]) -> pa.Table:
    """Build a table of the declared schema; times are int64 seconds since 1970."""
    arrays = []
    for field in TABLES[name]:
        values = columns[field.name]
        if field.type == TIME:
            microseconds = np.asarray(values, dtype=np.int64) * SECOND_US
            arrays.append(pa.array(microseconds).view(TIME))
        else:
            arrays.append(values if isinstance(values, pa.Array) else pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=TABLES[name])
