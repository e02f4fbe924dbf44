"""Evaluation: a stored training held against its test part, the gate, and the report about it.

    mitigated/       text and JSON of the variant that was evaluated, and recipe.json: how it is
                     fitted again; there exactly when it took the base model's place
    evaluation.json  every figure, and the gate rule by rule
    report.html, evidently.html

What is measured and when a model is mitigated belongs to core/recipe.py.
"""

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mlops_pipeline.core.data.frame import LabelledFrame, split_frame
from mlops_pipeline.core.documents import plots
from mlops_pipeline.core.documents.pages import (
    ReportFacts,
    headline,
    parity_limits,
    render_report,
    singles,
)
from mlops_pipeline.core.documents.records import (
    EvaluatedTraining,
    SourceFacts,
    TrainingFacts,
    from_plain,
    plain,
)
from mlops_pipeline.core.evaluation.evaluation import Evaluation, missing_words
from mlops_pipeline.core.evaluation.outcomes import Gate
from mlops_pipeline.core.mitigation.methods import Candidate, MitigationRecipe
from mlops_pipeline.core.modelling.calibration import calibration_notes
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.core.monitoring.cost import price_text
from mlops_pipeline.core.recipe import (
    Champion,
    Examination,
    Examined,
    evaluate,
    mitigate_refused,
)
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.champions import released_model
from mlops_pipeline.lifecycle.compliance.fairness_audits import raise_parity_alert
from mlops_pipeline.lifecycle.context import Context, RunContext, Snapshot
from mlops_pipeline.lifecycle.exceptions import list_exceptions
from mlops_pipeline.lifecycle.features.offline import load_frame
from mlops_pipeline.lifecycle.provenance import git_state
from mlops_pipeline.lifecycle.rollouts import find_champion
from mlops_pipeline.lifecycle.run_log import log_evaluation
from mlops_pipeline.lifecycle.status import use_case_costs
from mlops_pipeline.lifecycle.train import (
    EVALUATION,
    SAMPLE,
    TrainedModel,
    is_registered,
    read_facts,
    read_training,
    trained_model,
)
from mlops_pipeline.stores.files import new_folder, restore_folder, write_json
from mlops_pipeline.stores.models.files import pinned_digests, read_pinned, texts, write_files
from mlops_pipeline.stores.pages import write_drift_report, write_page

MITIGATED, RECIPE = "mitigated", "recipe.json"
REPORT, DRIFT_PAGE = "report.html", "evidently.html"
MISSING_NOTED = 0.05  # change of the share of missing values that the report begins with
WORST_COLUMNS = 5  # features named as most changed between the train and the test part


@dataclass(frozen=True)
class EvaluatedModel:
    """An evaluation with the gate's outcome in a sentence, its files, plots and pages."""

    evaluation: Evaluation
    gate: Gate
    outcome: str
    fingerprint: str
    folder: Path
    plots: Mapping[str, bytes]
    pages: Mapping[str, str]


@dataclass(frozen=True)
class EvaluationPointer:
    """The pointer to the newest evaluation: of which training, the gate, digests of its files."""

    fingerprint: str
    passed: bool
    needs_review: bool
    files: Mapping[str, str] = field(default_factory=dict)


def evaluate_model(run: RunContext) -> EvaluatedModel:
    """Evaluate the newest training on its test part, hold the gate against it, write the report.

    A model that the gate refuses on fairness only is mitigated, and its variant evaluated too. The
    evaluation of a registered version is final: it is read, and nothing is written.
    """
    use_case, git, trained = run.use_case, git_state(run.settings), trained_model(run)
    if is_registered(run, trained.fingerprint):
        return _final(run, trained)
    facts, model, files = read_training(trained)
    test = _test_rows(run, trained.snapshot, facts)
    against = Examination(test, _champion(run), list_exceptions(run.ops, use_case.name), run.now)
    examined = mitigate_refused(
        *(use_case, facts, model, against, evaluate(use_case, facts, model, against)),
        read=partial(load_frame, run, trained.snapshot),
        threads=run.settings.threads,
    )
    drawn = _plots(run, facts, test, examined)
    (trained.folder / EVALUATION).unlink(missing_ok=True)  # the evaluation before goes first
    _write_variant(trained.folder / MITIGATED, examined.variant)
    moved = _write_drift(run, trained.folder, files[SAMPLE], test)
    report = _report_facts(
        run, trained, facts, examined, drawn=drawn, moved=moved, commit=git.commit
    )
    write_page(trained.folder / REPORT, render_report(report))
    gate = examined.gate
    document = EvaluatedTraining(examined.evaluation, gate).document()
    write_json(trained.folder / EVALUATION, document)
    written = [trained.folder / name for name in (REPORT, EVALUATION, DRIFT_PAGE)]
    page = log_evaluation(run, trained.mlflow_run_id, examined, written)
    made = {
        name: digest for name, digest in pinned_digests(trained.folder).items() if _is_ours(name)
    }
    pointer = EvaluationPointer(trained.fingerprint, gate.passed, gate.needs_review, made)
    run.set_pointer("evaluation", plain(pointer))
    for rule in gate.failed:
        run.log.warning(f"gate [{rule.effect}] {rule.name}: {rule.reason}")
    raise_parity_alert(run.ops, use_case, gate, run_id=run.run_id, now=run.now)
    return EvaluatedModel(
        evaluation=examined.evaluation,
        gate=gate,
        outcome=headline(gate, use_case).sentence,
        fingerprint=trained.fingerprint,
        folder=trained.folder,
        plots=drawn,
        pages={
            "report": f"{page}/artifacts/{REPORT}",
            "what_changed": f"{page}/artifacts/{DRIFT_PAGE}",
            "mlflow_run": page,
        },
    )


def _final(run: RunContext, trained: TrainedModel) -> EvaluatedModel:
    """Return the evaluation by which a version was registered, when its files are still those."""
    released = run.lake.documents_folder(run.use_case.name, trained.fingerprint)
    recorded = {EVALUATION: pinned_digests(released)[EVALUATION]}
    way_out = "restore the folder from a backup of the lake"
    text = read_pinned(trained.folder, recorded, way_out=way_out)[EVALUATION]
    found = from_plain(EvaluatedTraining, json.loads(text))
    files = {
        name: digest for name, digest in pinned_digests(trained.folder).items() if _is_ours(name)
    }
    gate = found.gate
    pointer = EvaluationPointer(trained.fingerprint, gate.passed, gate.needs_review, files)
    run.set_pointer("evaluation", plain(pointer))
    outcome = headline(gate, run.use_case).sentence
    return EvaluatedModel(
        found.evaluation, gate, outcome, trained.fingerprint, trained.folder, plots={}, pages={}
    )


def read_evaluation(
    run: RunContext, trained: TrainedModel
) -> tuple[EvaluatedTraining, Mapping[str, bytes]]:
    """Read what evaluate_model wrote of a training, and its files; ModelFilesError if changed."""
    pointer = from_plain(EvaluationPointer, run.pointer("evaluation", "evaluation_report"))
    if pointer.fingerprint != trained.fingerprint:
        raise NotFoundError(
            "the trained model was not evaluated",
            where=str(trained.folder),
            expected=f"an evaluation of fingerprint {trained.fingerprint}",
            found=f"one of {pointer.fingerprint}",
            way_out="materialize evaluation_report first",
        )
    way_out = "materialize evaluation_report again"
    files = read_pinned(trained.folder, pointer.files, way_out=way_out)
    return from_plain(EvaluatedTraining, json.loads(files[EVALUATION])), files


def read_mitigated(files: Mapping[str, bytes]) -> tuple[ScoringModel, MitigationRecipe]:
    """Return the variant that took the base model's place, and how it is fitted again."""
    variant = texts(files, f"{MITIGATED}/")
    recipe = from_plain(MitigationRecipe, json.loads(variant.pop(RECIPE)))
    return ScoringModel.of_files(variant), recipe


def _is_ours(name: str) -> bool:
    return name in (EVALUATION, REPORT, DRIFT_PAGE) or name.startswith(f"{MITIGATED}/")


def _test_rows(context: Context, snapshot: Snapshot, facts: TrainingFacts) -> LabelledFrame:
    """Read the test part of a training."""
    if context.use_case.split.method == "time":
        return load_frame(context, snapshot, only=facts.parts["test"].periods)
    frame = load_frame(context, snapshot)
    return frame.take(split_frame(context.use_case, frame).test)


def _champion(context: Context) -> Champion | None:
    rollout = find_champion(context.ops, context.use_case.name)
    if rollout is None:
        return None
    folder = context.lake.documents_folder(context.use_case.name, rollout.fingerprint)
    model = released_model(*(context.ops, context.settings), context.use_case, rollout.fingerprint)
    return Champion(rollout.version, read_facts(folder).as_of, model)


def _write_variant(folder: Path, variant: Candidate | None) -> None:
    if variant is not None:
        with new_folder(folder) as work:
            write_files(work, variant.model.files)
            write_json(work / RECIPE, plain(variant.recipe))
    else:
        restore_folder(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _write_drift(
    context: Context, folder: Path, sample: bytes, test: LabelledFrame
) -> Mapping[str, float]:
    """Write Evidently's report of the train against the test part; return the worst columns."""
    import pandas as pd

    reference = pd.read_parquet(io.BytesIO(sample))
    current = pd.DataFrame(dict(test.columns))
    summary = write_drift_report(
        folder / DRIFT_PAGE, reference, current, seed=context.use_case.training.seed
    )
    return dict(list(summary.scores.items())[:WORST_COLUMNS])


def _plots(
    context: Context, facts: TrainingFacts, test: LabelledFrame, examined: Examined
) -> dict[str, bytes]:
    evaluation, threshold = examined.evaluation, examined.decided.threshold
    probability = examined.decided.probability
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


def _report_facts(
    run: RunContext,
    trained: TrainedModel,
    facts: TrainingFacts,
    examined: Examined,
    *,
    drawn: Mapping[str, bytes],
    moved: Mapping[str, float],
    commit: str,
) -> ReportFacts:
    return ReportFacts(
        use_case=run.use_case,
        training=facts,
        provenance=_provenance(run, trained, commit),
        sources={
            name: SourceFacts(item.version, item.rows, item.quarantined)
            for name, item in trained.accepted.items()
        },
        threshold=plots.range_text(examined.decided.threshold),
        evaluation=examined.evaluation,
        gate=examined.gate,
        plots=drawn,
        links={"What changed between training and test (Evidently)": DRIFT_PAGE},
        notes=_notes(run, facts, examined, moved),
    )


def _provenance(run: RunContext, trained: TrainedModel, commit: str) -> Mapping[str, str]:
    seconds, price = run.seconds(), run.use_case.compute_cost
    costs = use_case_costs(run.use_case, run.ops, run.lake)
    return {
        "commit": commit,
        "run fingerprint": trained.fingerprint,
        "Dagster run": run.run_id,
        "MLflow run": trained.mlflow_run_id,
        "seed": str(run.use_case.training.seed),
        "cost of the run up to here": f"{price.of(seconds):.4f} {price.currency} ({seconds:.0f} s)",
        **{
            f"cost {name.replace('_', ' ')} up to here": price_text(figure, costs.currency)
            for name, figure in costs.unit_costs.items()
        },
    }


def _notes(
    run: RunContext, facts: TrainingFacts, examined: Examined, moved: Mapping[str, float]
) -> list[str]:
    notes, refit = [], run.use_case.training.refit
    missing = [item for item in examined.evaluation.missing if item.change >= MISSING_NOTED]
    if missing:
        notes.append(f"Missing values: {missing_words(missing[:WORST_COLUMNS])}.")
    held = facts.parts["validation"]
    kind = "none" if facts.kind == "dummy" else run.use_case.training.calibration
    notes += calibration_notes(kind, held.rows, round(held.rows * held.positive_rate))
    mitigation = examined.evaluation.mitigation
    if mitigation is not None and mitigation.chosen is not None:
        notes.append(
            "The test part was used twice: for the chosen candidate, which the gate refused on "
            f"fairness only, and for one variant of it, {mitigation.chosen}, chosen beforehand on "
            "the validation part."
        )
    if refit != "none" and examined.gate.passed:
        rows = f"all {facts.labelled_rows:,}" if refit == "all_labelled" else "the newest"
        notes.append(
            "Every figure belongs to the model evaluated here; the registered one is its recipe, "
            f"refitted on {rows} labelled rows."
        )
    if moved:
        names = ", ".join(f"{name} ({score:.2f})" for name, score in moved.items())
        notes.append(f"Most changed between the training and the test part: {names}.")
    return notes
