"""Sensors: new labels, new data, and the alert for a run that failed outside its assets."""

from collections.abc import Callable
from typing import Any

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.monitoring.retraining import Trigger
from mlops_pipeline.orchestration.retrain import ask, is_under_way

INTERVAL_SECONDS = 60  # a tick looks at file times first and counts only when something changed


def new_labels_sensor(
    use_case: UseCase, job: Any, *, interval_seconds: int = INTERVAL_SECONDS
) -> dg.SensorDefinition:
    """Return `<use_case>_new_labels`: retrain when enough labels became known."""
    return dg.SensorDefinition(
        name=f"{use_case.name}_new_labels",
        job=job,
        evaluation_fn=_evaluation(use_case, "new_labels"),
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Retrains on more than {use_case.retraining.new_labels:,} newly known labels "
        "since the last finished lifecycle. Every decision is stored, also to skip.",
        required_resource_keys={"platform"},
    )


def new_data_sensor(
    use_case: UseCase, job: Any, *, interval_seconds: int = INTERVAL_SECONDS
) -> dg.SensorDefinition:
    """Return `<use_case>_new_data`: run when a source is newer than what was accepted."""
    status = dg.DefaultSensorStatus.STOPPED
    if use_case.retraining.on_new_data:
        status = dg.DefaultSensorStatus.RUNNING
    return dg.SensorDefinition(
        name=f"{use_case.name}_new_data",
        job=job,
        evaluation_fn=_evaluation(use_case, "new_data"),
        minimum_interval_seconds=interval_seconds,
        default_status=status,
        description="Runs the lifecycle when a source has newer rows than the accepted ones. Off "
        "unless `retraining.on_new_data` turns it on.",
        required_resource_keys={"platform"},
    )


def run_failures(
    names: tuple[str, ...], *, interval_seconds: int = INTERVAL_SECONDS
) -> dg.SensorDefinition:
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

        use_case = _use_case_of(context.dagster_run)
        if use_case not in names:
            return
        run_id, settings = context.dagster_run.run_id, platform.settings()
        key = f"run_failed:{run_id}"
        with OpsDatabase.open(settings.database_url) as ops:
            if any(alert.dedupe_key == key for alert in list_alerts(ops, use_case)):
                return  # its asset said why; the alert may even be resolved by now
            raise_alert(
                ops,
                use_case,
                NewAlert(
                    "run_failed",
                    "error",
                    context.failure_event.message or "the run failed",
                    f"open run {run_id} in the Dagster UI, mend the cause, run it again",
                    run_id=run_id,
                    dedupe_key=key,
                ),
                now=settings.now(),
            )

    return failed


def _use_case_of(run: dg.DagsterRun) -> str:
    """Return the use case of a job, or of the assets that were materialized by hand."""
    keys = sorted(key.path[0] for key in run.asset_selection or ())
    return run.tags.get("use_case") or (keys[0] if keys else "")


def _evaluation(
    use_case: UseCase, trigger: Trigger
) -> Callable[[dg.SensorEvaluationContext], dg.SensorResult]:
    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        from mlops_pipeline.lifecycle.bookkeeping import last_finished_lifecycle
        from mlops_pipeline.lifecycle.ingest.new_data import sources_state
        from mlops_pipeline.stores.ops import OpsDatabase
        from mlops_pipeline.stores.ops.lease import lease_token

        settings = context.resources.platform.settings()
        with OpsDatabase.open(settings.database_url) as ops:
            last = last_finished_lifecycle(ops, use_case.name)
            name = f"lifecycle:{use_case.name}"
            holders = lease_token(ops, name)  # rises with every run, also one that crashed
            busy = is_under_way(use_case, ops, context.instance)
        seen = (
            f"{sources_state(use_case, settings)}:{last.run_id if last else None}:{holders}:{busy}:"
            f"{settings.now().date()}"
        )
        if seen == context.cursor:
            return dg.SensorResult(
                skip_reason="nothing changed since the last decision, which is stored",
                cursor=seen,
            )
        decision, request = ask(use_case, settings, context.instance, trigger)
        context.log.info(decision.reason)
        if request is None:
            return dg.SensorResult(skip_reason=decision.reason, cursor=seen)
        return dg.SensorResult(run_requests=[request], cursor=seen)

    return evaluate
