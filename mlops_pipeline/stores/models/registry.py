"""The model registry (MLflow): versions, their documents, aliases.

A version is made in this order, so that no half of one is ever used: create the version, write and
validate its document, tag it `complete`, set the alias last. Versions without `complete` are
ignored, and removed by the next registration. Aliases are a projection of the rollout's state in
the ops database, which is the truth.
"""

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_pipeline.core.rollout.records import MEANINGS
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.stores.models.contract import SCRIPT, Package
from mlops_pipeline.stores.models.files import write_files
from mlops_pipeline.stores.models.tracking import Tracking

COMPLETE = "complete"
APPROVAL = "approval_state"
FINGERPRINT = "run_fingerprint"
ALIASES = {state: meaning.alias for state, meaning in MEANINGS.items() if meaning.alias}


@dataclass(frozen=True)
class RegisteredVersion:
    """A model version with where its files are."""

    name: str
    version: int
    model_folder: Path
    tags: Mapping[str, str]
    mlflow_run_id: str


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

    def sweep(self) -> list[int]:
        """Remove versions that a killed run left incomplete; return their numbers."""
        left = [version for version in self._versions() if COMPLETE not in version.tags]
        for version in left:
            self.client.delete_model_version(self.name, version.version)
        return [int(version.version) for version in left]

    def create(self, package: Package, *, run_id: str, fingerprint: str) -> RegisteredVersion:
        """Store the model as a models-from-code pyfunc and create its version (not complete)."""
        import mlflow.pyfunc
        from mlflow.exceptions import MlflowException
        from mlflow.models import Model

        with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
            script = Path(folder) / SCRIPT
            script.write_text(package.script, encoding="utf-8")
            write_files(Path(folder) / "model", package.files)
            with _quiet_mlflow():
                info = Model.log(
                    None,
                    mlflow.pyfunc,
                    name="model",
                    python_model=str(script),
                    artifacts={"model": str(Path(folder) / "model")},
                    pip_requirements=list(package.requirements),
                    signature=_signature(package.inputs),
                    run_id=run_id,
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
        if self._exists():
            held = dict(self.client.get_registered_model(self.name).aliases)
        wanted = {
            ALIASES[state]: version for version, state in sorted(states.items()) if state in ALIASES
        }
        for alias in set(ALIASES.values()):
            if alias in wanted and str(held.get(alias)) != str(wanted[alias]):
                self.client.set_registered_model_alias(self.name, alias, str(wanted[alias]))
            elif alias in held and alias not in wanted:
                self.client.delete_registered_model_alias(self.name, alias)

    def set_alias(self, alias: str, version: int) -> None:
        """Point an alias at a version."""
        self.client.set_registered_model_alias(self.name, alias, str(version))

    def _exists(self) -> bool:
        return bool(self.client.search_registered_models(f"name = '{self.name}'"))

    def _versions(self) -> list[Any]:
        found = self.client.search_model_versions(f"name = '{self.name}'")
        return sorted(found, key=lambda item: -int(item.version))

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

    inputs = [
        ColSpec("string" if kind == "category" else "double", name, required=False)
        for name, kind in types.items()
    ]
    outputs = [
        ColSpec("double", "probability"),
        ColSpec("boolean", "decision"),
        ColSpec("boolean", "needs_review"),
    ]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


@contextmanager
def _quiet_mlflow() -> Iterator[None]:
    """Silence what MLflow says about the input example, which we check ourselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
