"""Resources: the platform (settings of this process) and MLflow through dagster-mlflow.

MLflow takes seconds to import, so its resource imports it when a step first asks for the run.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from mlops_pipeline.stores.settings import Settings


class Platform(dg.ConfigurableResource):  # type: ignore[type-arg] # its type parameter is its own
    """Addresses and limits of a run's environment; `environment` overrides variables, for tests."""

    environment: dict[str, str] = {}  # noqa: RUF012 # pydantic copies it

    def settings(self) -> Settings:
        """Return the settings of this process."""
        import os

        return Settings.from_environment({**os.environ, **self.environment})


def mlflow_resource(use_case: str) -> dg.ResourceDefinition:
    """Return the MLflow run of a Dagster run, in the experiment of a use case."""

    @dg.resource(
        required_resource_keys={"platform"},
        description=f"MLflow tracking of {use_case} (dagster-mlflow): one run per Dagster run.",
    )
    def mlflow(context: dg.InitResourceContext) -> Iterator[MlflowRun]:
        yield MlflowRun(
            log=context.log,
            dagster_run=context.run,
            run_id=context.run_id,
            experiment=use_case,
            settings=context.resources.platform.settings(),
        )

    return mlflow


@dataclass
class MlflowRun:
    """dagster-mlflow's resource, started when a step first asks for the run.

    So a run that ends before training leaves nothing in MLflow, and a process that only reads the
    outcome of a run (`dagster job execute` sets up every resource once more at its end) does not
    resume it.
    """

    log: Any
    dagster_run: Any
    run_id: str | None
    experiment: str
    settings: Settings
    _tracked: Any = field(default=None, init=False)

    def start(self) -> str:
        """Start this Dagster run's MLflow run, or resume it; return its id."""
        from mlops_pipeline.stores.models.mlflow import open_tracking

        open_tracking(self.settings, self.experiment)  # telemetry off, own artifact location
        if self._tracked is None:
            with _quiet_beta():
                from dagster_mlflow import mlflow_tracking

                self._tracked = next(mlflow_tracking.resource_fn(self))
        # dagster-mlflow knows the id only of a run that it resumes; a run it has just started is
        # MLflow's active one.
        return str(self._tracked.mlflow_run_id or self._tracked.active_run().info.run_id)

    def leave(self) -> None:
        """Leave the run running, if this process has it open; it ends as the ledger says."""
        if self._tracked is not None:
            self._tracked.end_run("RUNNING")
            self._tracked = None

    @property
    def resource_config(self) -> dict[str, Any]:
        """What dagster-mlflow reads of its configuration."""
        return {
            "experiment_name": self.experiment,
            "mlflow_tracking_uri": self.settings.mlflow_uri,
            "env": {},
            "extra_tags": {},
        }


@contextmanager
def _quiet_beta() -> Iterator[None]:
    """Silence dagster's notice that dagster-mlflow is in beta, in every run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        yield
