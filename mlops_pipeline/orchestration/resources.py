"""Resources: the platform (settings of this process) and MLflow through dagster-mlflow.

MLflow takes seconds to import, so its resource imports dagster-mlflow when a step asks for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg

from mlops_pipeline.stores.settings import Settings


class Platform(dg.ConfigurableResource):  # type: ignore[type-arg] # its type parameter is its own
    """Addresses and limits; read from the environment when a run or a sensor starts work.

    Parameters
    ----------
    environment : dict of str
        Overrides of environment variables (MLOPS_DATA_DIR and others), for tests.
    """

    environment: dict[str, str] = {}  # noqa: RUF012 # pydantic copies it

    def settings(self) -> Settings:
        """Return the settings of this process."""
        import os

        return Settings.from_environment({**os.environ, **self.environment})


def mlflow_resource(use_case: str) -> dg.ResourceDefinition:
    """Return dagster-mlflow's resource for the experiment of a use case, imported when used."""

    @dg.resource(
        required_resource_keys={"platform"},
        description=f"MLflow tracking of {use_case} (dagster-mlflow): one run per Dagster run.",
    )
    def mlflow(context: dg.InitResourceContext) -> Iterator[Any]:
        from mlops_pipeline.stores.tracking import open_tracking

        settings = context.resources.platform.settings()
        open_tracking(settings, use_case)  # telemetry off, experiment in its own location
        from dagster_mlflow import mlflow_tracking

        tracked = _TrackedRun(
            log=context.log,
            dagster_run=context.run,
            run_id=context.run_id,
            resource_config={
                "experiment_name": use_case,
                "mlflow_tracking_uri": settings.mlflow_uri,
                "env": {},
                "extra_tags": {},
            },
        )
        yield from mlflow_tracking.resource_fn(tracked)

    return mlflow


@dataclass(frozen=True)
class _TrackedRun:
    """What dagster-mlflow's resource reads of its context."""

    log: Any
    dagster_run: Any
    run_id: str | None
    resource_config: dict[str, Any]
