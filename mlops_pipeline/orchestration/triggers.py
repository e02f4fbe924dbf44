"""What starts runs: sensors of new labels and new data, schedules; the alert for a failed run.

What they decide is lifecycle/retrain.py's; evidence is decided on once, and its run requested once.
Schedules are in UTC, and off until somebody turns them on.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.monitoring.retraining import Trigger
from mlops_pipeline.orchestration.asset_run import TRIGGERED_BY, without_values
from mlops_pipeline.stores.settings import Settings

if TYPE_CHECKING:
    from mlops_pipeline.stores.ops import OpsDatabase

INTERVAL_SECONDS = 60  # a tick looks at file times first and counts only when something changed
STARTING = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)
STARTING_MINUTES = 5  # a run takes the lease within this time; one killed before never does
HOUR_UTC = 3  # after nightly loads
AUDIT_HOUR_UTC = 5  # after a retraining of the same day
REVIEW_HOUR_UTC = 6  # before people come to work on a Monday
MINUTE = 30  # of every hour: not when the monthly run starts


def retraining_sensors(
    use_case: UseCase, job: Any, interval_seconds: int
) -> list[dg.SensorDefinition]:
    """Return `<use_case>_new_labels` and `<use_case>_new_data`."""
    on_labels = (
        f"Retrains on more than {use_case.retraining.new_labels:,} newly known labels "
        "since the last finished lifecycle. Every decision is stored, also to skip."
    )
    on_data = (
        "Runs the lifecycle when a source has newer rows than the accepted ones. Off "
        "unless `retraining.on_new_data` turns it on."
    )
    is_on = use_case.retraining.on_new_data
    return [
        _sensor(use_case, job, "new_labels", on_labels, interval_seconds),
        _sensor(use_case, job, "new_data", on_data, interval_seconds, is_running=is_on),
    ]


def run_failures(names: tuple[str, ...], interval_seconds: int) -> dg.SensorDefinition:
    """Return `run_failures`: an alert for every failed run of a use case, once."""

    @dg.run_failure_sensor(
        name="run_failures",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=interval_seconds,
        description="Leaves an alert for a run that died without a chance to say why.",
    )
    def failed(context: dg.RunFailureSensorContext, platform: dg.ResourceParam[Any]) -> None:
        from mlops_pipeline.lifecycle.alerts import NewAlert, list_alerts, raise_alert
        from mlops_pipeline.stores.ops import OpsDatabase

        run = context.dagster_run  # of a job, or of assets that were materialized by hand
        keys = sorted(key.path[0] for key in run.asset_selection or ())
        use_case = run.tags.get("use_case") or (keys[0] if keys else "")
        if use_case not in names:
            return
        key, settings = f"run_failed:{run.run_id}", platform.settings()
        with OpsDatabase.open(settings.database_url) as ops:
            if any(alert.dedupe_key == key for alert in list_alerts(ops, use_case)):
                return  # its asset said why; the alert may even be resolved by now
            alert = NewAlert(
                "run_failed",
                "error",
                context.failure_event.message or "the run failed",
                f"open run {run.run_id} in the Dagster UI, mend the cause, run it again",
                run_id=run.run_id,
                dedupe_key=key,
            )
            raise_alert(ops, use_case, alert, now=settings.now())

    return failed


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


@without_values()
def request_retraining(
    use_case: UseCase, settings: Settings, instance: dg.DagsterInstance, trigger: Trigger
) -> dg.RunRequest | dg.SkipReason:
    """Decide, and return the run that the decision asks for, or why there is none."""
    from mlops_pipeline.lifecycle.context import open_context
    from mlops_pipeline.lifecycle.retrain import decide_retraining

    with open_context(use_case, settings) as context:
        decision, key = decide_retraining(
            context, trigger, is_under_way=lambda: is_under_way(use_case, context.ops, instance)
        )
    if key is None:
        return dg.SkipReason(decision.reason)
    return dg.RunRequest(
        run_key=key,
        tags={
            "mlops/trigger": trigger,
            "mlops/reason": decision.reason,
            TRIGGERED_BY: "schedule" if trigger == "monthly" else "sensor",
        },
    )


def is_under_way(use_case: UseCase, ops: "OpsDatabase", instance: dg.DagsterInstance) -> bool:
    """Whether a run of the use case works, or was requested and has not taken the lease yet."""
    from mlops_pipeline.stores.ops import is_at_work
    from mlops_pipeline.stores.ops.lease import get_lease

    if is_at_work(get_lease(ops, f"lifecycle:{use_case.name}"), datetime.now(UTC)):
        return True
    starting = dg.RunsFilter(
        job_name=f"{use_case.name}_lifecycle",
        statuses=list(STARTING),
        created_after=datetime.now(UTC) - timedelta(minutes=STARTING_MINUTES),
    )
    return bool(instance.get_runs(starting, limit=1))


def _sensor(
    use_case: UseCase,
    job: Any,
    trigger: Trigger,
    description: str,
    interval_seconds: int,
    *,
    is_running: bool = False,
) -> dg.SensorDefinition:
    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        settings = context.resources.platform.settings()
        seen = _state(use_case, settings, context.instance)
        if seen == context.cursor:
            return dg.SensorResult(
                skip_reason="nothing changed since the last decision, which is stored",
                cursor=seen,
            )
        asked = request_retraining(use_case, settings, context.instance, trigger)
        if isinstance(asked, dg.SkipReason):
            context.log.info(asked.skip_message)
            return dg.SensorResult(skip_reason=asked, cursor=seen)
        context.log.info(asked.tags["mlops/reason"])
        return dg.SensorResult(run_requests=[asked], cursor=seen)

    status = dg.DefaultSensorStatus
    return dg.SensorDefinition(
        name=f"{use_case.name}_{trigger}",
        job=job,
        evaluation_fn=evaluate,
        minimum_interval_seconds=interval_seconds,
        default_status=status.RUNNING if is_running else status.STOPPED,
        description=description,
        required_resource_keys={"platform"},
    )


def _state(use_case: UseCase, settings: Settings, instance: dg.DagsterInstance) -> str:
    """Return what a decision depends on; while it stays, the last decision holds."""
    from mlops_pipeline.lifecycle.bookkeeping import last_finished_lifecycle
    from mlops_pipeline.lifecycle.ingest.new_data import sources_state
    from mlops_pipeline.stores.ops import OpsDatabase
    from mlops_pipeline.stores.ops.lease import lease_token

    with OpsDatabase.open(settings.database_url) as ops:
        last = last_finished_lifecycle(ops, use_case.name)
        holders = lease_token(ops, f"lifecycle:{use_case.name}")  # rises with every run
        busy = is_under_way(use_case, ops, instance)
    return (
        f"{sources_state(use_case, settings)}:{last.run_id if last else None}:{holders}:{busy}:"
        f"{settings.now().date()}"
    )


def _plan(job: Any, cron: str) -> Mapping[str, Any]:
    return {
        "job": job,
        "cron_schedule": cron,
        "execution_timezone": "UTC",
        "default_status": dg.DefaultScheduleStatus.STOPPED,
    }
