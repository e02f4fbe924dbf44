"""A shop with a champion and a version in trial: real ledger, log and service, a stepping Clock.

Everybody came once in May, for much or for little. Who comes back within 30 days is drawn by the
champion's own probability, so that it is calibrated; those visits are delivered when they are due.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import yaml
from sqlalchemy import create_engine

from mlops_pipeline.config import UseCase, load_use_case
from mlops_pipeline.core.documents.records import EvaluatedTraining, plain
from mlops_pipeline.core.evaluation.gates import evaluate_gate
from mlops_pipeline.core.metrics.references import score_reference
from mlops_pipeline.core.rollout.records import OpeningState, Rollout, RolloutEvent
from mlops_pipeline.lifecycle.bookkeeping import set_pointer
from mlops_pipeline.lifecycle.champions import MODEL, RELEASE
from mlops_pipeline.lifecycle.clock import move_clock
from mlops_pipeline.lifecycle.context import open_context
from mlops_pipeline.lifecycle.features.online.materialize import materialize_accepted, open_writer
from mlops_pipeline.lifecycle.rollout_evidence import Looked, look_at_rollout
from mlops_pipeline.lifecycle.rollouts import get_rollout, open_rollout, rollout_events
from mlops_pipeline.lifecycle.train import EVALUATION, TRAINING
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.models.files import pinned_digests, write_files
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline_tests.core.evaluation import example_evaluation as example
from mlops_pipeline_tests.killed import KILL_AT, killed_at
from mlops_pipeline_tests.serving.planted import FAULT_FILE, SLOW_MS
from mlops_pipeline_tests.serving.served_shop import shop_model
from mlops_pipeline_tests.serving.shops import SHOP_DOCUMENT
from mlops_pipeline_tests.serving.test_kill import Victim, free_port
from mlops_pipeline_tests.worlds import (
    DAY,
    NOW,
    PLANS,
    VISITS,
    World,
    accept_all,
    advance,
    ingest_all,
    on,
    plan,
    visit,
)

CUSTOMERS = range(1, 601)
NEEDED = 450  # answers of a stage, at least
STAGES: Sequence[Any] = (
    {"share": 0, "days": 1, "requests": NEEDED},
    {"share": 0.05, "days": 1, "requests": NEEDED},
    {"share": 0.25, "days": 1, "requests": NEEDED},
    {"share": 0.5, "days": 1, "requests": NEEDED, "approval": True},
    "full",
)
# few people, so wide limits: what is tested is that each fault is told from the others
LIMITS = {"error_share": 0.05, "default_share": 0.1, "score_shift": 0.35, "latency_ms": SLOW_MS,
          "parity_difference": 0.3}  # fmt: skip
LABELS_DUE = NOW + 75 * DAY  # and missed, however they are delivered


def document(labels: str) -> dict[str, Any]:
    views = {
        "history": {**SHOP_DOCUMENT["views"]["history"], "freshness_days": 90, "ttl_days": 120},
        "kinds": SHOP_DOCUMENT["views"]["kinds"],
    }
    return {
        **SHOP_DOCUMENT,
        "sources": {"visits": dict(VISITS), "plans": dict(PLANS)},
        "views": views,
        "protected": {"region": {"source": "plans", "of": "region"}},
        "rollout": {
            "stages": list(STAGES), "guardrails": LIMITS,
            "evidence": {"labels": labels, "brier_margin": 0.05},
        },
    }  # fmt: skip


def kind_of(who: int) -> str:
    return ("web", "till")[who % 2]


def spent_by(who: int) -> float:
    return float(1 + who % 23)


@dataclass(frozen=True)
class TriedShop:
    """The folder of a project, and what a person, the job and the Clock do in it."""

    root: Path
    case: UseCase
    settings: Settings

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "MLOPS_DATA_DIR": str(self.settings.data_dir),
            "MLOPS_DATABASE_URL": self.settings.database_url,
            "MLOPS_PREDICTIONS_URL": self.settings.predictions_url,
            "MLOPS_RATE_LIMIT": "1000000",
            "MLOPS_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            FAULT_FILE: str(self.fault),
        }

    @property
    def fault(self) -> Path:
        return self.root / "fault"

    @contextmanager
    def ops(self) -> Iterator[OpsDatabase]:
        with OpsDatabase.open(self.settings.database_url) as opened:
            yield opened

    def now(self) -> datetime:
        return self.settings.now()

    def step(self, to: datetime) -> None:
        with self.ops() as ops:
            move_clock(ops, self.settings, to, by="Tess")

    def look(self) -> Looked:
        """Do what the job does."""
        with open_context(self.case, self.settings) as context:
            return look_at_rollout(context)

    def looked_by_another(self, kill_at: int) -> "subprocess.CompletedProcess[str]":
        """Do what the job does in a process of its own, killed at a line (0: counted)."""
        command = [sys.executable, "-m", "mlops_pipeline_tests.lifecycle.tried_shop"]
        environment = {**self.environment, KILL_AT: str(kill_at)}
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )

    def trial(self) -> Rollout:
        with self.ops() as ops:
            return get_rollout(ops, "shop", 2)

    def where(self) -> tuple[str, str | None]:
        found = self.trial()
        return found.state, found.stage_name

    def events(self) -> list[RolloutEvent]:
        with self.ops() as ops:
            return rollout_events(ops, "shop", 2)

    def paired(self) -> int:
        """How many answers of the present time are scored by both versions."""
        now_us = int(self.now().timestamp() * 1_000_000)
        engine = create_engine(self.settings.predictions_url)
        with engine.connect() as connection:
            counted = f"SELECT COUNT(*) FROM shadow WHERE at_us = {now_us}"
            found = connection.exec_driver_sql(counted).scalar_one()
        engine.dispose()
        return int(found)

    def command(self, *words: str) -> str:
        """Run a public command."""
        command = [sys.executable, "-m", "mlops_pipeline", *words]
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    def deliver_labels(self) -> None:
        """Let those come back whom the champion's probability draws, and accept what came."""
        chance, scores = np.random.default_rng(4), champion_scores()
        back = [who for who, p in zip(CUSTOMERS, scores, strict=True) if chance.random() < p]
        world = World(self.case, self.settings.data_dir)
        world.deliveries.update(visits=1, plans=1)
        world.deliver("visits", [visit(on(6, 20), who) for who in back])
        self.deliver_strangers(world)

    def deliver_strangers(self, world: World) -> None:
        """A visit and a plan of a stranger: the sources have delivered up to this time."""
        until = self.now().replace(tzinfo=None) - timedelta(hours=1)
        world.deliver("visits", [visit(until, 9_999)])
        world.deliver("plans", [plan(until, 9_999)])
        with open_context(self.case, self.settings) as work:
            ingest_all(work, self.now())
            accepted = {key: one.to_dict() for key, one in accept_all(work, self.now()).items()}
            set_pointer(work.ops, "shop", "accepted", accepted, run_id="run", now=self.now())


def champion_scores() -> list[float]:
    """The champion's probability of each customer."""
    count = len(CUSTOMERS)
    spent = np.array([spent_by(who) for who in CUSTOMERS], np.float32)
    columns: dict[str, Any] = {
        "visits": np.ones(count, np.float32),
        "spent": spent,
        "last_kind": np.array([kind_of(who) for who in CUSTOMERS], object),
        "spent_a_visit": spent,
    }
    found: list[float] = shop_model(1).predict(columns).tolist()
    return found


def write_shop(root: Path, labels: str, settings: Settings) -> TriedShop:
    """Make the project: sources, features online and offline, a champion, a version in trial."""
    given = document(labels)
    case = UseCase.model_validate(given)
    (root / "configs").mkdir(parents=True)
    plainly = json.loads(json.dumps(given, default=dict))
    (root / "configs" / "shop.yaml").write_text(yaml.safe_dump(plainly, sort_keys=False))
    made = TriedShop(root, case, settings)
    made.step(NOW)
    world = World(case, settings.data_dir)
    regions = {"web": "south", "till": "north"}
    world.deliver("visits", [
        visit(on(5, 20), who, amount=spent_by(who), kind=kind_of(who)) for who in CUSTOMERS
    ])  # fmt: skip
    world.deliver("plans", [plan(on(5), who, region=regions[kind_of(who)]) for who in CUSTOMERS])
    with open_context(case, settings) as work, open_writer(settings) as store:
        built = advance(work, NOW)
        accepted = {name: item.to_dict() for name, item in accept_all(work).items()}
        set_pointer(work.ops, "shop", "accepted", accepted, run_id="run", now=NOW)
        features = {"as_of": NOW.isoformat(), "definitions": built.definitions}
        set_pointer(work.ops, "shop", "features", features, run_id="run", now=NOW)
        materialize_accepted(work, work.ops, store, now=NOW)
    _release(made, 1, "champion")
    _release(made, 2, "running")
    return made


def _release(shop: TriedShop, version: int, state: OpeningState) -> None:
    """Put the one model into the release folder of a version, with what was measured of it."""
    fingerprint = f"fingerprint-{version}"
    folder = Lake(shop.settings.lake_uri).documents_folder("shop", fingerprint)
    folder.mkdir(parents=True)
    write_files(folder / MODEL, shop_model(1).files)
    measured = example.evaluation()
    facts = replace(example.training(measured, 0.3), as_of=NOW - DAY, use_case="shop")
    scored = replace(measured, scores=score_reference(np.array(champion_scores())))
    evaluated = EvaluatedTraining(scored, evaluate_gate(shop.case.gates, scored))
    documents = {
        "metadata.json": {
            "version": version,
            "provenance": {"git_commit": "c0ffee", "dataset_snapshot_uri": "snapshot.json"},
            "training": {"as_of": NOW.isoformat()},
        },
        "data_snapshot.json": {"sources": {}},
        TRAINING: plain(facts),
        EVALUATION: evaluated.document(),
    }
    for name, found in documents.items():
        (folder / name).write_text(json.dumps(found))
    with shop.ops() as ops:
        pins = {"files": pinned_digests(folder), "package": {}}
        set_pointer(ops, "shop", f"{RELEASE}{fingerprint}", pins, run_id="run", now=NOW)
        open_rollout(
            ops, "shop", version, mlflow_run_id="m", dagster_run_id="d", fingerprint=fingerprint,
            policy=shop.case.rollout, state=state, reason="the gate passed", waiting_for=None,
            now=NOW,
        )  # fmt: skip


@contextmanager
def service(shop: TriedShop) -> Iterator[tuple[Victim, str]]:
    """`mlops serve` as a child, with the faults of the shop's file."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        try:
            return httpx.get(f"{url}/v2/health/ready", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    command = [sys.executable, "-m", "mlops_pipeline_tests.serving.planted"]
    command += ["serve", "shop", "--port", str(port)]
    victim = Victim(command, is_up, cwd=shop.root, env=shop.environment)
    victim.start()
    try:
        yield victim, url
    finally:
        victim.kill()


if __name__ == "__main__":
    found = Settings.from_environment()
    with (
        killed_at(os.environ, found.root / "lines"),
        open_context(load_use_case(found.root / "configs" / "shop.yaml"), found) as opened,
    ):
        look_at_rollout(opened)
