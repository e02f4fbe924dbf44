"""Small worlds for tests: a shop's use case, its source files, and steps of the chain on them.

Times in rows are naive and mean UTC, as in the files of the sources.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_pipeline.config import UseCase
from mlops_pipeline.errors import MlopsError
from mlops_pipeline.lifecycle.context import (
    AcceptedSource,
    Context,
    RunContext,
    Snapshot,
    open_context,
)
from mlops_pipeline.lifecycle.features.offline import (
    BuiltFeatures,
    build_features,
    finished_through,
)
from mlops_pipeline.lifecycle.ingest.ingestion import Ingested, ingest
from mlops_pipeline.lifecycle.ingest.validation import SourceValidation, validate_source
from mlops_pipeline.stores.ops import HeldLease
from mlops_pipeline.stores.settings import Settings

if TYPE_CHECKING:
    from dagster import ExecuteInProcessResult

Row = dict[str, Any]
Section = Mapping[str, Any]

DAY, HOUR, TICK = timedelta(days=1), timedelta(hours=1), timedelta(microseconds=1)
NOW = datetime(2025, 6, 1, tzinfo=UTC)

VISITS: Section = {
    "uri": "visits",
    "columns": {
        "customer": "int64",
        "at": "timestamp",
        "known": "timestamp",
        "amount": "float64",
        "units": "int64",
        "kind": "string",
    },
    "event_time": "at",
    "available_at": "known",
    "lateness_days": 60,
    "static": True,
    "max_quarantined": 1.0,
}
PLANS: Section = {
    "uri": "plans",
    "columns": {
        "customer": "int64",
        "at": "timestamp",
        "known": "timestamp",
        "tier": "string",
        "region": "string",
    },
    "key": ["customer"],
    "event_time": "at",
    "available_at": "known",
    "lateness_days": 60,
    "static": True,
    "max_quarantined": 1.0,
}
SHOP: Section = {
    "name": "shop",
    "description": "Customers of a shop, for tests.",
    "owner": "tests",
    "intended_use": "Nothing but tests.",
    "entity": {"name": "customer", "key": "customer"},
    "grid": {"every": "month", "start": "2025-02-01"},
    "population": {"source": "visits"},
    "sources": {"visits": VISITS},
    "label": {"kind": "event_present", "source": "visits", "horizon_days": 30, "delay_days": 0},
    "views": {
        "history": {
            "source": "visits",
            "columns": {
                "visits": {"aggregate": "count", "dtype": "int64"},
                "spent": {"aggregate": "sum", "of": "amount", "precision": 2},
            },
        }
    },
    "training": {"candidates": {"dummy": {"kind": "dummy"}}, "min_positives": 1},
    "gates": [{"rule": "metric", "metric": "roc_auc", "at_least": 0.5}],
}
TYPES = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us"),
    "date": pa.date32(),
}


def shop(**sections: Any) -> UseCase:
    """The shop with some sections replaced; views of an event grid are not served online."""
    document: dict[str, Any] = {**SHOP, **sections}
    if document["grid"]["every"] == "event":
        views = {name: {"online": False, **view} for name, view in document["views"].items()}
        document["views"] = views
    return UseCase.model_validate(document)


def shop_with(source: Section | None = None, **sections: Any) -> UseCase:
    """The shop with some keys of its source `visits` replaced."""
    return shop(sources={"visits": {**VISITS, **(source or {})}}, **sections)


def visit(day: datetime, customer: int | str | None = 1, **values: Any) -> Row:
    """A visit known as soon as it happened, unless `known` says otherwise."""
    row: Row = {"customer": customer, "at": day, "known": day, "amount": 1.0, "units": 1}
    return {**row, "kind": "shop", **values}


def plan(known: datetime, customer: int | None = 1, **values: Any) -> Row:
    row: Row = {"customer": customer, "at": known, "known": known, "tier": "basic"}
    return {**row, "region": "north", **values}


def on(month: int, day: int = 1, hour: int = 0, year: int = 2025) -> datetime:
    """A naive UTC moment."""
    return datetime(year, month, day, hour)  # noqa: DTZ001 # files hold naive UTC


def utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


def arrow(types: Mapping[str, str], rows: Sequence[Row]) -> pa.Table:
    """Rows as an Arrow table of configured column types."""
    return pa.table(
        {name: pa.array([row[name] for row in rows], TYPES[kind]) for name, kind in types.items()}
    )


@dataclass
class World:
    """A use case with a data folder of its own."""

    use_case: UseCase
    folder: Path
    threads: int = 1
    deliveries: dict[str, int] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        found = Settings.from_environment({"MLOPS_DATA_DIR": str(self.folder)})
        return replace(found, threads=self.threads, memory_limit="1GB", fixed_now=NOW)

    @contextmanager
    def open(self) -> Iterator[Context]:
        with open_context(self.use_case, self.settings) as work:
            yield work

    def path(self, source: str, suffix: str = "parquet") -> Path:
        """The next file of a source's folder."""
        number = self.deliveries[source] = self.deliveries.get(source, 0) + 1
        folder = self.folder / self.use_case.sources[source].uri
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"delivery_{number:03d}.{suffix}"

    def deliver(self, source: str, rows: Sequence[Row]) -> Path:
        """Add a Parquet file to a source's folder."""
        columns = self.use_case.sources[source].columns
        types = {name: self.use_case.sources[source].column(name).type for name in columns}
        return self.deliver_table(source, arrow(types, rows))

    def deliver_table(self, source: str, table: pa.Table) -> Path:
        path = self.path(source)
        pq.write_table(table, path)
        return path

    def deliver_csv(self, source: str, text: str) -> Path:
        path = self.path(source, "csv")
        path.write_text(text, encoding="utf-8")
        return path

    def withdraw(self, source: str) -> None:
        """Remove the files of a source."""
        for path in (self.folder / self.use_case.sources[source].uri).iterdir():
            path.unlink()


def in_run(context: Context, run_id: str = "run") -> RunContext:
    """The context as a step of a run has it; nobody else asks for the lease."""
    name = f"lifecycle:{context.use_case.name}"
    lease = HeldLease(context.ops, name, run_id, clock=lambda: datetime.now(UTC))
    return RunContext(**vars(context), run_id=run_id, lease=lease, log=logging.getLogger(run_id))


def ingest_all(work: Context, now: datetime = NOW) -> dict[str, Ingested]:
    finished = finished_through(work)
    return {
        name: ingest(work, name, now=now, finished_through=finished)
        for name in work.use_case.sources
    }


def accept_all(work: Context, now: datetime = NOW) -> dict[str, AcceptedSource]:
    """Judge every source; each has to pass."""
    validations = [validate_source(work, name, now=now) for name in work.use_case.sources]
    assert not [failed_rules(item) for item in validations if not item.passed]
    return {item.source: item.accepted for item in validations}


def failed_rules(validation: SourceValidation) -> dict[str, str]:
    """Rule name -> reason of every verdict that refuses the source."""
    return {item.rule: item.reason for item in validation.results if not item.passed}


def advance(work: Context, now: datetime, as_of: datetime | None = None) -> BuiltFeatures:
    """Ingest what is delivered, accept it and build the features up to as_of (default: now)."""
    ingest_all(work, now)
    return build_features(work, Snapshot(as_of or now, accept_all(work, now)))


def stored_rows(work: Context, uri: str, order: str = "_row_no") -> list[Row]:
    """The rows of a table of the lake at its newest version."""
    state = work.lake.state(uri)
    assert state is not None
    table = work.engine.sql.sql(f"SELECT * FROM {work.engine.scan(state)} ORDER BY {order}")
    rows: list[Row] = table.to_arrow_table().to_pylist()
    return rows


def assert_complete(error: MlopsError) -> None:
    """An error says what, where, expected, found and the way out."""
    for part in ("what", "where", "expected", "found", "way_out"):
        assert getattr(error, part), f"{part} is missing from: {error}"


def materialize_in_process(assets: Sequence[Any], **options: Any) -> "ExecuteInProcessResult":
    """Call `dagster.materialize` with an instance that lives as long as the call.

    Without one, Dagster resolves the assets by the instance that was open last, which an earlier
    test of this process may have closed.
    """
    import dagster as dg

    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(assets, instance=instance, **options)
