"""Schedules: the conservative monthly retraining."""

from typing import Any

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.orchestration.retrain import ask

HOUR_UTC = 3  # after nightly loads


def monthly_retrain(use_case: UseCase, job: Any) -> dg.ScheduleDefinition:
    """Return `<use_case>_monthly_retrain`: once a month, if as_of has moved on."""

    @dg.schedule(
        name=f"{use_case.name}_monthly_retrain",
        job=job,
        cron_schedule=f"0 {HOUR_UTC} {use_case.retraining.monthly_day} * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Runs the lifecycle once a month when there is a newer as_of; the decision is "
        "stored, also to skip.",
    )
    def monthly(
        context: dg.ScheduleEvaluationContext, platform: dg.ResourceParam[Any]
    ) -> dg.RunRequest | dg.SkipReason:
        decision, request = ask(use_case, platform.settings(), context.instance, "monthly")
        context.log.info(decision.reason)
        return request or dg.SkipReason(decision.reason)

    return monthly
