"""One training from the feature table to its artifact folder and MLflow runs."""

import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.privacy import sensitive_features
from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.data.splits import Parts, split_frame
from mlops_pipeline.core.documents import plots
from mlops_pipeline.core.documents.records import TrainingFacts
from mlops_pipeline.core.modelling.calibration import reliability_curve
from mlops_pipeline.core.modelling.selection import Trained
from mlops_pipeline.core.modelling.train import Training, train
from mlops_pipeline.lifecycle.context import AcceptedSource, Context, Snapshot
from mlops_pipeline.lifecycle.features.offline import load_frame
from mlops_pipeline.lifecycle.provenance import (
    GitState,
    git_state,
    library_versions,
    run_fingerprint,
)
from mlops_pipeline.lifecycle.trained import save_training, training_facts
from mlops_pipeline.stores.models.tracking import Tracking, open_tracking
from mlops_pipeline.stores.pseudonyms import pseudonymiser

Floats = npt.NDArray[np.float64]
LOGGED_PREDICTIONS = 2_000  # rows of the validation part kept, keys as pseudonyms
LOGGED_ERRORS = 20  # the most confident wrong predictions kept per candidate
CURVE_STEP = 10  # trees between two logged points of a learning curve


@dataclass(frozen=True)
class StoredTraining:
    """A finished training and where its files are."""

    facts: TrainingFacts
    folder: Path
    training: Training
    candidate_plots: Mapping[str, Mapping[str, bytes]]
    cost: float
    currency: str


def train_and_store(
    context: Context,
    accepted: Mapping[str, AcceptedSource],
    as_of: datetime,
    *,
    mlflow_run_id: str,
    now: datetime,
    report: Callable[[str], None],
) -> StoredTraining:
    """Split, train every candidate, log it, and write the artifact folder.

    Raises
    ------
    StateError
        Before anything is trained, when the commit of the code is not known.
    """
    use_case, git = context.use_case, git_state(context.settings)
    frame = load_frame(context, Snapshot(as_of, accepted))
    parts = split_frame(use_case, frame)
    report(f"{len(frame):,} labelled rows; parts {parts.rows()}, {parts.purged:,} purged")
    training = train(
        use_case,
        frame,
        parts,
        threads=context.settings.threads,
        stopwatch=time.perf_counter,
        report=lambda item: report(
            f"{item.name}: validation log loss {item.validation_log_loss:.4f} "
            f"in {item.seconds:.1f} s"
        ),
    )
    report(f"chosen: {training.choice.name}, {training.choice.reason}")
    facts = training_facts(
        use_case,
        frame,
        parts,
        training,
        fingerprint=run_fingerprint(use_case, accepted, as_of),
        as_of=as_of,
    )
    tracking = open_tracking(context.settings, use_case.name)
    tracking.end_abandoned(but=mlflow_run_id)
    drawn = _log(
        tracking,
        context,
        facts,
        training,
        frame,
        parts,
        accepted,
        git=git,
        parent=mlflow_run_id,
        now=now,
    )
    hidden = sensitive_features(use_case)
    folder = save_training(context.lake, facts, training.chosen.model, frame, parts, hidden=hidden)
    cost = use_case.compute_cost.of(sum(item.seconds for item in training.candidates))
    return StoredTraining(facts, folder, training, drawn, cost, use_case.compute_cost.currency)


def _log(  # noqa: PLR0913, PLR0917 # private, one caller: everything that a run's record holds
    tracking: Tracking,
    context: Context,
    facts: TrainingFacts,
    training: Training,
    frame: LabelledFrame,
    parts: Parts,
    accepted: Mapping[str, AcceptedSource],
    *,
    git: GitState,
    parent: str,
    now: datetime,
) -> dict[str, dict[str, bytes]]:
    # not the Dagster run's id: by that tag dagster-mlflow finds the parent, and only the parent
    common = {
        "git_commit": git.commit,
        "git_dirty": str(git.is_dirty).lower(),
        "run_fingerprint": facts.fingerprint,
        "as_of": facts.as_of.isoformat(),
        **{f"library.{name}": version for name, version in library_versions().items()},
        **{
            f"data.{name}": f"{item.version}-{item.content_hash}" for name, item in accepted.items()
        },
    }
    tracking.log(parent, tags={**common, "chosen": facts.chosen, "reason": facts.reason}, now=now)
    held = frame.take(parts.validation)
    drawn = {}
    for item in training.candidates:
        run = tracking.nested_run(parent, item.name, {**common, "kind": item.model.kind})
        drawn[item.name] = _log_candidate(tracking, run, context, item, held, now=now)
        tracking.end(run)
    return drawn


def _log_candidate(
    tracking: Tracking,
    run: str,
    context: Context,
    item: Trained,
    held: LabelledFrame,
    *,
    now: datetime,
) -> dict[str, bytes]:
    settings = context.use_case.training
    recipe = settings.candidates[item.name].model_dump()
    probability = item.model.predict(held.columns)
    tracking.log(
        run,
        parameters={
            **recipe,
            "seed": settings.seed,
            "class_weight": settings.class_weight,
            "calibration": item.model.document["calibration"]["kind"],
            "threshold": item.model.threshold,
            "trees": item.fitted.trees,
        },
        metrics={
            **{
                f"validation_{name}": figure.value
                for name, figure in item.validation.items()
                if figure.value is not None
            },
            "seconds": item.seconds,
            "cost": context.use_case.compute_cost.of(item.seconds),
        },
        now=now,
    )
    pseudonym = pseudonymiser(context.settings)
    hidden = sensitive_features(context.use_case)
    names = [name for name in item.model.input_names if name not in hidden]
    tracking.log_curves(run, item.fitted.curves, now=now, every=CURVE_STEP)
    files = {
        "confusion_matrix.png": plots.confusion_plot(held.label, probability, item.model.threshold),
        "calibration.png": plots.reliability_plot(reliability_curve(held.label, probability)),
    }
    if item.fitted.importance:
        files["feature_importance.png"] = plots.importance_plot(
            item.fitted.importance, title=f"Importance: {item.name}", axis="importance"
        )
    if item.fitted.curves:
        files["learning_curves.png"] = plots.learning_plot(item.fitted.curves, item.fitted.trees)
    tracking.log_files(
        run,
        {
            **files,
            "validation_predictions.csv": _predictions_csv(held, probability, pseudonym),
            "representative_errors.csv": _errors_csv(names, held, probability, pseudonym),
        },
    )
    return files


def _predictions_csv(
    held: LabelledFrame, probability: Floats, pseudonym: Callable[[object], str]
) -> str:
    step = max(1, len(held) // LOGGED_PREDICTIONS)
    rows = [
        [pseudonym(held.entity[row]), held.as_of[row], held.label[row], f"{probability[row]:.6f}"]
        for row in range(0, len(held), step)
    ]
    return _csv(["entity_hash", "as_of", "label", "probability"], rows)


def _errors_csv(
    names: Sequence[str],
    held: LabelledFrame,
    probability: Floats,
    pseudonym: Callable[[object], str],
) -> str:
    """Return the most confident wrong predictions with the named inputs."""
    wrong = np.argsort(-np.abs(held.label - probability))[:LOGGED_ERRORS]
    rows = [
        [
            pseudonym(held.entity[row]),
            held.as_of[row],
            held.label[row],
            f"{probability[row]:.6f}",
            *(held.columns[name][row] for name in names),
        ]
        for row in wrong
    ]
    return _csv(["entity_hash", "as_of", "label", "probability", *names], rows)


def _csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
