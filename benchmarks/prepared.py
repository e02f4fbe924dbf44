"""Reading again what ingested.py accepted, in another process: preparing is not measured."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.ingested import NOW
from mlops_pipeline.config import UseCase
from mlops_pipeline.lifecycle.context import AcceptedSource
from mlops_pipeline.lifecycle.ingest.accepted import accepted_sources
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

LIMITS = ("MLOPS_MEMORY_LIMIT", "MLOPS_THREADS")  # settings a benchmark takes over as they are


def settings_in(data: Path) -> Settings:
    """Return the settings of a lake below `data`, with the limits of this process."""
    given = {name: os.environ[name] for name in LIMITS if name in os.environ}
    return replace(Settings.from_environment({**given, "MLOPS_DATA_DIR": str(data)}), fixed_now=NOW)


def accepted_before(use_case: UseCase, settings: Settings) -> Mapping[str, AcceptedSource]:
    """Return what `accepted_in` accepted."""
    with OpsDatabase.open(settings.database_url) as ops:
        return accepted_sources(ops, use_case)
