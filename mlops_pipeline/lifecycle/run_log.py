"""What MLflow shows of a run: candidates as nested runs, the evaluation, what it cost.

A projection, written at the end of a step: nothing here is read again by a decision. Keys of
entities are logged as pseudonyms, hidden inputs not at all.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.documents import plots
from mlops_pipeline.core.documents.records import TrainingFacts
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.core.modelling.calibration import reliability_curve
from mlops_pipeline.core.modelling.fitting import Trained
from mlops_pipeline.core.modelling.scoring import Floats
from mlops_pipeline.core.recipe import Examined
from mlops_pipeline.lifecycle.context import Context, RunContext, Snapshot
from mlops_pipeline.lifecycle.provenance import GitState, library_versions
from mlops_pipeline.stores.settings import pseudonymiser

LOGGED_PREDICTIONS = 2_000  # rows of the validation part kept
LOGGED_ERRORS = 20  # the most confident wrong predictions kept per candidate
CURVE_STEP = 10  # trees between two logged points of a learning curve


def log_training(
    context: Context,
    run_id: str,
    snapshot: Snapshot,
    facts: TrainingFacts,
    candidates: Sequence[Trained],
    *,
    validation: LabelledFrame,
    git: GitState,
) -> Mapping[str, bytes]:
    """Log a training below a run, each candidate as a run of its own; return the chosen's plots."""
    tracking, now = context.models.tracking, context.now
    # not the Dagster run's id: by that tag dagster-mlflow finds the parent, and only the parent
    common = {
        "git_commit": git.commit,
        "git_dirty": str(git.is_dirty).lower(),
        "run_fingerprint": facts.fingerprint,
        "as_of": facts.as_of.isoformat(),
        **{f"library.{name}": version for name, version in library_versions().items()},
        **{
            f"data.{name}": f"{item.version}-{item.content_hash}"
            for name, item in snapshot.accepted.items()
        },
    }
    tracking.log(run_id, tags={**common, "chosen": facts.chosen, "reason": facts.reason}, now=now)
    drawn: dict[str, dict[str, bytes]] = {}
    for item in candidates:
        nested = tracking.nested_run(run_id, item.name, {**common, "kind": item.model.kind})
        probability = item.model.predict(validation.columns)
        drawn[item.name] = _candidate_plots(item, validation, probability)
        _log_candidate(context, nested, item)
        tracking.log_curves(nested, item.fitted.curves, now=now, every=CURVE_STEP)
        tables = _candidate_tables(context, item, validation, probability)
        tracking.log_files(nested, {**drawn[item.name], **tables})
        tracking.client.set_terminated(nested, "FINISHED")
    return drawn[facts.chosen]


def log_evaluation(context: Context, run_id: str, examined: Examined, files: Sequence[Path]) -> str:
    """Log the figures of an evaluation and its files; return the address of the run's page."""
    tracking, evaluation = context.models.tracking, examined.evaluation
    tracking.log(
        run_id,
        metrics=_known(evaluation.metrics, "test_"),
        tags={
            "gate_passed": str(examined.gate.passed).lower(),
            "mitigation": (evaluation.mitigation and evaluation.mitigation.chosen) or "none",
        },
        now=context.now,
    )
    for path in files:
        tracking.client.log_artifact(run_id, str(path))
    experiment = f"{context.settings.mlflow_ui}/#/experiments/{tracking.experiment_id}"
    return f"{experiment}/runs/{run_id}"


def log_costs(run: RunContext, run_id: str, unit_costs: Mapping[str, Estimate]) -> None:
    """Log what the run cost up to here, and what the use case did: by finished assets."""
    price = run.use_case.compute_cost
    seconds = run.seconds()
    run.models.tracking.log(
        run_id,
        metrics={
            "lifecycle_seconds": seconds,
            "lifecycle_cost": price.of(seconds),
            **_known(unit_costs, "cost_"),
        },
        tags={"cost_currency": price.currency, "owner": run.use_case.owner},
        now=run.now,
    )


def _known(figures: Mapping[str, Estimate], prefix: str) -> dict[str, float]:
    return {
        f"{prefix}{name}": figure.value
        for name, figure in figures.items()
        if figure.value is not None
    }


def _log_candidate(context: Context, run_id: str, item: Trained) -> None:
    settings = context.use_case.training
    context.models.tracking.log(
        run_id,
        parameters={
            **settings.candidates[item.name].model_dump(),
            "seed": settings.seed,
            "class_weight": settings.class_weight,
            "calibration": item.model.document["calibration"]["kind"],
            "threshold": item.model.threshold,
            "trees": item.fitted.trees,
        },
        metrics={
            **_known(item.validation, "validation_"),
            "seconds": item.seconds,
            "cost": context.use_case.compute_cost.of(item.seconds),
        },
        now=context.now,
    )


def _candidate_plots(
    item: Trained, validation: LabelledFrame, probability: Floats
) -> dict[str, bytes]:
    label = validation.label
    drawn = {
        "confusion_matrix.png": plots.confusion_plot(label, probability, item.model.threshold),
        "calibration.png": plots.reliability_plot(reliability_curve(label, probability)),
    }
    if item.fitted.importance:
        drawn["feature_importance.png"] = plots.importance_plot(
            item.fitted.importance, title=f"Importance: {item.name}", axis="importance"
        )
    if item.fitted.curves:
        drawn["learning_curves.png"] = plots.learning_plot(item.fitted.curves, item.fitted.trees)
    return drawn


def _candidate_tables(
    context: Context, item: Trained, rows: LabelledFrame, probability: Floats
) -> dict[str, str]:
    """Return predictions on the validation part, and the most confident wrong ones with inputs."""
    pseudonym = pseudonymiser(context.settings)
    hidden = context.use_case.sensitive_features()
    names = [name for name in item.model.input_names if name not in hidden]

    def table(chosen: Sequence[int], inputs: Sequence[str]) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["entity_hash", "as_of", "label", "probability", *inputs])
        for row in chosen:
            key, known = pseudonym(rows.entity[row]), (rows.as_of[row], rows.label[row])
            values = [rows.columns[name][row] for name in inputs]
            writer.writerow([key, *known, f"{probability[row]:.6f}", *values])
        return text.getvalue()

    step = max(1, len(rows) // LOGGED_PREDICTIONS)
    wrong = np.argsort(-np.abs(rows.label - probability))[:LOGGED_ERRORS]
    return {
        "validation_predictions.csv": table(range(0, len(rows), step), []),
        "representative_errors.csv": table(list(wrong), names),
    }
