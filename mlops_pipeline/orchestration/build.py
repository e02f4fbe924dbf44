"""Builds the code location: assets, checks, jobs, sensors and schedules of every use case."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_pipeline.config import UseCase, load_use_cases
from mlops_pipeline.orchestration.assets.data import data_assets, feature_assets
from mlops_pipeline.orchestration.assets.model import model_assets, release_assets
from mlops_pipeline.orchestration.assets.scoring import scoring_assets
from mlops_pipeline.orchestration.jobs import asset_job, card_review_job, lifecycle_executor
from mlops_pipeline.orchestration.resources import Platform, mlflow_resource
from mlops_pipeline.orchestration.triggers import (
    INTERVAL_SECONDS,
    hourly_online_features,
    model_card_review,
    monthly_fairness_audit,
    monthly_retrain,
    retraining_sensors,
    run_failures,
)
from mlops_pipeline.stores.settings import project_root


def build_definitions(
    *,
    config_dir: Path | None = None,
    resource_overrides: Mapping[str, Any] | None = None,
    sensor_interval_seconds: int = INTERVAL_SECONDS,
) -> dg.Definitions:
    """Return fresh definitions for every configs/*.yaml."""
    use_cases = load_use_cases(config_dir or project_root() / "configs")
    parts = [_of_use_case(item, sensor_interval_seconds) for item in use_cases.values()]
    return dg.Definitions(
        assets=[asset for part in parts for asset in part["assets"]],
        jobs=[job for part in parts for job in part["jobs"]],
        sensors=[sensor for part in parts for sensor in part["sensors"]]
        + [run_failures(tuple(use_cases), sensor_interval_seconds)],
        schedules=[schedule for part in parts for schedule in part["schedules"]],
        resources={
            "platform": Platform(),
            **{f"mlflow_{name}": mlflow_resource(name) for name in use_cases},
            **(resource_overrides or {}),
        },
        executor=lifecycle_executor,
    )


def _of_use_case(use_case: UseCase, interval_seconds: int) -> dict[str, Any]:
    lifecycle, online = asset_job(use_case, "lifecycle"), asset_job(use_case, "materialize")
    # without a protected attribute there is nothing to audit
    audits = [asset_job(use_case, "fairness_audit")] if use_case.protected else []
    review = card_review_job(use_case)
    return {
        "assets": [
            *data_assets(use_case),
            *feature_assets(use_case),
            *model_assets(use_case),
            *release_assets(use_case),
            *scoring_assets(use_case),
        ],
        "jobs": [lifecycle, online, asset_job(use_case, "batch_score"), *audits, review],
        "sensors": retraining_sensors(use_case, lifecycle, interval_seconds),
        "schedules": [
            monthly_retrain(use_case, lifecycle),
            hourly_online_features(use_case, online),
            *(monthly_fairness_audit(use_case, job) for job in audits),
            model_card_review(use_case, review),
        ],
    }
