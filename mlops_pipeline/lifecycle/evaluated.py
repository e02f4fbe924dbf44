"""Evaluating a stored training on its test part, and reading the outcome back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.data.splits import split_frame
from mlops_pipeline.core.documents.records import EvaluatedTraining, TrainingFacts, from_plain
from mlops_pipeline.core.evaluation.evaluation import (
    ChampionComparison,
    Evaluation,
    compare_with_champion,
    evaluate_model,
)
from mlops_pipeline.core.evaluation.exceptions import GateException
from mlops_pipeline.core.evaluation.gates import (
    Gate,
    compared_metrics,
    comparison_level,
    evaluate_gate,
)
from mlops_pipeline.core.modelling.explanations import explain_model
from mlops_pipeline.core.modelling.scoring import Decisions, ScoringModel
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.context import AcceptedSource, Context, Snapshot
from mlops_pipeline.lifecycle.features.offline import load_frame
from mlops_pipeline.lifecycle.trained import write_json
from mlops_pipeline.stores.models.registry import Registry


@dataclass(frozen=True)
class Champion:
    """The champion at the time of the evaluation."""

    version: int
    as_of: datetime
    model: ScoringModel


def test_rows(
    context: Context, accepted: Mapping[str, AcceptedSource], facts: TrainingFacts
) -> LabelledFrame:
    """Read the test part of a training."""
    snapshot = Snapshot(facts.as_of, accepted)
    if context.use_case.split.method == "time":
        return load_frame(context, snapshot, only=facts.parts["test"].periods)
    frame = load_frame(context, snapshot)
    return frame.take(split_frame(context.use_case, frame).test)


def evaluate_training(
    context: Context,
    facts: TrainingFacts,
    model: ScoringModel,
    test: LabelledFrame,
    champion: Champion | None,
    *,
    exceptions: Sequence[GateException],
    now: datetime,
) -> tuple[Evaluation, Gate, Decisions]:
    """Measure a training on its test part and hold the gate against it."""
    comparison: ChampionComparison | None = None
    if champion is not None:
        trained_at = np.datetime64(champion.as_of.replace(tzinfo=None))
        comparison = compare_with_champion(
            champion.version,
            model,
            champion.model,
            test,
            test.known_at > trained_at,
            metrics=compared_metrics(context.use_case.gates),
            seed=context.use_case.training.seed,
            level=comparison_level(context.use_case.gates),
        )
    evaluation, decided = evaluate_model(
        context.use_case,
        model,
        test,
        train_metrics=facts.train_metrics,
        train_maxima=facts.train_maxima,
        importance=facts.importance,
        champion=comparison,
        explanations=explain_model(
            context.use_case,
            model,
            test,
            champion=(champion.version, champion.model) if champion is not None else None,
        ),
    )
    gate = evaluate_gate(context.use_case.gates, evaluation, exceptions, now=now)
    return evaluation, gate, decided


def current_champion(registry: Registry, version: int | None) -> Champion | None:
    """Read the champion's model and the as_of it was trained at."""
    if version is None:
        return None
    found = registry.get(version)
    return Champion(version, datetime.fromisoformat(found.tags["as_of"]), registry.load(version))


def save_evaluation(folder: Path, evaluated: EvaluatedTraining) -> None:
    """Write evaluation.json beside the model it is about."""
    write_json(folder / "evaluation.json", evaluated.document())


def read_evaluation(folder: Path) -> EvaluatedTraining:
    """Read what save_evaluation wrote.

    Raises
    ------
    NotFoundError
        When the training was not evaluated.
    """
    path = folder / "evaluation.json"
    if not path.is_file():
        raise NotFoundError(
            "the trained model was not evaluated",
            where=str(folder),
            way_out="materialize evaluation_report first",
        )
    return from_plain(EvaluatedTraining, json.loads(path.read_text(encoding="utf-8")))
