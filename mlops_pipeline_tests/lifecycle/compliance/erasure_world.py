"""A small shop with a customer who is to be forgotten: its lifecycle, forgetting, what is left."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mlops_pipeline.lifecycle.bookkeeping import set_pointer
from mlops_pipeline.lifecycle.compliance.erasure import Erased, forget, person_of
from mlops_pipeline.lifecycle.context import Context, Snapshot
from mlops_pipeline.lifecycle.features.offline import features_uri, finished_periods
from mlops_pipeline.lifecycle.ingest.accepted import accepted_sources
from mlops_pipeline.lifecycle.ingest.ingestion import EVERY, forgotten_pseudonyms
from mlops_pipeline.lifecycle.predictions import predictions_uri
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.worlds import (
    NOW,
    PLANS,
    VISITS,
    Row,
    World,
    accept_all,
    on,
    plan,
    shop,
    stored_rows,
    utc,
    visit,
)

GONE, NAME = 2, "Rumpelstilzchen"  # who is forgotten; in a text column of every row
CUSTOMERS = (1, GONE, 3)
AS_OF = utc(on(4))
VIEWS = {
    "history": {
        "source": "visits",
        "columns": {
            "visits": {"aggregate": "count", "dtype": "int64"},
            "spent": {"aggregate": "sum", "of": "amount", "precision": 2},
        },
    },
    "plan": {
        "source": "plans",
        "columns": {"tier": {"aggregate": "last", "of": "tier", "dtype": "string"}},
    },
}


def case(name: str = "shop") -> Any:
    """Visits without a key and with broken rows, plans that are revised."""
    rule = {"rule": "range", "column": "amount", "min": 0}
    sources = {"visits": {**VISITS, "rules": [rule]}, "plans": PLANS}
    return shop(name=name, sources=sources, views=VIEWS)


def visits(customers: tuple[int | None, ...], months: tuple[int, ...]) -> list[Row]:
    return [
        visit(on(month, 3 + (item or 9) % 25), item, amount=month + (item or 9) / 4, kind=who(item))
        for month in months
        for item in customers
    ]


def who(customer: int | None) -> str:
    return NAME if customer == GONE else f"name of {customer}"


def deliver(world: World, customers: tuple[int, ...]) -> None:
    """Three months: two visits without a customer, one broken row and a revised plan of each."""
    world.deliver("visits", visits((*customers, None), (1, 2, 3)))
    world.deliver(
        "visits",
        [visit(on(2, 20), customer, amount=-1.0, kind=who(customer)) for customer in customers],
    )
    for month in (1, 2):
        rows = [plan(on(month, 2), item, tier=f"{who(item)} {month}") for item in customers]
        world.deliver("plans", rows)


def ingest_and_accept(work: Context, ops: OpsDatabase, now: datetime = NOW) -> Any:
    from mlops_pipeline.lifecycle.features.offline import finished_through
    from mlops_pipeline.lifecycle.ingest.ingestion import ingest

    erased = forgotten_pseudonyms(ops, work.use_case.name, "customer")
    finished = finished_through(work)
    done = {
        name: ingest(work, name, now=now, finished_through=finished, erased=erased)
        for name in work.use_case.sources
    }
    accepted = {name: item.to_dict() for name, item in accept_all(work, now).items()}
    set_pointer(ops, work.use_case.name, "accepted", accepted, run_id="test", now=now)
    return done


def lifecycle(world: World, now: datetime = NOW, as_of: datetime = AS_OF) -> Any:
    """Ingest, accept, build the features, and score every period as a batch does."""
    from mlops_pipeline.lifecycle.features.offline import build_features

    with world.open() as work, OpsDatabase.open(world.settings.database_url) as ops:
        done = ingest_and_accept(work, ops, now)
        build_features(work, Snapshot(as_of, accepted_sources(ops, work.use_case)))
        for period in finished_periods(work):
            score(work, period)
        return done


def score(work: Context, period: str) -> None:
    """Write what batch scoring writes, without a model."""
    uri = work.lake.table_uri(work.use_case.name, "predictions")
    if any(facts["period"] == period for facts in work.lake.commit_metadata(uri)):
        return
    state = work.lake.state(features_uri(work))
    assert state is not None
    rows = work.engine.sql.sql(
        f"SELECT customer, as_of, visits / 10 AS probability, visits > 2 AS decision, "
        f"1 AS model_version FROM {work.engine.scan(state)} "
        f"WHERE as_of = TIMESTAMP '{period}' ORDER BY customer"
    ).to_arrow_table()
    positives = sum(rows.column("decision").to_pylist())
    facts = {"period": period, "model_version": 1, "rows": len(rows), "positives": positives}
    for written in (uri, predictions_uri(work.lake, work.use_case, is_trial=True)):
        work.lake.write(written, rows, facts, "append")


def erase(
    world: World,
    customer: int = GONE,
    scope: str = EVERY,
    *,
    by: str = "ada",
    reason: str = "asked for it",
) -> list[Erased]:
    person = person_of(world.settings, [world.use_case], str(customer), scope)
    with OpsDatabase.open(world.settings.database_url) as ops:
        return forget(person, world.settings, ops, by=by, reason=reason)


def content(world: World) -> dict[str, Any]:
    """Everything that the lake says, without version numbers and times of ingestion."""
    said: dict[str, Any] = {}
    with world.open() as work, OpsDatabase.open(world.settings.database_url) as ops:
        name, lake = world.use_case.name, work.lake
        for source, item in accepted_sources(ops, world.use_case).items():
            said[source] = (item.rows, item.quarantined, item.content_hash, item.watermark)
            order = '"at", customer, amount' if source == "visits" else "_row_no"
            rows = stored_rows(work, lake.table_uri(name, "raw", source), order)
            said[f"raw {source}"] = [{**row, "_row_no": 0} for row in rows]
        said["periods"] = finished_periods(work)
        said["features"] = stored_rows(work, features_uri(work), "as_of, customer")
        predictions = lake.table_uri(name, "predictions")
        said["predictions"] = stored_rows(work, predictions, "as_of, customer")
        facts = {item["period"]: item for item in lake.commit_metadata(predictions)}
        said["scored"] = {
            period: (item["rows"], item["positives"]) for period, item in facts.items()
        }
    return said


def files_with(folder: Path, name: str) -> list[str]:
    """The files that hold a text, Parquet read as rows and as bytes."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_bytes()
            if path.suffix == ".parquet":
                text += str(pq.read_table(path).to_pylist()).encode()
            if name.encode() in text:
                found.append(path.name)
    return found
