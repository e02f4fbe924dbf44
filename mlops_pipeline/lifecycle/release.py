"""Registering a model: version, documents, contract test, `complete`, alias; in this order.

The documents lie in a folder of their own, beside the training's, with the evaluation that let the
version in: another run of the same fingerprint writes the training's folder again, not this one.

    input_example.json, data_snapshot.json, configuration.json, requirements.lock,
    requirements.txt, metadata.json, card_facts.json, model_card.md, model_card.html, and what the
    training wrote: training.json, evaluation.json, report.html, evidently.html
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from mlops_pipeline.config import config_hash
from mlops_pipeline.config.privacy import sensitive_features
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.documents.changes import Recorded, changes
from mlops_pipeline.core.documents.metadata import SCHEMA, Metadata
from mlops_pipeline.core.documents.records import (
    GroupThresholds,
    ModelFacts,
    TrainingFacts,
    from_plain,
    plain,
)
from mlops_pipeline.core.evaluation.evaluation import Evaluation
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.errors import ContractError
from mlops_pipeline.lifecycle.compliance.card_documents import (
    CONFIG,
    MARKDOWN,
    MODEL_FACTS,
    read_recorded,
    write_card,
)
from mlops_pipeline.lifecycle.context import AcceptedSource
from mlops_pipeline.lifecycle.features.offline import definitions_hash
from mlops_pipeline.lifecycle.provenance import (
    GitState,
    environment_lock,
    git_state,
    hardware,
    library_versions,
)
from mlops_pipeline.lifecycle.trained import write_json
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.models.contract import (
    check_contract,
    column_types,
    example_columns,
    input_example,
)
from mlops_pipeline.stores.models.registry import RegisteredVersion, Registry
from mlops_pipeline.stores.settings import Settings

EVIDENCE = ("training.json", "evaluation.json", "report.html", "evidently.html")
NOT_IN_MLFLOW = (CONFIG, "training.json")  # names of personal columns, extreme values of inputs
REFITTED = {
    "all_labelled": "labelled rows, all of them",
    "newest": "newest labelled rows, as many periods as were trained on",
}
FRAMEWORKS = {
    "lightgbm": "lightgbm",
    "random_forest": "lightgbm",
    "logistic": "scikit-learn",
    "dummy": "numpy",
}


@dataclass(frozen=True)
class Release:
    """What is registered, and from where."""

    use_case: UseCase
    settings: Settings
    model: ScoringModel
    facts: TrainingFacts
    accepted: Mapping[str, AcceptedSource]
    evaluation: Evaluation
    folder: Path
    mlflow_run_id: str
    dagster_run_id: str
    refit_rows: int | None
    previous: int | None
    mitigation: str | None = None


def register(
    registry: Registry, release: Release, frame: LabelledFrame, *, now: datetime
) -> RegisteredVersion:
    """Register a model whose gate passed; the same fingerprint returns the version it has.

    Raises
    ------
    ContractError
        When the stored model does not reload and score the same in a fresh process; the version
        then stays without `complete` and is never used.
    """
    found = registry.find(release.facts.fingerprint)
    if found is not None:
        return found
    registry.sweep()
    git = git_state(release.settings)
    requirements = _requirements(release.model)
    version = registry.create(
        release.model,
        run_id=release.mlflow_run_id,
        fingerprint=release.facts.fingerprint,
        requirements=requirements,
    )
    lake = Lake(release.settings.lake_uri)
    documents = documents_folder(lake, release.use_case, release.facts.fingerprint)
    example = input_example(release.model, frame.columns, sensitive_features(release.use_case))
    metadata = validate_metadata(
        {
            **_metadata(release, version, documents, git),
            "changelog": "\n".join(_changes(registry, release, version)),
        }
    )
    with lake.new_artifacts(release.use_case.name, documents.name) as work:
        for name in EVIDENCE:
            shutil.copy(release.folder / name, work / name)
        write_json(work / "input_example.json", example)
        write_json(work / "data_snapshot.json", _snapshot(release, now))
        write_json(  # in its own order: a model's inputs follow the order of the features
            work / CONFIG, release.use_case.model_dump(mode="json"), is_sorted=False
        )
        (work / "requirements.lock").write_text(environment_lock(release.settings.root))
        (work / "requirements.txt").write_text("\n".join(requirements) + "\n")
        write_json(work / "metadata.json", plain(metadata))
        write_json(work / MODEL_FACTS, plain(_model_facts(release.model)))
        write_card(work, now=now)
    check_contract(
        version.model_folder,
        documents / "input_example.json",
        release.model.decide(example_columns(example)),
    )
    for path in sorted(documents.iterdir()):
        if path.name not in NOT_IN_MLFLOW:
            registry.client.log_artifact(release.mlflow_run_id, str(path), "release")
    registry.complete(
        version.version,
        {
            "metadata_uri": str(documents / "metadata.json"),
            "mlflow_run_id": release.mlflow_run_id,
            "dagster_run_id": release.dagster_run_id,
            "as_of": release.facts.as_of.isoformat(),
        },
    )
    registry.set_alias("challenger", version.version)
    return registry.get(version.version)


def read_metadata(version: RegisteredVersion) -> Metadata:
    """Read the metadata document of a complete version."""
    text = Path(version.tags["metadata_uri"]).read_text(encoding="utf-8")
    return from_plain(Metadata, json.loads(text))


def _requirements(model: ScoringModel) -> list[str]:
    names = ["mlflow", "numpy", "pandas"]
    if model.booster_text is not None:
        names.append("lightgbm")
    return [f"{name}=={installed_version(name)}" for name in names]


def _snapshot(release: Release, now: datetime) -> dict[str, Any]:
    return {
        "use_case": release.use_case.name,
        "as_of": release.facts.as_of.isoformat(),
        "written_at": now.isoformat(),
        "features": definitions_hash(release.use_case),
        "sources": {name: item.to_dict() for name, item in release.accepted.items()},
    }


def _metadata(
    release: Release, version: RegisteredVersion, documents: Path, git: GitState
) -> dict[str, Any]:
    model, facts, use_case = release.model, release.facts, release.use_case
    framework = FRAMEWORKS[model.kind]
    return {
        "model_name": version.name,
        "version": version.version,
        "artifact_uri": str(version.model_folder),
        "framework": {"name": framework, "version": installed_version(framework)},
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
            "mlflow_run_id": release.mlflow_run_id,
            "dagster_run_id": release.dagster_run_id,
            "hardware": hardware(release.settings),
        },
        "training": {
            "as_of": facts.as_of.isoformat(),
            "parts": plain(facts.parts),
            "refit": use_case.training.refit,
            "rows": release.refit_rows or facts.parts["train"].rows,
            "figures_belong_to": "the model evaluated on the test part"
            + (f" (mitigated by {release.mitigation})" if release.mitigation else "")
            + (
                f"; this version is its recipe refitted on the {REFITTED[use_case.training.refit]}"
                if release.refit_rows
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


def _changes(registry: Registry, release: Release, version: RegisteredVersion) -> list[str]:
    """Compare with the champion, which the version replaces if it is accepted."""
    new = Recorded(
        version=version.version,
        config=release.use_case.model_dump(mode="json"),
        inputs=frozenset(column_types(release.model)),
        training=release.facts,
        evaluation=release.evaluation,
    )
    if release.previous is None:
        return changes(new, None)
    folder = Path(registry.get(release.previous).tags["metadata_uri"]).parent
    if not (folder / "training.json").is_file():
        return [f"Version {release.previous} kept no documents to compare with."]
    return changes(new, read_recorded(folder, release.previous))


def _model_facts(model: ScoringModel) -> ModelFacts:
    rule = model.document.get("thresholds")
    return ModelFacts(
        threshold=model.threshold,
        thresholds=None if rule is None else from_plain(GroupThresholds, rule),
        calibration=model.document["calibration"]["kind"],
        libraries=library_versions(),
    )


def validate_metadata(metadata: Mapping[str, Any]) -> Metadata:
    """Hold a metadata document against its schema, and return it.

    Raises
    ------
    ContractError
        Naming the key that is missing, unknown or of another type.
    """
    import jsonschema

    validator = jsonschema.Draft202012Validator(
        dict(SCHEMA), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    problem = jsonschema.exceptions.best_match(validator.iter_errors(dict(metadata)))
    if problem is not None:
        raise ContractError(
            "the metadata document is not valid",
            where=".".join(map(str, problem.absolute_path)) or "(the whole document)",
            found=problem.message,
            way_out="a required fact of the run is missing; core/documents/metadata.py lists them",
        )
    return from_plain(Metadata, metadata)


def documents_folder(lake: Lake, use_case: UseCase, fingerprint: str) -> Path:
    """Return the folder of a released version's documents; it may not exist yet."""
    return lake.artifact_folder(use_case.name, f"{fingerprint}-release")
