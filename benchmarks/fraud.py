"""Every candidate of configs/fraud.yaml on the time-ordered test part, through the training code.

For each seed a world of its own: simulated, ingested, accepted, features built, split, trained.
Figures are of the candidates as trained, before the refit that a registered model gets.
"""

import argparse
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.ingested import NOW
from benchmarks.measure import ROOT
from benchmarks.prepared import settings_in
from benchmarks.result import Result, Row
from mlops_pipeline.config import UseCase, load_use_cases
from mlops_pipeline.core.data.frame import LabelledFrame, split_frame
from mlops_pipeline.core.metrics.intervals import paired_difference
from mlops_pipeline.core.metrics.metrics import Estimate, point_metrics
from mlops_pipeline.core.modelling.train import Training, train
from mlops_pipeline.demo.simulated import write_fraud
from mlops_pipeline.lifecycle.context import AcceptedSource, Context, open_context
from mlops_pipeline.lifecycle.features.offline import build_features, load_frame
from mlops_pipeline.lifecycle.ingest.accepted import take_snapshot
from mlops_pipeline.lifecycle.ingest.ingestion import ingest
from mlops_pipeline.lifecycle.ingest.validation import validate_source
from mlops_pipeline.stores.settings import Settings

USE_CASE, FLOOR = "fraud", "logistic"
CUSTOMERS, MONTHS, SEEDS = 2_000, 18, (7, 11)
METRICS = ("pr_auc", "roc_auc")
BOOTSTRAP_SEED = 7


@dataclass(frozen=True)
class World:
    """One world's outcome: what was trained, and the part that it is tested on."""

    as_of: datetime
    training: Training
    test: LabelledFrame


def main(customers: int) -> None:
    """Train in the world of each seed and print the candidates' figures on its test part."""
    use_case = load_use_cases(ROOT / "configs")[USE_CASE]
    base = os.environ.get("BENCHMARK_DIR")  # where the data fit; default: the system's
    tables: dict[str, list[Row]] = {}
    figures = []
    for seed in SEEDS:
        with TemporaryDirectory(prefix="benchmark-", dir=base) as folder:
            world = trained_world(use_case, settings_in(Path(folder)), customers, seed)
        rows, positives = len(world.test), int(world.test.label.sum())
        title = f"Seed {seed}: {rows:,} test rows, {positives:,} frauds, as of {world.as_of.date()}"
        tables[title] = _candidates(world)
        difference = above(world, FLOOR)
        tables[f"Seed {seed}: PR AUC of {world.training.choice.name} (chosen) above"] = [
            {"candidate": name, "difference": _with_interval(above(world, name))}
            for name in use_case.training.candidates
            if name != world.training.choice.name
        ]
        chosen = f"{world.training.choice.name} {_scores(world)[world.training.choice.name][0]}"
        figures.append(f"seed {seed} {chosen}, {_with_interval(difference)} above {FLOOR}")
    Result(
        name="fraud",
        what=f"PR AUC of the chosen candidate on the time-ordered test part, and how far it is "
        f"above logistic regression (95 % bootstrap by customer); {customers:,} customers x "
        f"{MONTHS} months, a world for each seed",
        figure="; ".join(figures),
        target="above logistic regression and the dummy",
        tables=tables,
    ).print()


def trained_world(use_case: UseCase, settings: Settings, customers: int, seed: int) -> World:
    """Simulate a world and go through the steps of the lifecycle up to the trained candidates."""
    settings = replace(settings, threads=os.cpu_count() or 1)
    folder = settings.data_dir / "sources" / USE_CASE
    write_fraud(folder, customers=customers, months=MONTHS, seed=seed)
    with open_context(use_case, settings) as work:
        accepted = _accepted(work)
        snapshot = take_snapshot(use_case, accepted, None, now=NOW)
        build_features(work, snapshot)
        frame = load_frame(work, snapshot)
    parts = split_frame(use_case, frame)
    training = train(use_case, frame, parts, threads=settings.threads, stopwatch=time.perf_counter)
    return World(snapshot.as_of, training, frame.take(parts.test))


def above(world: World, name: str) -> Estimate:
    """Return PR AUC of the chosen candidate less that of another, with its interval."""
    models = {item.name: item.model for item in world.training.candidates}
    return paired_difference(
        world.test.label,
        models[world.training.choice.name].predict(world.test.columns),
        models[name].predict(world.test.columns),
        metric="pr_auc",
        entities=world.test.entity,
        seed=BOOTSTRAP_SEED,
    )


def _accepted(work: Context) -> Mapping[str, AcceptedSource]:
    accepted = {}
    for name in work.use_case.sources:
        ingest(work, name, now=NOW, finished_through=None)
        validation = validate_source(work, name, now=NOW)
        if not validation.passed:
            failed = [str(verdict) for verdict in validation.results if not verdict.passed]
            raise SystemExit(f"the source {name} was refused: {'; '.join(failed)}")
        accepted[name] = validation.accepted
    return accepted


def _scores(world: World) -> dict[str, list[str]]:
    """Return every candidate's metrics on the test part."""
    found = {}
    for item in world.training.candidates:
        scores = item.model.predict(world.test.columns)
        metrics = point_metrics(world.test.label, scores, metrics=METRICS)
        found[item.name] = [_number(metrics[metric].value) for metric in METRICS]
    return found


def _candidates(world: World) -> list[Row]:
    seconds = {item.name: item.seconds for item in world.training.candidates}
    return [
        {
            "candidate": name,
            "PR AUC": pr_auc,
            "ROC AUC": roc_auc,
            "chosen": "yes" if name == world.training.choice.name else "",
            "fit (s)": round(seconds[name], 1),
        }
        for name, (pr_auc, roc_auc) in _scores(world).items()
    ]


def _with_interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{_number(estimate.value)} ({estimate.reason})"
    return f"{_number(estimate.value)} ({estimate.low:.4f} to {estimate.high:.4f})"


def _number(value: float | None) -> str:
    return "not computable" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    main(parser.parse_args().customers)
