"""A churn world in a temporary folder, and lifecycles run on it by `dagster job execute`."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import ROOT, Measured, run_module
from mlops_pipeline.demo.simulated import write_churn

USE_CASE = "churn"
LOCATION = "mlops_pipeline.definitions"
MONTHS = 24
SEED = 7
AS_OF = "2025-01-01"  # the end of month 24


@dataclass(frozen=True)
class World:
    """A data folder with simulated sources and a Dagster instance of its own."""

    folder: Path
    customers: int

    @property
    def data(self) -> Path:
        """MLOPS_DATA_DIR."""
        return self.folder / "data"

    @property
    def sources(self) -> Path:
        """The folder of the source files."""
        return self.data / "sources" / USE_CASE

    @property
    def environment(self) -> dict[str, str]:
        """Where the commands of this world keep their state; all telemetry is off."""
        return {
            "MLOPS_DATA_DIR": str(self.data),
            "MLOPS_GIT_COMMIT": _commit(),
            "DAGSTER_HOME": str(self.folder / "dagster"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }


@cache
def _commit() -> str:
    """Return the commit of the checkout, for projects elsewhere."""
    from mlops_pipeline.lifecycle.provenance import git_state
    from mlops_pipeline.stores.settings import Settings

    return git_state(Settings.from_environment(os.environ)).commit


@contextmanager
def new_world(customers: int, *, months: int = MONTHS) -> Iterator[World]:
    """Yield a freshly simulated world; its folder is removed at the end."""
    base = os.environ.get("BENCHMARK_DIR")  # where a large world fits; default: the system's
    with TemporaryDirectory(prefix="benchmark-", dir=base) as folder:
        world = World(Path(folder), customers)
        home = world.folder / "dagster"
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n", encoding="utf-8")
        _simulate(world, months)
        yield world


def _simulate(world: World, months: int) -> None:
    """Write the sources in a process of its own: its memory is not the benchmark's."""
    sizes = map(str, (world.customers, months))
    run_module("benchmarks.world", str(world.sources), *sizes)


def run_lifecycle(world: World, *, as_of: str = AS_OF, folder: Path = ROOT) -> Measured:
    """Run the whole lifecycle as a user does; `folder` holds configs/."""
    config = {"ops": {f"{USE_CASE}__features": {"config": {"as_of": as_of}}}}
    return execute_job(world, LOCATION, f"{USE_CASE}_lifecycle", config, folder=folder)


def materialize(world: World, asset: str, *, folder: Path = ROOT) -> Measured:
    """Make one asset of the use case again."""
    words = ("asset", "materialize", "-m", LOCATION, "--select", f"key:{USE_CASE}/{asset}")
    return run_module("dagster", *words, extra=world.environment, folder=folder)


def execute_job(
    world: World,
    module: str,
    job: str,
    config: Mapping[str, object] | None = None,
    *,
    folder: Path = ROOT,
) -> Measured:
    """Run `dagster job execute`."""
    words = ["job", "execute", "-m", module, "-j", job]
    if config is not None:
        path = world.folder / "run.json"  # JSON is YAML
        path.write_text(json.dumps(config), encoding="utf-8")
        words += ["-c", str(path)]
    return run_module("dagster", *words, extra=world.environment, folder=folder)


def step_seconds(world: World) -> dict[str, float]:
    """Return the seconds of each asset of the newest lifecycle, the longest first."""
    from mlops_pipeline.lifecycle import bookkeeping
    from mlops_pipeline.stores.ops import OpsDatabase

    with OpsDatabase.open(f"sqlite:///{world.data / 'ops.db'}") as ops:
        run = bookkeeping.last_lifecycle(ops, USE_CASE)
        found = {} if run is None else bookkeeping.step_seconds(ops, USE_CASE, run.run_id)
    ordered = sorted(found.items(), key=lambda item: -item[1])
    return {name: round(seconds, 2) for name, seconds in ordered}


def grid_points(first: str, last: str) -> list[datetime]:
    """Return the first instants of the months from `first` to `last`, both included."""
    end = datetime.fromisoformat(last).replace(tzinfo=UTC)
    point, found = datetime.fromisoformat(first).replace(tzinfo=UTC), []
    while point <= end:
        found.append(point)
        point = (point + timedelta(days=32)).replace(day=1)
    return found


if __name__ == "__main__":  # python -m benchmarks.world FOLDER CUSTOMERS MONTHS
    write_churn(Path(sys.argv[1]), customers=int(sys.argv[2]), months=int(sys.argv[3]), seed=SEED)
