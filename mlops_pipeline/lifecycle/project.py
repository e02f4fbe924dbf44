"""What lies outside of the ledger follows it: MLflow's runs, aliases and tags, alerts, anchors.

Writers only write the ledger. `project` compares each target with the ledger and completes what
is missing, so it may run at any time and twice, and the next process completes what a killed one
left. It runs at the end of every lifecycle and in commands that change a rollout.
"""

from datetime import UTC, datetime

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.rollout.approvals import approval_state, has_ended, last_approval
from mlops_pipeline.core.rollout.records import RolloutState
from mlops_pipeline.lifecycle.alerts import NewAlert, alert_while
from mlops_pipeline.lifecycle.bookkeeping import get_pointer, run_outcome
from mlops_pipeline.lifecycle.compliance.anchors import anchor_chain, anchored_events
from mlops_pipeline.lifecycle.rollouts import (
    find_champion,
    list_approvals,
    list_rollouts,
)
from mlops_pipeline.stores.models.address import is_in_use
from mlops_pipeline.stores.models.mlflow import Registry, Tracking, open_tracking
from mlops_pipeline.stores.ops import Ledger, OpsDatabase, Projection, get_lease, is_at_work
from mlops_pipeline.stores.settings import Settings

REGISTRY = "registry"  # the target of a projection: MLflow; and the pointer to the newest version
FOLLOWED = ("rollout", "approval")  # kinds of events that MLflow follows
ANCHORED = (*FOLLOWED, "decision", "exception_granted", "exception_revoked")  # as anchors do
NOBODY = "mlops"  # the actor of a decision that a sensor or a schedule made
APPROVAL_ENDED = "approval_ended"  # the kind of the alert
STATUSES = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}  # in MLflow


def project(
    ops: OpsDatabase, settings: Settings, use_case: UseCase, *, reason: str, now: datetime
) -> None:
    """Let alerts, MLflow and the anchors follow the ledger; `reason` stands in a new anchor."""
    check_approval(ops, use_case, now=now)
    name = use_case.name
    if is_in_use(settings):
        tracking = open_tracking(settings, name)
        project_runs(ops, tracking, name)
        if get_pointer(ops, name, REGISTRY) or list_rollouts(ops, name):
            project_registry(ops, Registry(tracking, name), now=now)
    anchor_chain(ops, settings, use_case, reason=reason, now=now)


def project_runs(ops: OpsDatabase, tracking: Tracking, use_case: str) -> None:
    """End MLflow's runs of Dagster runs that ended or were killed."""
    for run_id, owner in tracking.running().items():
        lease = get_lease(ops, f"lifecycle:{use_case}")
        is_unknown = owner is None and is_at_work(lease, datetime.now(UTC))
        outcome = "running" if is_unknown else run_outcome(ops, use_case, owner or "")
        if outcome != "running":
            tracking.client.set_terminated(run_id, STATUSES[outcome])


def project_registry(ops: OpsDatabase, registry: Registry, *, now: datetime) -> None:
    """Set MLflow's aliases and approval states; again if the ledger went on meanwhile.

    So the last of several processes that project at once leaves what the ledger says.
    """
    name, is_behind = registry.name, True
    while is_behind:
        with ops.read() as tx:
            seq, _ = tx.audit_head()
            rollouts, approvals = list_rollouts(tx, name), list_approvals(tx, name)
            newest = get_pointer(tx, name, REGISTRY)
        states: dict[int, RolloutState] = {item.version: item.state for item in rollouts}
        shown = {item.version: approval_state(item, approvals, now=now) for item in rollouts}
        if newest is not None:  # between registry_entry and deployment it has no rollout yet
            states.setdefault(newest.value["version"], "awaiting_approval")
            shown.setdefault(newest.value["version"], "candidate")
        registry.project(states, shown)
        ops.put(Projection(name, REGISTRY, seq))
        is_behind = bool(ops.events_after(seq, use_case=name, kind=FOLLOWED))


def pending_effects(ops: Ledger, settings: Settings, use_case: str) -> int:
    """Return how many decisions about a use case MLflow or the anchors do not show yet."""
    shown = ops.find(Projection, use_case=use_case, target=REGISTRY)
    followed = ops.events_after(shown.seq if shown else 0, use_case=use_case, kind=FOLLOWED)
    anchored = ops.events_after(anchored_events(settings), use_case=use_case, kind=ANCHORED)
    return len({event.seq for event in (*followed, *anchored) if event.actor != NOBODY})


def check_approval(ops: Ledger, use_case: UseCase, *, now: datetime) -> None:
    """Raise an alert when the champion's approval has ended, and resolve it when one holds."""
    name, found = use_case.name, find_champion(ops, use_case.name)
    said = found and last_approval(found, list_approvals(ops, name), "production")
    ended = said.expires_at if said and has_ended(said, now) else None
    version, end = (found.version, ended.isoformat()) if found and ended else (None, None)
    alert = NewAlert(
        APPROVAL_ENDED,
        "error",
        f"the approval of version {version} ended at {end}; it does not score any more",
        f"a person renews it: mlops approve {name} {version} --by NAME "
        "--reason TEXT, or approves another version",
        dedupe_key=APPROVAL_ENDED,
    )
    why = "the champion's approval holds"
    alert_while(ended is not None, ops, name, alert, by="mlops", over=why, now=now)
