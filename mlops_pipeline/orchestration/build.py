"""Builds the code location: assets, checks, jobs, sensors and schedules of every use case."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_pipeline.config import UseCase, load_use_cases
from mlops_pipeline.orchestration import triggers
from mlops_pipeline.orchestration.assets.data import data_assets, feature_assets
from mlops_pipeline.orchestration.assets.model import model_assets, release_assets
from mlops_pipeline.orchestration.assets.scoring import scoring_assets
from mlops_pipeline.orchestration.calendar import calendar
from mlops_pipeline.orchestration.jobs import (
    ASSETS,
    asset_job,
    card_review_job,
    lifecycle_executor,
)
from mlops_pipeline.orchestration.resources import Platform, mlflow_resource
from mlops_pipeline.stores.settings import project_root


def build_definitions(
    *,
    config_dir: Path | None = None,
    resource_overrides: Mapping[str, Any] | None = None,
    sensor_interval_seconds: int = triggers.INTERVAL_SECONDS,
) -> dg.Definitions:
    """Return fresh definitions for every configs/*.yaml."""
    use_cases = load_use_cases(config_dir or project_root() / "configs")
    resources = {
        "platform": Platform(),
        **{f"mlflow_{name}": mlflow_resource(name) for name in use_cases},
        **(resource_overrides or {}),
    }
    parts = [
        _of_use_case(item, resources["platform"], sensor_interval_seconds)
        for item in use_cases.values()
    ]
    planned = [item for part in parts for item in part["planned"]]
    return dg.Definitions(
        assets=[asset for part in parts for asset in part["assets"]],
        jobs=[job for part in parts for job in part["jobs"]],
        sensors=[sensor for part in parts for sensor in part["sensors"]]
        + [triggers.run_failures(tuple(use_cases), sensor_interval_seconds)]
        + [calendar(planned, sensor_interval_seconds)],
        schedules=[triggers.schedule(item) for item in planned],
        resources=resources,
        executor=lifecycle_executor,
    )


def _of_use_case(use_case: UseCase, platform: Any, interval_seconds: int) -> dict[str, Any]:
    kinds = [kind for kind in ASSETS if kind != "fairness_audit" or use_case.protected]
    jobs = {kind: asset_job(use_case, kind) for kind in kinds}
    jobs["card_review"] = card_review_job(use_case, platform)
    return {
        "assets": [
            *data_assets(use_case),
            *feature_assets(use_case),
            *model_assets(use_case),
            *release_assets(use_case),
            *scoring_assets(use_case),
        ],
        "jobs": [*jobs.values()],
        "sensors": triggers.retraining_sensors(use_case, jobs["lifecycle"], interval_seconds),
        "planned": triggers.planned_work(use_case, jobs),
    }
