"""Benchmark (b): adding one month of features to those present beside building them all."""

import argparse
import os
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.result import Result
from benchmarks.world import AS_OF, USE_CASE, grid_points, new_world
from mlops_pipeline.config import UseCase, load_use_cases
from mlops_pipeline.lifecycle.context import AcceptedSource, Snapshot, open_context
from mlops_pipeline.lifecycle.features.offline import build_features, features_uri
from mlops_pipeline.lifecycle.ingest.ingestion import ingest
from mlops_pipeline.lifecycle.ingest.validation import validate_source
from mlops_pipeline.stores.settings import Settings

CUSTOMERS = 50_000


def main(customers: int) -> None:
    """Accept a world's sources, then measure the features step alone, one month and all."""
    use_case = load_use_cases(Path("configs"))[USE_CASE]
    points = grid_points(str(use_case.grid.start), AS_OF)
    with new_world(customers) as world:
        settings = Settings.from_environment({**os.environ, **world.environment})
        accepted = _accept(use_case, settings)
        _build(use_case, settings, accepted, points[-2])
        month = _build(use_case, settings, accepted, points[-1])
        with open_context(use_case, settings) as work:
            shutil.rmtree(features_uri(work))
        full = _build(use_case, settings, accepted, points[-1])
    Result(
        name="one_month",
        what=f"features step: adding one month to {len(points) - 1} present / building all "
        f"{len(points)} ({customers:,} customers)",
        figure=f"{month / full:.3f}",
        target="at most 0.15",
        tables={
            "": [
                {"run": "one month", "seconds": round(month, 2)},
                {"run": f"all {len(points)} months", "seconds": round(full, 2)},
            ]
        },
    ).print()


def _accept(use_case: UseCase, settings: Settings) -> dict[str, AcceptedSource]:
    now = datetime.now(UTC)
    with open_context(use_case, settings) as work:
        for name in use_case.sources:
            ingest(work, name, now=now, finished_through=None)
        return {name: validate_source(work, name, now=now).accepted for name in use_case.sources}


def _build(
    use_case: UseCase, settings: Settings, accepted: Mapping[str, AcceptedSource], as_of: datetime
) -> float:
    begun = time.perf_counter()
    with open_context(use_case, settings) as work:
        build_features(work, Snapshot(as_of, accepted))
    return time.perf_counter() - begun


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    main(parser.parse_args().customers)
