"""Card payments in deliveries: late rows, duplicates, revisions, payments that change their owner.

Every row that a delivery brings is known to the stream by being pushed as it arrives, in any order,
except a revision of the owner, of which only the accepted rows tell.
"""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mlops_pipeline.config import UseCase
from mlops_pipeline.demo.payments import simulate_fraud
from mlops_pipeline.spec.rules import ClassBalance
from mlops_pipeline_tests.lifecycle.features.online.worlds import configured
from mlops_pipeline_tests.worlds import DAY, HOUR, Row, World

CUSTOMERS, MONTHS = 40, 3
FIRST = datetime(2024, 3, 20, 12, tzinfo=UTC)
EVERY = timedelta(hours=31)  # so that deliveries are at different times of the day
AVAILABILITY = {
    "customers": "loaded_at",
    "transactions": "loaded_at",
    "fraud_reports": "confirmed_at",
}


@dataclass
class Delivery:
    """What arrives at one moment."""

    now: datetime
    pushed: list[Row]  # of transactions, in the order of arrival
    moved: list[Row]  # revisions that give a payment to another customer


def payments_case() -> UseCase:
    """The fraud configuration, its sources folders of deliveries; small data keep no balance."""
    case = configured("fraud")
    sources = {
        name: source.model_copy(
            update={
                "uri": name,
                "max_quarantined": 1.0,
                "rules": tuple(r for r in source.rules if not isinstance(r, ClassBalance)),
            }
        )
        for name, source in case.sources.items()
    }
    return case.model_copy(update={"sources": sources})


class Payments:
    """The world, delivered step by step."""

    def __init__(self, folder: Path, *, seed: int = 5) -> None:
        self.world = World(payments_case(), folder, threads=2)
        (tables,) = simulate_fraud(customers=CUSTOMERS, months=MONTHS, seed=seed)
        self._tables = tables
        self._draw = random.Random(seed)
        self._held_back: list[Row] = []
        self._before: list[Row] = []
        self._last: datetime | None = None

    @property
    def customers(self) -> list[str]:
        return [str(number) for number in range(1, CUSTOMERS + 1)]

    def deliver(self, now: datetime) -> Delivery:
        """Write what became known since the last delivery; return it as it arrived."""
        for name in ("customers", "fraud_reports"):
            self._write(name, self._since(name, now))
        rows = self._since("transactions", now)
        is_first = self._last is None
        late, self._held_back = self._held_back, []
        moved: list[Row] = []
        if not is_first:
            self._held_back = [row for row in rows if self._draw.random() < 0.08]
            rows = [row for row in rows if row not in self._held_back]
            rows += [self._revised(row, now) for row in rows if self._draw.random() < 0.1]
            rows += [row for row in self._before if self._draw.random() < 0.1]  # delivered again
            moved = [self._moved(row) for row in self._before if self._draw.random() < 0.05]
        rows += late
        self._write(
            "transactions", [*rows, *moved, *(r for r in rows if self._draw.random() < 0.05)]
        )
        self._before, self._last = rows, now
        pushed = [*rows, *(row for row in rows if self._draw.random() < 0.2)]
        self._draw.shuffle(pushed)
        return Delivery(now, pushed, moved)

    def _since(self, name: str, now: datetime) -> list[Row]:
        table, column = self._tables[name], AVAILABILITY[name]
        known = pc.field(column) <= pa.scalar(now, table.schema.field(column).type)
        if self._last is not None:
            known &= pc.field(column) > pa.scalar(self._last, table.schema.field(column).type)
        rows: list[Row] = table.filter(known).to_pylist()
        return rows

    def _write(self, name: str, rows: list[Row]) -> None:
        columns = self.world.use_case.sources[name].columns
        naive = [{key: _naive(row[key]) for key in columns} for row in rows]
        if naive:
            self.world.deliver(name, naive)

    def _revised(self, row: Row, now: datetime) -> Row:
        """The same payment, corrected some time later."""
        loaded = min(_aware(row["loaded_at"]) + self._draw.random() * 9 * HOUR, now)
        changed = {"loaded_at": loaded, "amount": row["amount"] + 1, "channel": "online"}
        if self._draw.random() < 0.3:
            changed["occurred_at"] = _aware(row["occurred_at"]) - self._draw.random() * 2 * DAY
        return {**row, **changed}

    def _moved(self, row: Row) -> Row:
        """The same payment, booked to another customer a little later."""
        owner = self._draw.randrange(1, CUSTOMERS + 1)
        loaded = _aware(row["loaded_at"]) + timedelta(seconds=1)
        return {**row, "customer_id": owner, "loaded_at": min(loaded, FIRST)}


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _naive(value: Any) -> Any:
    is_aware = isinstance(value, datetime) and value.tzinfo is not None
    return value.astimezone(UTC).replace(tzinfo=None) if is_aware else value
