"""Schedules: monthly retraining and fairness audit, the online store, the card's review.

All are in UTC, and off until somebody turns them on.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.orchestration.sensors import is_under_way, request_retraining

HOUR_UTC = 3  # after nightly loads
AUDIT_HOUR_UTC = 5  # after a retraining of the same day
REVIEW_HOUR_UTC = 6  # before people come to work on a Monday
MINUTE = 30  # of every hour: not when the monthly run starts


def monthly_retrain(use_case: UseCase, job: Any) -> dg.ScheduleDefinition:
    """Return `<use_case>_monthly_retrain`: once a month, if as_of has moved on."""
    cron = f"0 {HOUR_UTC} {use_case.retraining.monthly_day} * *"

    @dg.schedule(
        name=f"{use_case.name}_monthly_retrain",
        description="Runs the lifecycle once a month when there is a newer as_of; the decision is "
        "stored, also to skip.",
        **_plan(job, cron),
    )
    def monthly(
        context: dg.ScheduleEvaluationContext, platform: dg.ResourceParam[Any]
    ) -> dg.RunRequest | dg.SkipReason:
        settings = platform.settings()
        return request_retraining(use_case, settings, context.instance, "monthly")

    return monthly


def hourly_online_features(use_case: UseCase, job: Any) -> dg.ScheduleDefinition:
    """Return `<use_case>_online_features`: every hour, unless a run of the use case works."""

    @dg.schedule(
        name=f"{use_case.name}_online_features",
        description="Brings the online store up to the newest accepted features; there is nothing "
        "to do while a lifecycle runs, which does it itself, or before the first one.",
        **_plan(job, f"{MINUTE} * * * *"),
    )
    def hourly(
        context: dg.ScheduleEvaluationContext, platform: dg.ResourceParam[Any]
    ) -> dg.RunRequest | dg.SkipReason:
        from mlops_pipeline.lifecycle.features.online.materialize import accepted_through
        from mlops_pipeline.stores.ops import OpsDatabase

        with OpsDatabase.open(platform.settings().database_url) as ops:
            if accepted_through(ops, use_case) is None:
                return dg.SkipReason("no features of the present definitions are accepted yet")
            if is_under_way(use_case, ops, context.instance):
                return dg.SkipReason("a run is under way")
        return dg.RunRequest()

    return hourly


def monthly_fairness_audit(use_case: UseCase, job: Any) -> dg.ScheduleDefinition:
    """Return `<use_case>_fairness_audit`: once a month, whatever else happened."""
    return dg.ScheduleDefinition(
        name=f"{use_case.name}_fairness_audit",
        description="Audits the champion's live decisions by protected attribute once a month.",
        **_plan(job, f"0 {AUDIT_HOUR_UTC} {use_case.fairness.audit_day} * *"),
    )


def model_card_review(use_case: UseCase, job: Any) -> dg.ScheduleDefinition:
    """Return `<use_case>_model_card_review`: looks every Monday whether the card is due."""
    months = use_case.governance.review.card_months
    return dg.ScheduleDefinition(
        name=f"{use_case.name}_model_card_review",
        description="Raises an alert while the champion's model card was not reviewed for "
        f"{months} months; `mlops card review` resolves it.",
        **_plan(job, f"0 {REVIEW_HOUR_UTC} * * 1"),
    )


def _plan(job: Any, cron: str) -> Mapping[str, Any]:
    return {
        "job": job,
        "cron_schedule": cron,
        "execution_timezone": "UTC",
        "default_status": dg.DefaultScheduleStatus.STOPPED,
    }
