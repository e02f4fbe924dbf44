"""Retraining, as a sensor or schedule asks: gather evidence, decide, record it with its reason."""

from collections.abc import Callable
from dataclasses import asdict, replace

from mlops_pipeline.core.monitoring.retraining import RetrainingDecision, Trigger, decide
from mlops_pipeline.lifecycle.bookkeeping import NewDecision, list_decisions, record_decision
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.ingest.new_data import new_data_evidence
from mlops_pipeline.lifecycle.project import check_approval
from mlops_pipeline.lifecycle.rollouts import find_trial


def decide_retraining(
    context: Context, trigger: Trigger, *, is_under_way: Callable[[], bool]
) -> tuple[RetrainingDecision, str | None]:
    """Decide on the evidence of now; return the decision, and the key of the run it asks for.

    The run key names the evidence and the attempt: the same evidence never runs twice at once, a
    crashed run is tried again up to the policy's bound, and a refusal by the gate, which is a
    finished lifecycle, does not fire again. A decision not to run that equals the last one of its
    kind is not stored again.
    """
    use_case, ops, now = context.use_case, context.ops, context.now
    check_approval(ops, use_case, now=now)
    evidence = new_data_evidence(use_case, context.settings, ops, trigger, now=now)
    base = f"{trigger}:{evidence.last_as_of}:{evidence.next_as_of}:{evidence.new_labels}"
    before = list_decisions(ops, use_case.name, kind=trigger)
    attempts = sum((item.run_key or "").startswith(f"{base}:") for item in before)
    evidence = replace(evidence, attempts=attempts)
    decision = decide(evidence, use_case.retraining)
    trial = find_trial(ops, use_case.name)
    if decision.retrain and trial is not None:  # a newer version would supersede it
        reason = (
            f"version {trial.rollout.version} is in trial ({trial.stage.name}): it is not cut off"
        )
        decision = replace(decision, retrain=False, reason=reason)
    if decision.retrain and is_under_way():  # asked last: gathering takes its time
        decision = replace(decision, retrain=False, reason="a run is under way")
    key = f"{base}:{attempts + 1}" if decision.retrain else None
    action = "retrain" if decision.retrain else "skip"
    if key or not before or (before[0].action, before[0].reason) != (action, decision.reason):
        noted = asdict(evidence)
        made = NewDecision(trigger, action, decision.reason, noted, run_key=key)
        record_decision(ops, use_case.name, made, now=now)
    return decision, key
