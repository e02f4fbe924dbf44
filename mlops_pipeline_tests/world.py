"""A small telecom world on disk, and `dagster job execute` on it in processes that start at once.

Runs are forked from a server that has imported what they need (fork_server.py) and are Dagster's
own command line. One world is made and trained once; tests work on copies of it.
"""

import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from mlops_pipeline.config import UseCase, load_use_case
from mlops_pipeline.demo.simulated import write_churn
from mlops_pipeline.lifecycle.bookkeeping import get_pointer
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import PACKAGE_PARENT, Settings
from mlops_pipeline_tests.fork_server import FRESH, Forked, alone, fork
from mlops_pipeline_tests.killed import KILL_AT

CUSTOMERS, MONTHS, SEED = 1_500, 16, 7
FIRST, LATER = "2024-02-01", "2024-05-01"  # as_of of the trained world, and of a challenger
PATIENCE_S = 240.0
FIRST_ID, NAME = 867_530_900_000_000, "Rumpelstilzchen"  # marks of people, found in nothing else
KEPT_VIEWS: Mapping[str, Sequence[str]] = {
    "account": ("tenure_days", "plan", "contract", "payment_method"),
    "usage": ("data_gb_mean_28d", "data_gb_mean_prior_56d", "dropped_calls_mean_28d"),
    "support": ("tickets_count_84d", "days_since_last_ticket"),
}


@dataclass(frozen=True)
class World:
    """A project folder: configs/, data/, home/ (Dagster's)."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def artifacts(self) -> Path:
        return self.data / "lake" / "churn" / "artifacts"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DAGSTER_HOME": str(self.root / "home"),
            "DAGSTER_DISABLE_TELEMETRY": "true",
            "MLOPS_DATA_DIR": str(self.data),
            "MLOPS_GIT_COMMIT": "0123abc",
            "MLOPS_THREADS": "1",
            "MPLBACKEND": "agg",
            "PYTHONPATH": str(PACKAGE_PARENT),
            "PYTHONWARNINGS": "ignore",
        }

    @property
    def settings(self) -> Settings:
        return Settings.from_environment(self.environment)

    @property
    def use_case(self) -> UseCase:
        return load_use_case(self.root / "configs" / "churn.yaml")

    @contextmanager
    def ops(self) -> Iterator[OpsDatabase]:
        with OpsDatabase.open(self.settings.database_url) as opened:
            yield opened

    def configure(self, change: Callable[[dict[str, Any]], None]) -> None:
        path = self.root / "configs" / "churn.yaml"
        document = yaml.safe_load(path.read_text())
        change(document)
        path.write_text(yaml.safe_dump(document, sort_keys=False))

    def forget_registration(self) -> None:
        """Let no version be registered or deployed: what was trained may be made again."""
        with closing(sqlite3.connect(self.data / "ops.db")) as connection, connection:
            guards = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            for (name,) in guards.fetchall():
                connection.execute(f'DROP TRIGGER "{name}"')
            for table in ("rollout_event", "approval", "rollout"):
                connection.execute(f"DELETE FROM {table}")
            connection.execute(
                "DELETE FROM pointer WHERE name = 'registry' OR name LIKE 'release/%'"
            )

    def mlflow(self, statement: str) -> list[tuple[Any, ...]]:
        """Look into MLflow's database without importing MLflow."""
        path = self.data / "mlflow" / "mlflow.db"
        if not path.is_file():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            try:
                return connection.execute(statement).fetchall()
            except sqlite3.OperationalError:  # the tables are being made
                return []

    def complete_versions(self) -> list[int]:
        return [
            int(row[0])
            for row in self.mlflow(
                "SELECT v.version FROM model_versions v JOIN model_version_tags t "
                "ON t.name = v.name AND t.version = v.version AND t.key = 'complete' "
                "WHERE v.current_stage <> 'Deleted_Internal' ORDER BY v.version"
            )
        ]

    def incomplete_versions(self) -> list[int]:
        every = self.mlflow(
            "SELECT version FROM model_versions WHERE current_stage <> 'Deleted_Internal'"
        )
        return sorted({int(row[0]) for row in every} - set(self.complete_versions()))

    def model_files(self, version: int) -> dict[str, bytes]:
        """Text and JSON of a registered version, by name."""
        (source,) = self.mlflow(
            f"SELECT COALESCE(storage_location, source) FROM model_versions "
            f"WHERE version = {version}"
        )
        folder = Path(str(source[0]).removeprefix("file://")) / "artifacts" / "model"
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert {"model.json", "model.txt"} <= set(files), sorted(files)
        return files

    def trained_files(self) -> dict[str, bytes]:
        """Text and JSON of the newest trained model, by name."""
        with self.ops() as ops:
            pointer = get_pointer(ops, "churn", "trained_model")
        assert pointer is not None
        folder = self.artifacts / pointer.value["fingerprint"] / "model"
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def start(
        self,
        *,
        job: str = "churn_lifecycle",
        ops: Mapping[str, Any] | None = None,
        execution: Mapping[str, Any] | None = None,
        threads: int = 1,
        assets: Sequence[str] = (),
        **options: Any,
    ) -> "Run":
        """Start a job, or the named assets, in a process group of its own."""
        number = len(list(self.root.glob("run-*.log")))
        config = {"ops": {f"churn__{name}": {"config": item} for name, item in (ops or {}).items()}}
        if execution:
            config["execution"] = {"config": dict(execution)}
        (self.root / f"run-{number}.yaml").write_text(yaml.safe_dump(config))
        words = ["job", "execute", "-m", "mlops_pipeline.definitions", "-j", job]
        words += ["-c", f"run-{number}.yaml"]
        if assets:
            words = ["asset", "materialize", "-m", "mlops_pipeline.definitions", "--select"]
            words += [",".join(f"key:churn/{name}" for name in assets)]
            words += ["--config-json", json.dumps(config)]
        return self.command(*words, threads=threads, **options)

    def command(
        self, *words: str, threads: int = 1, fresh: bool = False, kill_at: int | None = None
    ) -> "Run":
        """Start `dagster ...`; the first word "daemon" or "mlops" is another command.

        `fresh`: the contract test starts a new Python, and does not fork. `kill_at`: killed.py.
        """
        log = self.root / f"run-{len(list(self.root.glob('run-*.log')))}.log"
        environment = {**self.environment, "MLOPS_THREADS": str(threads)}
        if fresh:
            environment[FRESH] = "1"
        if kill_at is not None:
            environment[KILL_AT] = str(kill_at)
        return Run(fork("_command", str(self.root), environment, words, str(log)), log)

    def run(self, **options: Any) -> "Run":
        """Start a job and wait for its end; it has to succeed."""
        done = self.start(**options)
        assert done.wait() == 0, done.text()[-3_000:]
        return done

    def lifecycle(self, as_of: str = FIRST, **options: Any) -> "Run":
        return self.run(ops={"features": {"as_of": as_of}}, **options)

    def copy_to(self, root: Path) -> "World":
        """Copy the folder; addresses that databases hold follow."""
        databases = ("data/ops.db", "data/mlflow/mlflow.db")
        ignored = shutil.ignore_patterns("run-*", "home", "ops.db*", "mlflow.db*")
        shutil.copytree(self.root, root, ignore=ignored)
        _write_home(root)
        for name in databases:
            with (
                closing(sqlite3.connect(f"file:{self.root / name}?mode=ro", uri=True)) as source,
                closing(sqlite3.connect(root / name)) as target,
            ):
                source.backup(target)
            _relocate(root / name, str(self.root), str(root))
        return World(root)


@dataclass(frozen=True)
class Run:
    """A `dagster` process."""

    process: Forked
    log: Path

    def text(self) -> str:
        return self.log.read_text() if self.log.is_file() else ""

    def has_said(self, text: str) -> bool:
        return text in self.text()

    def wait(self) -> int:
        self.process.join(PATIENCE_S)
        if self.process.exitcode is None:
            self.kill()
            raise TimeoutError(self.text()[-3_000:])
        return int(self.process.exitcode)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for a moment of the run that is still to come."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.exitcode is None, self.text()[-3_000:]
            assert time.monotonic() < deadline, self.text()[-3_000:]
            time.sleep(0.005)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all processes of one pytest share."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def template(shared: Path) -> World:
    """Return the trained world below a folder that all test processes share; made once."""
    world = World(shared / "world-trained")
    with alone(shared / "world-trained.lock"):
        if not (world.root / "done").exists():
            shutil.rmtree(world.root, ignore_errors=True)
            write_world(world.root)
            world.lifecycle(fresh=True)
            (world.root / "done").touch()
    return world


def write_world(root: Path) -> World:
    """Write configuration and sources; nothing has run."""
    (root / "configs").mkdir(parents=True)
    document = yaml.safe_load((PACKAGE_PARENT / "configs" / "churn.yaml").read_text())
    (root / "configs" / "churn.yaml").write_text(yaml.safe_dump(_trim(document), sort_keys=False))
    _write_home(root)
    folder = root / "data" / "sources" / "churn"
    write_churn(folder, customers=CUSTOMERS, months=MONTHS, seed=SEED)
    _mark_people(folder)
    return World(root)


def _mark_people(folder: Path) -> None:
    """Make every key a number that means nothing else, and give every account a name."""
    for path in folder.glob("*.parquet"):
        table = pq.read_table(path)
        keys = pc.add(table.column("customer_id"), FIRST_ID)
        table = table.set_column(table.schema.get_field_index("customer_id"), "customer_id", keys)
        if path.stem == "accounts":
            names = pa.array([f"{NAME}-{key}" for key in keys.to_pylist()])
            table = table.append_column("full_name", names)
        pq.write_table(table, path)


def _trim(document: dict[str, Any]) -> dict[str, Any]:
    """Keep four sources, ten features and two small candidates of the churn configuration."""
    kept = ("accounts", "weekly_usage", "tickets", "churn_events")
    accounts = document["sources"]["accounts"]["columns"]
    accounts["full_name"] = {"type": "string", "personal": True}
    views = {
        name: {
            **document["views"][name],
            "columns": {column: document["views"][name]["columns"][column] for column in columns},
        }
        for name, columns in KEPT_VIEWS.items()
    }
    tree = {"kind": "lightgbm", "leaves": 4, "min_leaf_rows": 60, "early_stopping_rounds": 0}
    return {
        **document,
        "owner": "customer-analytics",
        "sources": {name: document["sources"][name] for name in kept},
        "grid": {"every": "month", "start": "2023-04-01"},
        "label": {**document["label"], "horizon_days": 60},
        "views": views,
        "derived": {"data_trend": document["derived"]["data_trend"]},
        "split": {"method": "time", "train": 0.5, "validation": 0.25, "test": 0.25},
        "training": {
            **document["training"],
            "candidates": {"small": {**tree, "trees": 8}, "large": {**tree, "trees": 40}},
            "calibration": "sigmoid",
            "tie_tolerance": 0.0,
        },
        "evaluation": {"slices": ["plan", "gender"], "min_slice_rows": 50},
        "gates": [
            {"rule": "metric", "metric": "roc_auc", "at_least": 0.5, "effect": "block"},
            {"rule": "better_than_champion", "by": 0.02, "effect": "review"},
            {"rule": "demographic_parity", "at_most": 0.05, "effect": "warn"},
        ],
        "retraining": {"new_labels": 100, "on_new_data": False, "monthly_day": 5},
    }


def _write_home(root: Path) -> None:
    home = root / "home"
    home.mkdir(parents=True)
    settings = {
        "telemetry": {"enabled": False},
        "storage": {"sqlite": {"base_dir": str(home)}},
    }
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))


def _relocate(database: Path, before: str, after: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            for column in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
                connection.execute(
                    f'UPDATE "{table}" SET "{column[1]}" = replace("{column[1]}", ?, ?) '
                    f'WHERE instr("{column[1]}", ?) > 0',
                    (before, after, before),
                )
