"""What sensors and schedules share: ask, store the decision with its reason, request a run."""

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.monitoring.retraining import RetrainingDecision, Trigger
from mlops_pipeline.stores.settings import Settings


def ask(
    use_case: UseCase, settings: Settings, trigger: Trigger
) -> tuple[RetrainingDecision, dg.RunRequest | None]:
    """Decide on the evidence of now; return the decision and the run it asks for.

    The run key names the evidence and the attempt: the same evidence never runs twice at once, a
    crashed run is tried again up to the policy's bound, and a refusal by the gate, which is a
    finished lifecycle, does not fire again. A decision equal to the last one of its kind is not
    stored again.
    """
    from dataclasses import replace

    from mlops_pipeline.monitoring.retraining import decide
    from mlops_pipeline.stores.opsdb import OpsDatabase
    from mlops_pipeline.stores.peek import gather_evidence

    now = settings.now()
    with OpsDatabase.open(settings.database_url) as ops:
        evidence = gather_evidence(use_case, settings, ops, trigger, now=now)
        base = f"{trigger}:{evidence.last_as_of}:{evidence.next_as_of}:{evidence.new_labels}"
        asked = ops.list_decisions(use_case.name, kind=trigger)
        attempts = [item for item in asked if (item.run_key or "").startswith(f"{base}:")]
        is_running = _is_running(ops, use_case, attempts[0].run_key if attempts else None)
        evidence = replace(evidence, attempts=len(attempts))
        decision = decide(evidence, use_case.retraining)
        if decision.retrain and is_running:
            decision = replace(
                decision, retrain=False, reason="a run on this evidence is under way"
            )
        key = f"{base}:{len(attempts) + 1}" if decision.retrain else None
        action = "retrain" if decision.retrain else "skip"
        if not asked or (asked[0].action, asked[0].reason) != (action, decision.reason):
            ops.record_decision(
                use_case.name,
                trigger,
                action,
                decision.reason,
                dict(evidence.to_dict()),
                now=now,
                run_key=key,
            )
    if key is None:
        return decision, None
    return decision, dg.RunRequest(
        run_key=key, tags={"mlops/trigger": trigger, "mlops/reason": decision.reason}
    )


def _is_running(ops: object, use_case: UseCase, run_key: str | None) -> bool:
    from mlops_pipeline.stores.opsdb import OpsDatabase

    if run_key is None or not isinstance(ops, OpsDatabase):
        return False
    lease = ops.get_lease(f"lifecycle:{use_case.name}")
    return lease is not None and lease.state != "released"
