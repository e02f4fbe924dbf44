"""A use case over given Parquet files, ingested and accepted: what `ours` reads in a benchmark."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlops_pipeline.config import UseCase
from mlops_pipeline.lifecycle.bookkeeping import set_pointer
from mlops_pipeline.lifecycle.context import open_context
from mlops_pipeline.lifecycle.ingest.ingestion import ingest
from mlops_pipeline.lifecycle.ingest.validation import validate_source
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def use_case_of(
    sources: Mapping[str, Mapping[str, Any]],
    views: Mapping[str, Mapping[str, Any]],
    start: str,
    *,
    active_within_days: int | None = None,
) -> UseCase:
    """Return a use case on a monthly grid whose label is never asked for."""
    home = next(iter(sources))
    return UseCase.model_validate(
        {
            "name": "benchmark",
            "description": "Tables of a benchmark.",
            "owner": "benchmarks",
            "intended_use": "Measuring features.",
            "entity": {"name": "customer", "key": "customer_id"},
            "grid": {"every": "month", "start": start},
            "population": {"source": home, "active_within_days": active_within_days},
            "sources": sources,
            "label": {"kind": "event_absent", "source": home, "horizon_days": 30},
            "views": views,
            "training": {"candidates": {"dummy": {"kind": "dummy"}}},
            "gates": [{"rule": "metric", "metric": "roc_auc", "at_least": 0.5, "effect": "warn"}],
        }
    )


def accepted_in(use_case: UseCase, data: Path) -> Settings:
    """Ingest and accept every source into a lake below `data`; return its settings."""
    settings = replace(Settings.from_environment({"MLOPS_DATA_DIR": str(data)}), fixed_now=NOW)
    with open_context(use_case, settings) as work:
        accepted = {}
        for name in use_case.sources:
            ingest(work, name, now=NOW, finished_through=None)
            accepted[name] = validate_source(work, name, now=NOW).accepted.to_dict()
    with OpsDatabase.open(settings.database_url) as ops:
        set_pointer(ops, use_case.name, "accepted", accepted, run_id="benchmark", now=NOW)
    return settings
