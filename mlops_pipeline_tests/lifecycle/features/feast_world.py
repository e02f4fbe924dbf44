"""A small world whose features are exported for Feast: by month, or by event."""

import random
from datetime import datetime
from pathlib import Path
from typing import Any

from mlops_pipeline.config import UseCase
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.features.feast import FeastExport, export_feast
from mlops_pipeline.lifecycle.features.offline import features_uri
from mlops_pipeline_tests.worlds import (
    DAY,
    HOUR,
    PLANS,
    VISITS,
    Row,
    World,
    advance,
    on,
    plan,
    shop,
    utc,
    visit,
)

CUSTOMERS = range(8)
MONTHS = [on(month) for month in (2, 3, 4)]
TTL_DAYS = 20
HISTORY: Row = {
    "source": "visits",
    "description": 'Visits of the "shop".',
    "ttl_days": TTL_DAYS,
    "columns": {
        "visits_30": {"aggregate": "count", "window_days": 30, "dtype": "int64"},
        "spent": {"aggregate": "sum", "of": "amount", "precision": 2},
        "last_kind": {"aggregate": "last", "of": "kind", "dtype": "string", "deprecated": True},
    },
}
PLAN: Row = {
    "source": "plans",
    "owner": "sales",
    "freshness_days": 10,
    "columns": {
        "tier": {"aggregate": "last", "of": "tier", "dtype": "string"},
        "is_gold": {"aggregate": "last", "of": "tier = 'gold'", "dtype": "boolean"},
    },
}
VISIT: Row = {
    "source": "visits",
    "request_time": True,
    "columns": {"amount_now": {"of": "amount"}},
}
DERIVED: Row = {"spent_a_visit": {"expression": "spent / nullif(visits_30, 0)"}}
FEATURES = {
    "history": ["visits_30", "spent", "last_kind"],
    "plan": ["tier", "is_gold"],
    "derived": ["spent_a_visit"],
}


def monthly(**sections: Any) -> UseCase:
    given = {
        "sources": {"visits": VISITS, "plans": PLANS},
        "views": {"history": HISTORY, "plan": PLAN},
        "derived": DERIVED,
        "protected": {"region": {"source": "plans", "of": "region"}},
        "population": {"source": "visits", "active_within_days": 50},
    }
    return shop(**{**given, **sections})


def by_event() -> UseCase:
    return monthly(
        grid={"every": "event", "period": "month"},
        views={"history": HISTORY, "plan": PLAN, "visit": VISIT},
    )


def deliver(world: World, seed: int) -> None:
    """Some customers come often, the last one never; some moments repeat."""
    dice = random.Random(seed)
    moments = [on(1) + dice.randrange(110 * 24) * HOUR for _ in range(60)]
    visits = [
        visit(
            at,
            dice.choice(CUSTOMERS[:-1]),
            amount=dice.randrange(10_000) / 100,
            kind=dice.choice(["shop", "web"]),
        )
        for at in [*moments, *moments[:20]]
    ]
    plans = [
        plan(on(1) + dice.randrange(100) * DAY, customer, tier=dice.choice(["basic", "gold"]))
        for customer in CUSTOMERS[::2]
    ]
    world.deliver("visits", [*visits, visit(on(1), 0), visit(moments[0], 0), visit(moments[0], 0)])
    world.deliver("plans", plans)


def exported(use_case: UseCase, folder: Path, until: datetime = MONTHS[-1]) -> FeastExport:
    world = World(use_case, folder / "data")
    deliver(world, seed=1)
    with world.open() as work:
        advance(work, utc(on(5)), utc(until))
        return export_feast(work, folder / "feast")


def scan(work: Context) -> str:
    state = work.lake.state(features_uri(work))
    assert state is not None
    return work.engine.scan(state)
