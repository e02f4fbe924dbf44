"""One evaluation from a stored training to evaluation.json, report.html and MLflow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mlops_pipeline.config.modelling import ComputeCost
from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.documents import plots
from mlops_pipeline.core.documents.records import EvaluatedTraining, SourceFacts, TrainingFacts
from mlops_pipeline.core.documents.report import (
    ReportFacts,
    headline,
    parity_limits,
    render_report,
    singles,
)
from mlops_pipeline.core.evaluation.evaluation import Evaluation
from mlops_pipeline.core.evaluation.exceptions import GateException
from mlops_pipeline.core.evaluation.gates import Gate
from mlops_pipeline.core.monitoring.cost import CostSheet, price_text
from mlops_pipeline.lifecycle.context import AcceptedSource, Context
from mlops_pipeline.lifecycle.evaluated import (
    current_champion,
    evaluate_training,
    save_evaluation,
    test_rows,
)
from mlops_pipeline.lifecycle.mitigated import Judged, judge_training
from mlops_pipeline.lifecycle.provenance import git_state
from mlops_pipeline.lifecycle.trained import read_training
from mlops_pipeline.stores.models.registry import Registry
from mlops_pipeline.stores.models.tracking import open_tracking

DRIFT_PAGE = "evidently.html"
WORST_COLUMNS = 5  # features named as most changed between the train and the test part


@dataclass(frozen=True)
class JudgedTraining:
    """An evaluation with its verdict and where its files are."""

    evaluation: Evaluation
    gate: Gate
    verdict: str
    folder: Path
    plots: Mapping[str, bytes]
    pages: Mapping[str, str]


def evaluate_and_store(  # noqa: PLR0913 - the report records where everything came from
    context: Context,
    accepted: Mapping[str, AcceptedSource],
    folder: Path,
    *,
    champion_version: int | None,
    exceptions: Sequence[GateException],
    mlflow_run_id: str,
    dagster_run_id: str,
    spent_s: float,
    costs: CostSheet,
    now: datetime,
) -> JudgedTraining:
    """Evaluate a stored training on its test part, judge the gate, write the report.

    Parameters
    ----------
    spent_s : float
        Seconds that the assets of this run took so far.
    costs : CostSheet
        Of the use case so far.
    """
    facts, trained = read_training(folder)
    tracking = open_tracking(context.settings, context.use_case.name)
    champion = current_champion(Registry(tracking, context.use_case.name), champion_version)
    test = test_rows(context, accepted, facts)
    judged = judge_training(
        *(context, accepted, folder, facts, trained),
        test=test,
        judge=lambda facts, model: evaluate_training(
            context, facts, model, test, champion, exceptions=exceptions, now=now
        ),
    )
    evaluation, gate = judged.evaluation, judged.gate
    drawn = _plots(context, facts, test, judged)
    moved = _drift(context, folder, test)
    provenance = {
        "commit": git_state(context.settings).commit,
        "run fingerprint": facts.fingerprint,
        "Dagster run": dagster_run_id,
        "MLflow run": mlflow_run_id,
        "seed": str(context.use_case.training.seed),
        "cost of the run up to here": _cost(context.use_case.compute_cost, spent_s),
        **{
            f"cost {name.replace('_', ' ')} up to here": price_text(figure, costs.currency)
            for name, figure in costs.unit_costs.items()
        },
    }
    report = _report_facts(context, facts, accepted, judged, drawn, moved, provenance)
    (folder / "report.html").write_text(render_report(report), encoding="utf-8")
    save_evaluation(folder, EvaluatedTraining(evaluation, gate))
    tracking.log(
        mlflow_run_id,
        metrics={
            f"test_{name}": figure.value
            for name, figure in evaluation.metrics.items()
            if figure.value is not None
        },
        tags={
            "gate_passed": str(gate.passed).lower(),
            "mitigation": (evaluation.mitigation and evaluation.mitigation.chosen) or "none",
        },
        now=now,
    )
    for name in ("report.html", "evaluation.json", DRIFT_PAGE):
        tracking.client.log_artifact(mlflow_run_id, str(folder / name))
    verdict = headline(gate, context.use_case).sentence
    run_page = (
        f"{context.settings.mlflow_ui}/#/experiments/{tracking.experiment_id}/runs/{mlflow_run_id}"
    )
    pages = {
        "report": f"{run_page}/artifacts/report.html",
        "what_changed": f"{run_page}/artifacts/{DRIFT_PAGE}",
        "mlflow_run": run_page,
    }
    return JudgedTraining(evaluation, gate, verdict, folder, drawn, pages)


def _plots(
    context: Context, facts: TrainingFacts, test: LabelledFrame, judged: Judged
) -> dict[str, bytes]:
    evaluation, probability = judged.evaluation, judged.decided.probability
    threshold = judged.decided.threshold
    drawn = {
        "reliability": plots.reliability_plot(evaluation.reliability),
        "roc": plots.roc_plot(test.label, probability),
        "precision_recall": plots.precision_recall_plot(test.label, probability),
        "scores": plots.score_plot(test.label, probability, threshold),
        "confusion": plots.confusion_plot(test.label, probability, threshold),
        "shap": plots.importance_plot(
            evaluation.explanations.shap, title=f"Mean |SHAP|: {facts.chosen}", axis="log-odds"
        ),
    }
    if evaluation.slices:
        drawn["slices"] = plots.slice_plot(
            evaluation.slices, "roc_auc", evaluation.metrics["roc_auc"]
        )
    if evaluation.mitigation is not None:
        drawn["mitigation"] = plots.mitigation_plot(evaluation.mitigation)
    limits = parity_limits(context.use_case)
    for audit in singles(evaluation.fairness):
        drawn[f"fairness_{audit.attribute}"] = plots.selection_plot(
            audit, limits.get(audit.attribute)
        )
    return drawn


def _drift(context: Context, folder: Path, test: LabelledFrame) -> dict[str, float]:
    """Write Evidently's report of the train against the test part; return the worst columns."""
    import pandas as pd

    from mlops_pipeline.stores.pages.evidently_report import write_drift_report

    reference = pd.read_parquet(folder / "train_sample.parquet")
    current = pd.DataFrame(dict(test.columns))
    summary = write_drift_report(
        folder / DRIFT_PAGE, reference, current, seed=context.use_case.training.seed
    )
    return summary.worst(WORST_COLUMNS)


def _report_facts(  # noqa: PLR0917 # private, one caller: every part of the page
    context: Context,
    facts: TrainingFacts,
    accepted: Mapping[str, AcceptedSource],
    judged: Judged,
    drawn: Mapping[str, bytes],
    moved: Mapping[str, float],
    provenance: Mapping[str, str],
) -> ReportFacts:
    settings = context.use_case.training
    evaluation, gate = judged.evaluation, judged.gate
    notes = []
    if evaluation.mitigation is not None and evaluation.mitigation.chosen is not None:
        notes.append(
            "The test part was looked at twice: by the chosen candidate, which the gate refused on "
            f"fairness only, and by one variant of it, {evaluation.mitigation.chosen}, chosen "
            "beforehand on the validation part."
        )
    if settings.refit != "none" and gate.passed:
        rows = f"all {facts.labelled_rows:,}" if settings.refit == "all_labelled" else "the newest"
        notes.append(
            "Every figure belongs to the model evaluated here; the registered one is its recipe, "
            f"refitted on {rows} labelled rows."
        )
    if moved:
        names = ", ".join(f"{name} ({score:.2f})" for name, score in moved.items())
        notes.append(f"Most changed between the training and the test part: {names}.")
    return ReportFacts(
        use_case=context.use_case,
        training=facts,
        provenance=provenance,
        sources={
            name: SourceFacts(item.version, item.rows, item.quarantined)
            for name, item in accepted.items()
        },
        threshold=plots.range_text(judged.decided.threshold),
        evaluation=evaluation,
        gate=gate,
        plots=drawn,
        links={"What changed between training and test (Evidently)": DRIFT_PAGE},
        notes=notes,
    )


def _cost(price: ComputeCost, seconds: float) -> str:
    return f"{price.of(seconds):.4f} {price.currency} ({seconds:.0f} s)"
