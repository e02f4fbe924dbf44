"""MLflow, a projection of what the ops database and the lake hold: runs, versions, aliases.

Runs are written with an explicit id; MLflow's "active run" is left to dagster-mlflow. A version is
created, its document validated, its package held against the contract, and last it is tagged
`complete`: those without are ignored, and removed by the next registration.
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from mlops_pipeline.core.rollout.records import MEANINGS
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.stores.models.address import prepare, reach
from mlops_pipeline.stores.models.files import write_files
from mlops_pipeline.stores.settings import Settings

QUIET = {  # nothing here calls home
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "ITERATIVE_DO_NOT_TRACK": "true",
}
MAX_PARAM_LENGTH = 500  # characters of a parameter; longer values belong into an artifact
MAX_METRICS = 1_000  # that MLflow takes a call
COMPLETE = "complete"
APPROVAL = "approval_state"
FINGERPRINT = "run_fingerprint"
ALIASES = {state: meaning.alias for state, meaning in MEANINGS.items() if meaning.alias}
SCRIPT = "model_script.py"


@dataclass(frozen=True)
class Tracking:
    """A connected MLflow client and one experiment."""

    client: Any
    experiment_id: str

    def nested_run(self, parent_run_id: str, name: str, tags: Mapping[str, str]) -> str:
        """Start a run below another one; return its id."""
        nested = {"mlflow.parentRunId": parent_run_id, "mlflow.runName": name, **tags}
        return str(self.client.create_run(self.experiment_id, tags=nested).info.run_id)

    def log(
        self,
        run_id: str,
        *,
        parameters: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        now: datetime,
    ) -> None:
        """Log parameters, metrics and tags in one call."""
        from mlflow.entities import Metric, Param, RunTag

        stamp = int(now.timestamp() * 1000)
        self.client.log_batch(
            run_id,
            metrics=[Metric(key, float(value), stamp, 0) for key, value in (metrics or {}).items()],
            params=[
                Param(key, str(value)[:MAX_PARAM_LENGTH])
                for key, value in (parameters or {}).items()
            ],
            tags=[RunTag(key, value) for key, value in (tags or {}).items()],
        )

    def log_curves(
        self, run_id: str, curves: Mapping[str, Any], *, now: datetime, every: int
    ) -> None:
        """Log learning curves as stepped metrics, one point in `every`."""
        from mlflow.entities import Metric

        stamp = int(now.timestamp() * 1000)
        points = [
            Metric(f"{part}_log_loss", float(value), stamp, step)
            for part, values in curves.items()
            for step, value in enumerate(values)
            if step % every == 0
        ]
        for first in range(0, len(points), MAX_METRICS):
            self.client.log_batch(run_id, metrics=points[first : first + MAX_METRICS])

    def log_files(self, run_id: str, files: Mapping[str, bytes | str]) -> None:
        """Log named files as artifacts of a run."""
        with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            self.client.log_artifacts(run_id, folder)

    def texts(self, suffix: str) -> Iterator[tuple[str, str, str]]:
        """Yield run, name and text of every file with a suffix, those of deleted runs too."""
        from mlflow.artifacts import download_artifacts
        from mlflow.entities import ViewType

        token: str | None = ""
        while token is not None:
            runs = self.client.search_runs(
                [self.experiment_id], run_view_type=ViewType.ALL, page_token=token or None
            )
            for run in runs:
                for item in self.client.list_artifacts(run.info.run_id):
                    if item.path.endswith(suffix):
                        uri = f"{run.info.artifact_uri}/{item.path}"
                        path = Path(download_artifacts(artifact_uri=uri))
                        yield run.info.run_id, item.path, path.read_text(encoding="utf-8")
            token = runs.token or None

    def running(self) -> dict[str, str | None]:
        """Return the Dagster run behind each run that is not ended; a nested run has a parent's."""
        found = self.client.search_runs([self.experiment_id], "attributes.status = 'RUNNING'")
        owners: dict[str, str | None] = {}
        for run in found:
            parent = run.data.tags.get("mlflow.parentRunId")
            tags = self.client.get_run(parent).data.tags if parent else run.data.tags
            owners[run.info.run_id] = tags.get("dagster_run_id")
        return owners


def quiet() -> None:
    """Turn off the telemetry of every library, before the first of them is imported."""
    os.environ.update(QUIET)


def open_tracking(settings: Settings, experiment: str) -> Tracking:
    """Connect to MLflow and make the experiment where it does not exist yet."""
    quiet()
    prepare(settings)
    reach(settings.mlflow_uri)
    import mlflow

    mlflow.set_tracking_uri(settings.mlflow_uri)
    client = mlflow.MlflowClient(settings.mlflow_uri)
    found = client.get_experiment_by_name(experiment)
    if found is not None:
        return Tracking(client, str(found.experiment_id))
    location = None
    if settings.mlflow_uri.startswith("sqlite:"):
        location = str(settings.data_dir / "mlflow" / "artifacts" / experiment)
    return Tracking(client, str(client.create_experiment(experiment, artifact_location=location)))


@dataclass(frozen=True)
class Package:
    """What plain MLflow needs of a model: its files, script, inputs (name: type), packages."""

    files: Mapping[str, str]
    script: str
    inputs: Mapping[str, str]
    requirements: Sequence[str]


@dataclass(frozen=True)
class RegisteredVersion:
    """A model version with where its files are; whether MLflow's addresses of them agree."""

    name: str
    version: int
    model_folder: Path
    tags: Mapping[str, str]
    mlflow_run_id: str
    is_in_place: bool = True


class Registry:
    """The versions of one registered model (named like the use case)."""

    def __init__(self, tracking: Tracking, name: str) -> None:
        self.tracking = tracking
        self.client = tracking.client
        self.name = name

    def find(self, fingerprint: str) -> RegisteredVersion | None:
        """Return the complete version with this run fingerprint."""
        for version in self._versions():
            if version.tags.get(FINGERPRINT) == fingerprint and COMPLETE in version.tags:
                return self._describe(version)
        return None

    def get(self, version: int) -> RegisteredVersion:
        """Return a complete version."""
        for found in self._versions():
            if int(found.version) == version and COMPLETE in found.tags:
                return self._describe(found)
        raise NotFoundError(f"version {version} of {self.name} is not in the registry")

    def sweep(self) -> None:
        """Remove versions that a killed run left incomplete, and model folders of no version."""
        used = set()
        for version in self._versions():
            if COMPLETE in version.tags:
                used.add(version.source)
            else:
                self.client.delete_model_version(self.name, version.version)
        for model in self.client.search_logged_models([self.tracking.experiment_id]):
            if FINGERPRINT in model.tags and model.model_uri not in used:
                folder = Path(model.artifact_location.removeprefix("file://")).parent
                if folder.name == model.model_id:  # a local store
                    shutil.rmtree(folder, ignore_errors=True)
                self.client.delete_logged_model(model.model_id)

    def create(self, package: Package, *, run_id: str, fingerprint: str) -> RegisteredVersion:
        """Store the model as a models-from-code pyfunc and create its version (not complete)."""
        import mlflow.pyfunc
        from mlflow.exceptions import MlflowException
        from mlflow.models import Model

        with tempfile.TemporaryDirectory(prefix="mlops-") as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the input example, which we check ourselves
            script = Path(folder) / SCRIPT
            script.write_text(package.script, encoding="utf-8")
            write_files(Path(folder) / "model", package.files)
            info = Model.log(
                None,
                mlflow.pyfunc,
                name="model",
                python_model=str(script),
                artifacts={"model": str(Path(folder) / "model")},
                pip_requirements=list(package.requirements),
                signature=_signature(package.inputs),
                run_id=run_id,
                tags={FINGERPRINT: fingerprint},
            )
        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if "already exists" not in str(error):
                raise
        version = self.client.create_model_version(
            self.name, info.model_uri, run_id, tags={FINGERPRINT: fingerprint}
        )
        return self._describe(version)

    def complete(self, version: int, tags: Mapping[str, str]) -> None:
        """Tag a version with its documents and, last, as complete."""
        for key, value in {**tags, COMPLETE: "true"}.items():
            self.client.set_model_version_tag(self.name, str(version), key, value)

    def project(self, states: Mapping[int, str], approvals: Mapping[int, str]) -> None:
        """Set aliases from the rollout states {version: state}, tags from the approval states."""
        for found in self._versions():
            state = approvals.get(int(found.version))
            if state is not None and found.tags.get(APPROVAL) != state:
                self.client.set_model_version_tag(self.name, found.version, APPROVAL, state)
        held = {}
        if self.client.search_registered_models(f"name = '{self.name}'"):
            held = dict(self.client.get_registered_model(self.name).aliases)
        wanted = {
            ALIASES[state]: version for version, state in sorted(states.items()) if state in ALIASES
        }
        for alias in set(ALIASES.values()):
            if alias in wanted and str(held.get(alias)) != str(wanted[alias]):
                self.set_alias(alias, wanted[alias])
            elif alias in held and alias not in wanted:
                self.client.delete_registered_model_alias(self.name, alias)

    def shown(self) -> tuple[dict[str, int], dict[int, RegisteredVersion]]:
        """Return MLflow's aliases, and its complete versions by number."""
        versions = {int(item.version): item for item in self._versions() if COMPLETE in item.tags}
        if not self.client.search_registered_models(f"name = '{self.name}'"):
            return {}, {}
        aliases = self.client.get_registered_model(self.name).aliases
        return (
            {name: int(held) for name, held in aliases.items()},
            {number: self._placed(item) for number, item in versions.items()},
        )

    def set_alias(self, alias: str, version: int) -> None:
        """Point an alias at a version."""
        self.client.set_registered_model_alias(self.name, alias, str(version))

    def _versions(self) -> list[Any]:
        found = self.client.search_model_versions(f"name = '{self.name}'")
        return sorted(found, key=lambda item: -int(item.version))

    def _placed(self, version: Any) -> RegisteredVersion:
        """Describe a version, and compare its address with that of the model it was made of."""
        address = self.client.get_model_version_download_uri(self.name, version.version)
        models = self.client.search_logged_models([self.tracking.experiment_id])
        places = {item.model_uri: item.artifact_location for item in models}
        is_in_place = places.get(version.source, version.source) == address
        return replace(self._describe(version), is_in_place=is_in_place)

    def _describe(self, version: Any) -> RegisteredVersion:
        import mlflow.artifacts

        uri = self.client.get_model_version_download_uri(self.name, version.version)
        folder = Path(str(uri).removeprefix("file://"))
        if not folder.is_dir():
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        return RegisteredVersion(
            self.name, int(version.version), folder, dict(version.tags), str(version.run_id)
        )


def _signature(types: Mapping[str, str]) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    # any: MLflow takes no whole number for a double, and no missing text for a string
    inputs = [ColSpec(AnyType(), name, required=False) for name in types]
    outputs = [
        ColSpec("double", "probability"),
        ColSpec("boolean", "decision"),
        ColSpec("boolean", "needs_review"),
    ]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))
