"""The sensor `calendar`: the runs of the schedules when the Clock moves by itself.

Dagster's schedules know the system's clock only. Here the runs of those that are turned on are
yielded by the Clock, one due time after another: nothing later while a run is in flight. In steps,
the sensor also moves the Clock to the next due time, up to that of `mlops clock step --until`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorType  # its public name does not exist

from mlops_pipeline.core.monitoring.calendar import next_stop
from mlops_pipeline.orchestration.triggers import STARTING, Planned
from mlops_pipeline.stores.settings import Settings, parse_time

STEPS_AT_ONCE = 20  # of one tick, which Dagster ends after a minute
IN_FLIGHT = (*STARTING, dg.DagsterRunStatus.CANCELING)


def calendar(planned: Sequence[Planned], interval_seconds: int) -> dg.SensorDefinition:
    """Return the sensor; its cursor is the time up to which all that was due is done."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        settings: Settings = context.resources.platform.settings()
        if settings.moving_clock() is None:
            reason = "the Clock is the system's, or stands still: schedules run by themselves"
            return dg.SensorResult(skip_reason=reason, cursor="")
        done = parse_time(context.cursor) if context.cursor else settings.now()
        if context.instance.get_runs(dg.RunsFilter(statuses=list(IN_FLIGHT)), limit=1):
            return dg.SensorResult(skip_reason="a run is in flight", cursor=done.isoformat())
        on = _turned_on(context.instance)
        chosen = [item for item in planned if item.plan.name in on]
        for _ in range(STEPS_AT_ONCE):
            done, requests = _due(context, chosen, settings, done)
            if requests:
                return dg.SensorResult(run_requests=requests, cursor=done.isoformat())
            if not _step(chosen, settings):
                break
        said = f"nothing is due up to {done.isoformat()}"
        return dg.SensorResult(skip_reason=said, cursor=done.isoformat())

    return dg.SensorDefinition(
        name="calendar",
        jobs=[*{item.job.name: item.job for item in planned}.values()],
        evaluation_fn=evaluate,
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Yields the schedules' runs when `mlops clock` moves the Clock, and steps it.",
        required_resource_keys={"platform"},
    )


def _due(
    context: dg.SensorEvaluationContext,
    planned: Sequence[Planned],
    settings: Settings,
    done: datetime,
) -> tuple[datetime, list[dg.RunRequest]]:
    """Return the runs of the first due time that has any, the newest of each work; until when."""
    now = settings.now()
    times = [(item.plan.last(done, now), item) for item in planned]
    for time in sorted({time for time, _ in times if time is not None}):
        requests = []
        for item in (item for due, item in times if due == time):
            asked = item.decide(settings, context.instance)
            if isinstance(asked, dg.SkipReason):
                context.log.info(f"{item.plan.name}: {asked.skip_message}")
            else:
                requests.append(_request(item, time, asked))
        if requests:
            return time, requests
    return max(done, now), []


def _request(item: Planned, due: datetime, asked: dg.RunRequest) -> dg.RunRequest:
    tags: dict[str, Any] = {**asked.tags, "mlops/due": due.isoformat()}
    key = asked.run_key or f"{item.plan.name}:{due.isoformat()}"
    return dg.RunRequest(run_key=key, job_name=item.job.name, tags=tags)


def _turned_on(instance: dg.DagsterInstance) -> set[str]:
    """Return the names of the schedules that somebody turned on."""
    states = instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE)
    return {state.instigator_name for state in states if state.is_running}


def _step(planned: Sequence[Planned], settings: Settings) -> bool:
    """Move the Clock to the next due time; whether it may move by itself."""
    from mlops_pipeline.lifecycle.clock import move_clock
    from mlops_pipeline.stores.ops import OpsDatabase

    clock, now = settings.moving_clock(), settings.now()
    if clock is None or clock.rate or clock.until is None or now >= clock.until:
        return False
    stop = next_stop((item.plan for item in planned), now)
    to = clock.until if stop is None else min(stop, clock.until)
    with OpsDatabase.open(settings.database_url) as ops:
        move_clock(ops, settings, to, by="calendar", until=clock.until)
    return True
