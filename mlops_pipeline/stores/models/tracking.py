"""Writing to MLflow's tracking: telemetry off, its own artifact location, runs by id.

Everything goes through the client with an explicit run id; MLflow's "active run" is left to the
dagster-mlflow resource, which finds or starts one run per Dagster run.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from mlops_pipeline.stores.settings import Settings

QUIET = {  # nothing here calls home
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "ITERATIVE_DO_NOT_TRACK": "true",
}
MAX_PARAM_LENGTH = 500  # characters of a parameter; longer values belong into an artifact


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
        for first in range(0, len(points), 1000):  # MLflow takes 1,000 metrics a call
            self.client.log_batch(run_id, metrics=points[first : first + 1000])

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

    def end_abandoned(self, *, but: str) -> None:
        """Mark runs that a killed process left open (the lease keeps other runs away)."""
        from mlflow.entities import ViewType

        for run in self.client.search_runs(
            [self.experiment_id], "attributes.status = 'RUNNING'", ViewType.ACTIVE_ONLY
        ):
            if run.info.run_id != but:
                self.end(run.info.run_id, "KILLED")

    def end(self, run_id: str, status: str = "FINISHED") -> None:
        """End a run."""
        self.client.set_terminated(run_id, status)


def quiet() -> None:
    """Turn off the telemetry of every library, before the first of them is imported."""
    os.environ.update(QUIET)


def open_tracking(settings: Settings, experiment: str) -> Tracking:
    """Connect to MLflow and make the experiment where it does not exist yet."""
    quiet()
    prepare(settings)
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


def prepare(settings: Settings) -> None:
    """Make the folder of an embedded MLflow database."""
    embedded = _embedded(settings)
    if embedded is not None:
        embedded.parent.mkdir(parents=True, exist_ok=True)


def is_in_use(settings: Settings) -> bool:
    """Whether MLflow was ever written to: a server counts as such, an embedded one has a file."""
    embedded = _embedded(settings)
    return embedded is None or embedded.exists()


def _embedded(settings: Settings) -> Path | None:
    parsed = urlparse(settings.mlflow_uri)
    return Path("/", parsed.path.lstrip("/")) if parsed.scheme == "sqlite" else None
