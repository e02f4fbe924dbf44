"""What starts runs: sensors of new labels and new data, schedules; the alert for a failed run.

What they decide is lifecycle/retrain.py's; evidence is decided on once, and its run requested once.
Schedules are in UTC, and off until somebody turns them on.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.monitoring.calendar import Plan, plans
from mlops_pipeline.core.monitoring.retraining import Trigger
from mlops_pipeline.orchestration.asset_run import TRIGGERED_BY, without_values
from mlops_pipeline.stores.settings import Settings

if TYPE_CHECKING:
    from mlops_pipeline.stores.ops import OpsDatabase

Request = dg.RunRequest | dg.SkipReason
Decide = Callable[[Settings, dg.DagsterInstance], Request]
INTERVAL_SECONDS = 60  # a tick looks at file times first and counts only when something changed
STARTING = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)
STARTING_MINUTES = 5  # a run takes the lease within this time; one killed before never does


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


STATUS = {True: dg.DefaultScheduleStatus.RUNNING, False: dg.DefaultScheduleStatus.STOPPED}


class Planned(NamedTuple):
    """Work that is due by the calendar; `decide` returns its run, or why there is none."""

    plan: Plan
    job: Any
    description: str
    decide: Decide
    is_on: bool = False  # unless somebody turns it off


def planned_work(use_case: UseCase, jobs: Mapping[str, Any]) -> list[Planned]:
    """Return what is planned of a use case; `jobs` are by kind."""

    def retrain(settings: Settings, instance: dg.DagsterInstance) -> Request:
        return request_retraining(use_case, settings, instance, "monthly")

    def refresh(settings: Settings, instance: dg.DagsterInstance) -> Request:
        return _request_online(use_case, settings, instance)

    def roll_out(settings: Settings, _instance: dg.DagsterInstance) -> Request:
        return _request_look(use_case, settings)

    def always(_settings: Settings, _instance: dg.DagsterInstance) -> Request:
        return dg.RunRequest()

    months = use_case.governance.review.card_months
    known: dict[str, tuple[str, str, Decide]] = {  # the kind of the job, what it does, whether
        "monthly_retrain": (
            "lifecycle",
            "Runs the lifecycle once a month when there is a newer as_of; the decision is stored, "
            "also to skip.",
            retrain,
        ),
        "online_features": (
            "materialize",
            "Brings the online store up to the newest accepted features, unless a run of the use "
            "case works: there is nothing to do while a lifecycle runs, which does it itself, or "
            "before the first one.",
            refresh,
        ),
        "ingest": (
            "ingest",
            "Brings in what the sources delivered, while a rollout waits for labels.",
            roll_out,
        ),
        "rollout": (
            "rollout",
            "Looks at the evidence about the version in trial, or at a champion that its first "
            "complete labels have not judged yet; on where `rollout.stages` has more than `full`.",
            roll_out,
        ),
        "archive": (
            "archive",
            "Writes the log of predictions into the lake every night, and keeps it small.",
            always,
        ),
        "fairness_audit": (
            "fairness_audit",
            "Audits the champion's live decisions by protected attribute once a month.",
            always,
        ),
        "model_card_review": (
            "card_review",
            "Looks every Monday; raises an alert while the champion's model card was not reviewed "
            f"for {months} months; `mlops card review` resolves it.",
            always,
        ),
    }
    found = []
    for kind, plan in plans(use_case).items():
        job, description, decide = known[kind]
        is_on = use_case.rollout.is_staged and decide is roll_out
        found.append(Planned(plan, jobs[job], description, decide, is_on))
    return found


def schedule(planned: Planned) -> dg.ScheduleDefinition:
    """Return planned work as a schedule of the system's clock; the calendar has the others."""

    @dg.schedule(
        name=planned.plan.name,
        job=planned.job,
        cron_schedule=planned.plan.cron,
        execution_timezone="UTC",
        default_status=STATUS[planned.is_on],
        description=planned.description,
    )
    def due(context: dg.ScheduleEvaluationContext, platform: dg.ResourceParam[Any]) -> Request:
        settings: Settings = platform.settings()
        if settings.moving_clock() is not None:
            return dg.SkipReason("the Clock moves by itself: the sensor `calendar` has what is due")
        return planned.decide(settings, context.instance)

    return due


def _request_look(use_case: UseCase, settings: Settings) -> Request:
    from mlops_pipeline.lifecycle.rollout_evidence import why_no_look
    from mlops_pipeline.stores.ops import OpsDatabase

    with OpsDatabase.open(settings.database_url) as ops:
        reason = why_no_look(ops, use_case.name, settings.now())
    return dg.RunRequest() if reason is None else dg.SkipReason(reason)


def _request_online(use_case: UseCase, settings: Settings, instance: dg.DagsterInstance) -> Request:
    from mlops_pipeline.lifecycle.features.online.materialize import accepted_through
    from mlops_pipeline.stores.ops import OpsDatabase

    with OpsDatabase.open(settings.database_url) as ops:
        if accepted_through(ops, use_case) is None:
            return dg.SkipReason("no features of the present definitions are accepted yet")
        if is_under_way(use_case, ops, instance):
            return dg.SkipReason("a run is under way")
    return dg.RunRequest()


@without_values()
def request_retraining(
    use_case: UseCase, settings: Settings, instance: dg.DagsterInstance, trigger: Trigger
) -> Request:
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
    from mlops_pipeline.lifecycle.retrain import sources_state
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
