"""Registering a model: version, documents, contract test, `complete`; in this order.

MLflow's alias follows the ledger (project.py).

The documents lie in a folder of their own, beside the training's, with the evaluation that let the
version in: another run of the same fingerprint writes the training's folder again, not this one.

    model/ (its text and JSON), input_example.json, data_snapshot.json, configuration.json,
    requirements.lock, requirements.txt, metadata.json, card_facts.json, model_card.md,
    model_card.html, and what the training wrote: training.json, evaluation.json, report.html,
    evidently.html
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlops_pipeline.config import config_hash
from mlops_pipeline.core.audit.chain import RECORD
from mlops_pipeline.core.documents.pages import Recorded, changes
from mlops_pipeline.core.documents.records import (
    EvaluatedTraining,
    GroupThresholds,
    Metadata,
    ModelFacts,
    TrainingFacts,
    from_plain,
    plain,
    validate_metadata,
)
from mlops_pipeline.core.evaluation.evaluation import Evaluation
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.core.recipe import Final, refit_final
from mlops_pipeline.core.rollout.records import Rollout
from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.lifecycle.alerts import list_alerts, resolve_alert
from mlops_pipeline.lifecycle.bookkeeping import (
    NewDecision,
    finish_lifecycle,
    last_lifecycle,
    record_decision,
)
from mlops_pipeline.lifecycle.champions import FILES, MODEL, RELEASE, pinned_digest
from mlops_pipeline.lifecycle.compliance.cards import (
    CONFIG,
    MARKDOWN,
    MODEL_FACTS,
    read_recorded,
    write_card,
)
from mlops_pipeline.lifecycle.context import RunContext
from mlops_pipeline.lifecycle.deployments import Registered, open_deployment
from mlops_pipeline.lifecycle.evaluate import read_evaluation, read_mitigated
from mlops_pipeline.lifecycle.features.offline import definitions_hash, load_frame
from mlops_pipeline.lifecycle.packaging import (
    column_types,
    example_columns,
    framework,
    input_example,
    packaged,
)
from mlops_pipeline.lifecycle.provenance import (
    GitState,
    environment_lock,
    git_state,
    hardware,
    library_versions,
)
from mlops_pipeline.lifecycle.rollouts import find_champion
from mlops_pipeline.lifecycle.run_log import log_costs
from mlops_pipeline.lifecycle.status import use_case_costs
from mlops_pipeline.lifecycle.train import TrainedModel, read_training, trained_model
from mlops_pipeline.stores.files import write_json
from mlops_pipeline.stores.models.contract import check_contract
from mlops_pipeline.stores.models.files import digests, pinned_digests, write_files
from mlops_pipeline.stores.models.mlflow import RegisteredVersion

EVIDENCE = ("training.json", "evaluation.json", "report.html", "evidently.html")
# names of personal columns, extreme values of inputs; the model is among its own artifacts there
NOT_IN_MLFLOW = (CONFIG, "training.json", MODEL)
REFITTED = {
    "all_labelled": "labelled rows, all of them",
    "newest": "newest labelled rows, as many periods as were trained on",
}


@dataclass(frozen=True)
class Released:
    """A registered version with its documents."""

    version: int
    mlflow_run_id: str
    metadata: Metadata
    card: str


@dataclass(frozen=True)
class _Release:
    """What is registered, and from where."""

    run: RunContext
    trained: TrainedModel
    facts: TrainingFacts
    evaluation: Evaluation
    final: Final
    evidence: Mapping[str, bytes]


def release_model(run: RunContext, *, must_pass: bool = False) -> Released | None:
    """Register the newest evaluated model when its gate let it pass: refitted, with its documents.

    A refusal ends the lifecycle, and the champion stays; with `must_pass` it is also an error. The
    same fingerprint keeps the version it has.
    """
    trained, champion = trained_model(run), find_champion(run.ops, run.use_case.name)
    evaluated, files = read_evaluation(run, trained)
    if not evaluated.gate.passed:
        reason = _refusal(champion.version if champion else None, evaluated)
        run.log.warning(reason)
        end_lifecycle(run, "refused", trained.fingerprint, reason)
        run.lease.linger_s = 0.0  # nothing is deployed: no step follows
        if must_pass:
            raise StateError(reason, way_out="on_rejection: keep leaves the run green")
        return None
    found = run.models.find(trained.fingerprint)
    if found is None:
        found = _register(_refitted(run, trained, evaluated, files), champion)
    elif _is_older_than_pins(run, trained.fingerprint):
        pin_release(run, trained.fingerprint, found.model_folder)
    documents = run.lake.documents_folder(run.use_case.name, trained.fingerprint)
    metadata = read_metadata(documents)
    entry = Registered(found.version, trained.fingerprint, evaluated.gate.needs_review)
    run.set_pointer("registry", plain(entry))
    card = (documents / MARKDOWN).read_text(encoding="utf-8")
    return Released(found.version, metadata.provenance.mlflow_run_id, metadata, card)


def deploy_model(run: RunContext) -> Rollout:
    """Open the rollout of the newest registered version, and end the lifecycle."""
    entry = from_plain(Registered, run.pointer("registry", "registry_entry"))
    documents = run.lake.documents_folder(run.use_case.name, entry.fingerprint)
    provenance = read_metadata(documents).provenance
    rollout = open_deployment(run, entry, provenance)
    outcome = "in trial" if rollout.is_in_trial else rollout.state.replace("_", " ")
    run.log.info(f"version {rollout.version}: {rollout.state}; {rollout.reason}")
    end_lifecycle(run, outcome, entry.fingerprint, rollout.reason)
    return rollout


def end_lifecycle(run: RunContext, outcome: str, fingerprint: str, reason: str) -> None:
    """Record how a run ended; when it was a whole lifecycle, its cost, and older failures' end."""
    name, started = run.use_case.name, last_lifecycle(run.ops, run.use_case.name)
    if started is not None and started.run_id == run.run_id:
        finish_lifecycle(
            run.ops,
            name,
            run.run_id,
            verdict=outcome,
            fingerprint=fingerprint,
            summary={"reason": reason},
            now=run.now,
        )
        unit_costs = use_case_costs(run.use_case, run.ops, run.lake).unit_costs
        log_costs(run, trained_model(run).mlflow_run_id, unit_costs)
        for alert in list_alerts(run.ops, name, open_only=True):
            if alert.kind == "run_failed":
                why = "a later lifecycle finished"
                resolve_alert(run.ops, name, alert.id, by=run.run_id, reason=why, now=run.now)
    record_decision(
        run.ops,
        name,
        NewDecision(
            "promotion",
            outcome,
            reason,
            {
                "fingerprint": fingerprint,
                "run_id": run.run_id,
                FILES: pinned_digest(run.ops, name, fingerprint),
            },
            run_key=run.run_id,
        ),
        now=run.now,
    )


def pin_release(run: RunContext, fingerprint: str, package: Path) -> None:
    """Pin every file of a release folder, and of MLflow's copy of the model."""
    files = pinned_digests(run.lake.documents_folder(run.use_case.name, fingerprint))
    pinned = {"files": files, "package": pinned_digests(package)}
    run.set_pointer(f"{RELEASE}{fingerprint}", pinned)


def _is_older_than_pins(run: RunContext, fingerprint: str) -> bool:
    """Whether the chain never told which files a version has: one that was taken is not pinned."""
    place = [run.use_case.name, f"{RELEASE}{fingerprint}"]
    events = run.ops.events_after(0, kind=RECORD, use_case=run.use_case.name)
    return not any(event.detail["key"] == place for event in events)


def _refusal(champion: int | None, evaluated: EvaluatedTraining) -> str:
    """Return the sentence that says what happens after a refusal, and why."""
    gate, tried = evaluated.gate, evaluated.evaluation.mitigation
    kept = f"champion kept (version {champion})" if champion else "no champion"
    reasons = "; ".join(f"{rule.name}: {rule.reason}" for rule in gate.rules if rule.blocks)
    mitigation = f". Mitigation: {tried.reason}" if tried else ""
    return f"the gate refused the model: {kept}. {reasons}{mitigation}"


def _refitted(
    run: RunContext,
    trained: TrainedModel,
    evaluated: EvaluatedTraining,
    files: Mapping[str, bytes],
) -> _Release:
    (facts, model, training), recipe = read_training(trained), None
    if evaluated.evaluation.mitigation is not None:
        # the gate let a variant pass, not the model that was trained
        model, recipe = read_mitigated(files)
    evidence = {name: {**training, **files}[name] for name in EVIDENCE}
    final = refit_final(
        run.use_case,
        partial(load_frame, run, trained.snapshot),
        model,
        recipe,
        train_periods=len(facts.parts["train"].periods),
        threads=run.settings.threads,
    )
    return _Release(run, trained, facts, evaluated.evaluation, final, evidence)


def _register(release: _Release, champion: Rollout | None) -> RegisteredVersion:
    """Write a version with its documents and hold it against its contract; then it is complete."""
    run, trained, model = release.run, release.trained, release.final.model
    run.models.sweep()
    package = packaged(model)
    version = run.models.create(
        package, run_id=trained.mlflow_run_id, fingerprint=trained.fingerprint
    )
    documents = run.lake.documents_folder(run.use_case.name, trained.fingerprint)
    example = input_example(model, release.final.frame.columns, run.use_case.sensitive_features())
    metadata = validate_metadata(
        {
            **_metadata(release, version, documents, git_state(run.settings)),
            "changelog": "\n".join(_changes(release, version, champion)),
        }
    )
    with run.lake.new_artifacts(run.use_case.name, documents.name) as work:
        for name, data in release.evidence.items():
            (work / name).write_bytes(data)
        write_files(work / MODEL, package.files)
        write_json(work / "input_example.json", example)
        write_json(work / "data_snapshot.json", _snapshot(release))
        write_json(  # in its own order: a model's inputs follow the order of the features
            work / CONFIG, run.use_case.model_dump(mode="json"), is_sorted=False
        )
        (work / "requirements.lock").write_text(environment_lock(run.settings.root))
        (work / "requirements.txt").write_text("\n".join(package.requirements) + "\n")
        write_json(work / "metadata.json", plain(metadata))
        write_json(work / MODEL_FACTS, plain(_model_facts(model)))
        write_card(work, now=run.now)
    said = model.decide(example_columns(example))
    check_contract(
        version.model_folder,
        package.script,
        documents / "input_example.json",
        (said.probability, said.decision, said.needs_review),
        timeout_s=run.settings.contract_timeout_s,
    )
    for path in sorted(documents.iterdir()):
        if path.name not in NOT_IN_MLFLOW:
            run.models.client.log_artifact(trained.mlflow_run_id, str(path), "release")
    pin_release(run, trained.fingerprint, version.model_folder)
    run.models.complete(
        version.version,
        {
            "metadata_uri": str(documents / "metadata.json"),
            "mlflow_run_id": trained.mlflow_run_id,
            "dagster_run_id": run.run_id,
            "as_of": release.facts.as_of.isoformat(),
        },
    )
    return version


def read_metadata(documents: Path) -> Metadata:
    """Read the metadata document in the release folder of a version."""
    path = documents / "metadata.json"
    if not path.is_file():
        raise NotFoundError(
            "the metadata document of the version is gone",
            where=str(path),
            way_out="restore the release folder from a backup of the lake",
        )
    return from_plain(Metadata, json.loads(path.read_text(encoding="utf-8")))


def _snapshot(release: _Release) -> dict[str, Any]:
    run = release.run
    return {
        "use_case": run.use_case.name,
        "as_of": release.facts.as_of.isoformat(),
        "written_at": run.now.isoformat(),
        "features": definitions_hash(run.use_case),
        "sources": {name: item.to_dict() for name, item in release.trained.accepted.items()},
    }


def _metadata(
    release: _Release, version: RegisteredVersion, documents: Path, git: GitState
) -> dict[str, Any]:
    run, final, facts = release.run, release.final, release.facts
    model, use_case = final.model, run.use_case
    mitigation = release.evaluation.mitigation
    return {
        "model_name": version.name,
        "version": version.version,
        "artifact_uri": str(version.model_folder),
        "model_files": digests(model.files),
        "framework": framework(model),
        "signature": {
            "inputs": [{"name": name, "type": kind} for name, kind in column_types(model).items()],
            "outputs": [
                {"name": "probability", "type": "number"},
                {"name": "decision", "type": "boolean"},
                {"name": "needs_review", "type": "boolean"},
            ],
        },
        "provenance": {
            "git_commit": git.commit,
            "git_dirty": git.is_dirty,
            "dataset_snapshot_uri": str(documents / "data_snapshot.json"),
            "environment_lockfile_uri": str(documents / "requirements.lock"),
            "config_hash": config_hash(use_case),
            "feature_definitions_version": definitions_hash(use_case),
            "seed": use_case.training.seed,
            "run_fingerprint": facts.fingerprint,
            "mlflow_run_id": release.trained.mlflow_run_id,
            "dagster_run_id": run.run_id,
            "hardware": hardware(run.settings),
        },
        "training": {
            "as_of": facts.as_of.isoformat(),
            "parts": plain(facts.parts),
            "refit": use_case.training.refit,
            "rows": final.rows or facts.parts["train"].rows,
            "figures_belong_to": "the model evaluated on the test part"
            + (f" (mitigated by {mitigation.chosen})" if mitigation else "")
            + (
                f"; this version is its recipe refitted on the {REFITTED[use_case.training.refit]}"
                if final.rows
                else ", which this version is"
            ),
        },
        "evaluation_report_uri": str(documents / "report.html"),
        "model_card_uri": str(documents / MARKDOWN),
        "approval": {"state_pointer": f"ops:rollout/{version.name}/{version.version}"},
        "owner": use_case.owner,
        "intended_use": use_case.intended_use,
        "input_example_uri": str(documents / "input_example.json"),
        "requirements_uri": str(documents / "requirements.txt"),
    }


def _changes(release: _Release, version: RegisteredVersion, champion: Rollout | None) -> list[str]:
    """Compare with the champion, which the version replaces if it is accepted."""
    new = Recorded(
        version=version.version,
        config=release.run.use_case.model_dump(mode="json"),
        inputs=frozenset(column_types(release.final.model)),
        training=release.facts,
        evaluation=release.evaluation,
    )
    if champion is None:
        return changes(new, None)
    folder = release.run.lake.documents_folder(champion.use_case, champion.fingerprint)
    if not (folder / "training.json").is_file():
        return [f"Version {champion.version} kept no documents to compare with."]
    return changes(new, read_recorded(folder, champion.version))


def _model_facts(model: ScoringModel) -> ModelFacts:
    rule = model.document.get("thresholds")
    return ModelFacts(
        threshold=model.threshold,
        thresholds=None if rule is None else from_plain(GroupThresholds, rule),
        calibration=model.document["calibration"]["kind"],
        libraries=library_versions(),
    )
