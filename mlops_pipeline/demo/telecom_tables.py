"""What the operator of the telecom world records: six tables, as Arrow.

Belongs here: how hidden state and habits show in the rows, and when each row is loaded. Every row
is available from the midnight after the day it happened; nothing is recorded before signup, from
the churn on, or after the world's end.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlops_pipeline.demo.telecom_latent import Lives
from mlops_pipeline.demo.telecom_world import (
    AGE_BANDS,
    CHANNELS,
    CONTRACTS,
    GENDERS,
    INVOICE,
    PAYMENT_METHODS,
    PLAN_FEE,
    PLANS,
    REGIONS,
    SOUTH_DROPPED_CALLS,
    WEEK_DAYS,
    Calendar,
    Floats,
    Integers,
    Population,
)

DAY_US = 86_400_000_000
TIME = pa.timestamp("us", tz="UTC")
CATEGORIES = ("network", "billing", "device", "other")
REASONS = ("service", "price", "moved", "unknown")
_KEY = pa.field("customer_id", pa.int64())
_LOADED = pa.field("loaded_at", TIME)


def _schema(time: str, *fields: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema([_KEY, pa.field(time, TIME), *(pa.field(*item) for item in fields), _LOADED])


_TEXT, _REAL, _WHOLE = pa.string(), pa.float64(), pa.int64()
TABLES: dict[str, pa.Schema] = {
    "accounts": _schema(
        "signup_at",
        *((name, _TEXT) for name in ("plan", "contract", "payment_method")),
        *((name, _TEXT) for name in ("acquisition_channel", "gender", "age_band", "region")),
    ),
    "weekly_usage": _schema(
        "week_end",
        *((name, _REAL) for name in ("data_gb", "voice_minutes")),
        *((name, _WHOLE) for name in ("sms_count", "roaming_minutes", "dropped_calls")),
    ),
    "billing": _schema(
        "billed_at",
        ("amount", _REAL),
        ("discount", _REAL),
        ("overdue_days", _WHOLE),
        ("late_fee", _REAL),
    ),
    "engagement": _schema(
        "week_end",
        ("app_sessions", _WHOLE),
        ("app_minutes", _REAL),
        ("self_service_actions", _WHOLE),
        ("campaign_opens", _WHOLE),
        ("nps_score", _WHOLE),
    ),
    "tickets": _schema(
        "opened_at", ("category", _TEXT), ("severity", _WHOLE), ("resolution_hours", _REAL)
    ),
    "churn_events": _schema("churned_at", ("reason", _TEXT)),
}


def record(
    rng: np.random.Generator, calendar: Calendar, people: Population, lives: Lives
) -> dict[str, pa.Table]:
    """Return the rows that all tables hold about these customers."""
    week, customer = np.nonzero(
        (lives.week_end >= calendar.first_day)
        & (lives.week_end >= people.signup_day + WEEK_DAYS)
        & (lives.week_end < lives.churn_day)
    )
    mood = lives.unhappiness[week, customer]
    week_end = lives.week_end[week, customer] * DAY_US + DAY_US - 1_000_000
    weekly = {"customer_id": people.customer_id[customer], "week_end": week_end}
    return {
        "accounts": _accounts(people),
        "weekly_usage": _table(
            "weekly_usage", {**weekly, **_usage(rng, people, customer, mood)}, "week_end"
        ),
        "billing": _billing(rng, calendar, people, lives),
        "engagement": _table(
            "engagement", {**weekly, **_engagement(rng, people, customer, mood)}, "week_end"
        ),
        "tickets": _tickets(rng, calendar, people, lives),
        "churn_events": _churn(rng, calendar, people, lives),
    }


def _table(name: str, columns: Mapping[str, object], time: str) -> pa.Table:
    """Build a table of the declared schema; times are int64 microseconds since 1970."""
    happened = np.asarray(columns[time], dtype=np.int64)
    columns = {**columns, "loaded_at": (happened // DAY_US + 1) * DAY_US}
    arrays = []
    for field in TABLES[name]:
        values = columns[field.name]
        if field.type == TIME:
            arrays.append(pa.array(np.asarray(values, dtype=np.int64)).view(TIME))
        else:
            arrays.append(values if isinstance(values, pa.Array) else pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=TABLES[name])


def _texts(codes: npt.NDArray[np.integer], names: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(codes.astype(np.int32), pa.array(names)).cast(_TEXT)


def _accounts(people: Population) -> pa.Table:
    columns = {
        "customer_id": people.customer_id,
        "signup_at": people.signup_day * DAY_US + people.signup_microsecond,
        "plan": _texts(people.plan, PLANS),
        "contract": _texts(people.contract, CONTRACTS),
        "payment_method": _texts(people.payment_method, PAYMENT_METHODS),
        "acquisition_channel": _texts(people.channel, CHANNELS),
        "gender": _texts(people.gender, GENDERS),
        "age_band": _texts(people.age_band, AGE_BANDS),
        "region": _texts(people.region, REGIONS),
    }
    return _table("accounts", columns, "signup_at")


def _usage(
    rng: np.random.Generator, people: Population, customer: Integers, mood: Floats
) -> dict[str, object]:
    """Return weekly usage: it falls with unhappiness (mood), dropped calls rise."""
    n = len(customer)

    def noise(spread: float) -> Floats:
        return np.float32(spread) * rng.standard_normal(n, dtype=np.float32)

    data = np.exp(1.1 + people.data_habit[customer] - 0.32 * mood + noise(0.28))
    voice = np.exp(3.9 + people.voice_habit[customer] - 0.30 * mood + noise(0.28))
    sms = np.exp(1.2 + people.sms_habit[customer] - 0.10 * mood + noise(0.50))
    roams = rng.random(n, dtype=np.float32) < 0.05
    roaming = np.where(roams, rng.exponential(25.0, n), 0.0)
    region = np.where(people.south, SOUTH_DROPPED_CALLS, 1.0).astype(np.float32)[customer]
    dropped = rng.poisson(region * voice / 100 * np.exp(-0.3 + 0.30 * mood))
    return {
        "data_gb": np.round(data.astype(np.float64), 3),
        "voice_minutes": np.round(voice.astype(np.float64), 1),
        "sms_count": sms.astype(np.int64),
        "roaming_minutes": roaming.astype(np.int64),
        "dropped_calls": dropped,
    }


def _engagement(
    rng: np.random.Generator, people: Population, customer: Integers, mood: Floats
) -> dict[str, object]:
    """Return weekly use of the app; the net promoter score is asked rarely."""
    n = len(customer)
    sessions = rng.poisson(np.exp(1.6 + people.app_habit[customer] - 0.28 * mood))
    spread = np.exp(1.2 + np.float32(0.4) * rng.standard_normal(n, dtype=np.float32))
    asked = rng.random(n, dtype=np.float32) < 0.04
    score = np.zeros(n, dtype=np.int64)
    answer = 7.4 - 1.5 * mood[asked] + 1.2 * rng.standard_normal(int(asked.sum()))
    score[asked] = np.clip(np.round(answer), 0, 10).astype(np.int64)
    return {
        "app_sessions": sessions,
        "app_minutes": np.round((sessions * spread).astype(np.float64), 1),
        "self_service_actions": rng.binomial(np.minimum(sessions, 30), 0.08),
        "campaign_opens": rng.poisson(0.15, n),
        "nps_score": pa.array(score, _WHOLE, mask=~asked),
    }


def _billing(
    rng: np.random.Generator, calendar: Calendar, people: Population, lives: Lives
) -> pa.Table:
    """Return monthly bills; `overdue_days` is how late the bill before this one was paid."""
    day = calendar.month_starts[1:, None] - 1 - people.bill_lead[None, :]
    month, customer = np.nonzero((day > people.signup_day) & (day < lives.churn_day))
    billed = day[month, customer]
    n = len(billed)
    week = np.minimum((billed - lives.week_end[0, customer]) // WEEK_DAYS, calendar.weeks - 1)
    mood = lives.unhappiness[np.maximum(week, 0), customer]
    listed = PLAN_FEE[people.plan[customer]] * people.price_factor[customer]
    extra = rng.exponential(1.2, n) * (rng.random(n) < 0.3)
    discount = np.round(listed.astype(np.float64) * people.discount_share[customer], 2)
    invoice = people.payment_method[customer] == INVOICE
    late = rng.random(n) < 1 / (1 + np.exp(-(-2.6 + 0.7 * mood + 0.5 * invoice)))
    overdue = np.where(late, 1 + rng.geometric(0.09, n), 0)
    columns = {
        "customer_id": people.customer_id[customer],
        "billed_at": billed * DAY_US + 6 * DAY_US // 24,
        "amount": np.round(listed - discount + extra, 2),
        "discount": discount,
        "overdue_days": np.minimum(overdue, 60),
        "late_fee": np.where(overdue > 7, 5.0, 0.0),
    }
    return _table("billing", columns, "billed_at")


def _tickets(
    rng: np.random.Generator, calendar: Calendar, people: Population, lives: Lives
) -> pa.Table:
    """Return tickets; each is resolved on the day it is opened."""
    tickets = lives.tickets
    n = len(tickets.week)
    end = lives.week_end[tickets.week, tickets.customer]
    day = end - rng.integers(0, WEEK_DAYS, n)
    hours = np.array([2.5, 5.0, 8.0])[tickets.severity] * np.exp(0.5 * rng.standard_normal(n))
    hours = np.round(np.minimum(hours, 23.0), 1)
    opened = day * DAY_US + (rng.random(n) * (23.5 - hours) * 3600).astype(np.int64) * 1_000_000
    network = np.where(people.south[tickets.customer], 0.52, 0.34)
    bounds = np.stack([network, network + 0.26, network + 0.40])
    kind = (rng.random(n) >= bounds).sum(axis=0)
    known = (day > people.signup_day[tickets.customer]) & (day < lives.churn_day[tickets.customer])
    known &= day >= calendar.first_day
    order = np.flatnonzero(known)[np.argsort(opened[known], kind="stable")]
    columns = {
        "customer_id": people.customer_id[tickets.customer[order]],
        "opened_at": opened[order],
        "category": _texts(kind[order], CATEGORIES),
        "severity": tickets.severity[order] + 1,
        "resolution_hours": hours[order],
    }
    return _table("tickets", columns, "opened_at")


def _churn(
    rng: np.random.Generator, calendar: Calendar, people: Population, lives: Lives
) -> pa.Table:
    gone = np.flatnonzero(lives.churn_day < calendar.end_day)
    second = rng.integers(0, 86_400, len(gone))
    churned = lives.churn_day[gone] * DAY_US + second * 1_000_000
    order = np.argsort(churned, kind="stable")
    reason = rng.choice(len(REASONS), size=len(gone), p=[0.4, 0.3, 0.2, 0.1])
    columns = {
        "customer_id": people.customer_id[gone[order]],
        "churned_at": churned[order],
        "reason": _texts(reason, REASONS),
    }
    return _table("churn_events", columns, "churned_at")
