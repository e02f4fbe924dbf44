"""What sensors and schedules share: ask, store the decision with its reason, request a run."""

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.monitoring.retraining import RetrainingDecision, Trigger
from mlops_pipeline.orchestration.asset_run import TRIGGERED_BY, without_values
from mlops_pipeline.stores.settings import Settings

if TYPE_CHECKING:
    from mlops_pipeline.stores.ops import OpsDatabase

STARTING = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)
STARTING_MINUTES = 5  # a run takes the lease within this time; one killed before never does


@without_values()
def ask(
    use_case: UseCase, settings: Settings, instance: dg.DagsterInstance, trigger: Trigger
) -> tuple[RetrainingDecision, dg.RunRequest | None]:
    """Decide on the evidence of now; return the decision and the run it asks for.

    The run key names the evidence and the attempt: the same evidence never runs twice at once, a
    crashed run is tried again up to the policy's bound, and a refusal by the gate, which is a
    finished lifecycle, does not fire again. A decision not to run that equals the last one of its
    kind is not stored again.
    """
    from mlops_pipeline.core.monitoring.retraining import decide
    from mlops_pipeline.lifecycle.bookkeeping import NewDecision, list_decisions, record_decision
    from mlops_pipeline.lifecycle.ingest.new_data import new_data_evidence
    from mlops_pipeline.lifecycle.project import check_approval
    from mlops_pipeline.stores.ops import OpsDatabase

    now = settings.now()
    with OpsDatabase.open(settings.database_url) as ops:
        check_approval(ops, use_case, now=now)
        evidence = new_data_evidence(use_case, settings, ops, trigger, now=now)
        base = f"{trigger}:{evidence.last_as_of}:{evidence.next_as_of}:{evidence.new_labels}"
        asked = list_decisions(ops, use_case.name, kind=trigger)
        attempts = [item for item in asked if (item.run_key or "").startswith(f"{base}:")]
        evidence = replace(evidence, attempts=len(attempts))
        decision = decide(evidence, use_case.retraining)
        if decision.retrain and is_under_way(use_case, ops, instance):
            decision = replace(decision, retrain=False, reason="a run is under way")
        key = f"{base}:{len(attempts) + 1}" if decision.retrain else None
        action = "retrain" if decision.retrain else "skip"
        if key or not asked or (asked[0].action, asked[0].reason) != (action, decision.reason):
            record_decision(
                ops,
                use_case.name,
                NewDecision(trigger, action, decision.reason, asdict(evidence), run_key=key),
                now=now,
            )
    if key is None:
        return decision, None
    return decision, dg.RunRequest(
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
