"""Two use cases on the visits of one shop: by month, and one that looks at each visit at a till.

shop   month grid; `spent` and `visits` are stale after 10 days, gone after 20
till   event grid; daily, continuous, request-time and derived features
"""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from mlops_pipeline.config import UseCase
from mlops_pipeline.lifecycle.bookkeeping import set_pointer
from mlops_pipeline.lifecycle.context import open_context
from mlops_pipeline.lifecycle.features.online.materialize import materialize_accepted, open_writer
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline_tests.worlds import (
    HOUR,
    NOW,
    SHOP,
    VISITS,
    World,
    accept_all,
    advance,
    on,
    visit,
)

FRESH_DAYS, TTL_DAYS = 10, 20
SHOP_DOCUMENT: dict[str, Any] = {
    **SHOP,
    "views": {
        "history": {
            "source": "visits",
            "owner": "shop-data",
            "freshness_days": FRESH_DAYS,
            "ttl_days": TTL_DAYS,
            "columns": {
                "visits": {"aggregate": "count", "dtype": "int64", "description": "How often."},
                "spent": {"aggregate": "sum", "of": "amount", "precision": 2},
            },
        },
        "kinds": {
            "source": "visits",
            "columns": {"last_kind": {"aggregate": "last", "of": "kind", "dtype": "string"}},
        },
    },
    "derived": {"spent_a_visit": {"expression": "spent / nullif(visits, 0)"}},
}
TILL_DOCUMENT: dict[str, Any] = {
    **SHOP,
    "name": "till",
    "grid": {"every": "event", "period": "month"},
    "sources": {"visits": {**VISITS, "key": ["customer", "at"]}},
    "views": {
        "habit": {
            "source": "visits",
            "refresh": "daily",
            "columns": {"spent_30d": {"aggregate": "sum", "of": "amount", "window_days": 30}},
        },
        "velocity": {
            "source": "visits",
            "columns": {
                "visits_last_hour": {"aggregate": "count", "window_hours": 1, "dtype": "int64"}
            },
        },
        "payment": {
            "source": "visits",
            "request_time": True,
            "columns": {"amount_now": {"of": "amount", "precision": 2}},
        },
        "secret": {
            "source": "visits",
            "online": False,
            "columns": {"units_30d": {"aggregate": "sum", "of": "units", "window_days": 30}},
        },
    },
    "derived": {"amount_to_habit": {"expression": "amount_now / nullif(spent_30d, 0)"}},
}
SHOP_CASE = UseCase.model_validate(SHOP_DOCUMENT)
TILL_CASE = UseCase.model_validate(TILL_DOCUMENT)
CASES = {"shop": SHOP_CASE, "till": TILL_CASE}
ROWS = [
    visit(on(3, 5), 1, amount=10.0),
    visit(on(4, 5), 1, amount=2.5, kind="web"),
    visit(on(5, 20), 2, amount=4.0),
    visit(on(5, 31, 23) + HOUR / 2, 2, amount=6.0),
]


def write_shops(root: Path) -> None:
    """Make the folder of a project: configuration, delivered files, features; nothing online."""
    (root / "configs").mkdir(parents=True)
    for document in (SHOP_DOCUMENT, TILL_DOCUMENT):
        path = root / "configs" / f"{document['name']}.yaml"
        path.write_text(yaml.safe_dump(_plain(document), sort_keys=False), encoding="utf-8")
    World(SHOP_CASE, root / "data").deliver("visits", ROWS)
    for case in CASES.values():
        world = World(case, root / "data")
        with world.open() as work, OpsDatabase.open(world.settings.database_url) as ops:
            built = advance(work, NOW)
            accepted = {name: item.to_dict() for name, item in accept_all(work).items()}
            set_pointer(ops, case.name, "accepted", accepted, run_id="run", now=NOW)
            features = {"as_of": NOW.isoformat(), "definitions": built.definitions}
            set_pointer(ops, case.name, "features", features, run_id="run", now=NOW)


def settings_at(root: Path, now: datetime = NOW) -> Settings:
    """Return the settings of the shops, at a moment."""
    return replace(World(SHOP_CASE, root / "data").settings, fixed_now=now)


def materialize_shops(root: Path, now: datetime = NOW) -> None:
    """Bring the online store of both up to date."""
    settings = settings_at(root, now)
    with OpsDatabase.open(settings.database_url) as ops, open_writer(settings) as store:
        for case in CASES.values():
            with open_context(case, settings) as work:
                materialize_accepted(work, ops, store, now=now)


def _plain(value: Any) -> Any:
    """Return mappings as dicts, which YAML can write."""
    return {key: _plain(item) for key, item in value.items()} if hasattr(value, "items") else value
