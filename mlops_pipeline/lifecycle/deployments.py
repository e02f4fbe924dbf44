"""Opening rollouts and people's verdicts on them; MLflow's aliases follow as a projection."""

from dataclasses import dataclass
from datetime import datetime

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.lifecycle.compliance.anchors import anchor_chain
from mlops_pipeline.stores.models.registry import FINGERPRINT, Registry
from mlops_pipeline.stores.models.tracking import open_tracking
from mlops_pipeline.stores.ops import (
    OpsDatabase,
    Rollout,
    Stage,
    Verdict,
    approval_state,
    has_ended,
    last_approval,
)
from mlops_pipeline.stores.settings import Settings

APPROVAL_ENDED = "approval_ended"  # the kind of the alert


@dataclass(frozen=True)
class PersonsVerdict:
    """What a person says about a version; see `OpsDatabase.approve`."""

    verdict: Verdict
    by: str
    reason: str
    stage: Stage = "production"
    expires_at: datetime | None = None


def open_deployment(
    ops: OpsDatabase,
    settings: Settings,
    use_case: UseCase,
    version: int,
    *,
    needs_review: bool,
    now: datetime,
) -> Rollout:
    """Open the rollout of a registered version; the same version keeps the rollout it has."""
    registry = Registry(open_tracking(settings, use_case.name), use_case.name)
    found = registry.get(version)
    champion = ops.champion(use_case.name)
    state, reason = _opening(use_case, champion, needs_review=needs_review)
    rollout = ops.open_rollout(
        use_case.name,
        version,
        mlflow_run_id=found.mlflow_run_id,
        dagster_run_id=found.tags["dagster_run_id"],
        fingerprint=found.tags[FINGERPRINT],
        stages=list(use_case.rollout.stages),
        state="full" if state == "full" else "awaiting_approval",
        reason=reason,
        waiting_for=None if state == "full" else use_case.owner,
        now=now,
    )
    project(ops, registry, now=now)
    if rollout.state == "full":
        reason = f"{use_case.name} version {version}: full"
        anchor_chain(ops, settings, use_case, reason=reason, now=now)
    return rollout


def decide_approval(
    ops: OpsDatabase,
    settings: Settings,
    use_case: UseCase,
    version: int,
    said: PersonsVerdict,
    *,
    now: datetime,
) -> Rollout:
    """Record a person's verdict on a version and follow it; anchor the audit chain."""
    name = use_case.name
    ops.record_configuration(name, use_case.model_dump(mode="json"), by="approval", now=now)
    if said.verdict == "approved":
        rollout = ops.approve(
            name,
            version,
            by=said.by,
            reason=said.reason,
            stage=said.stage,
            expires_at=said.expires_at,
            four_eyes=use_case.rollout.four_eyes,
            now=now,
        )
    else:
        rollout = ops.reject(
            name, version, by=said.by, reason=said.reason, stage=said.stage, now=now
        )
    ops.record_decision(
        name,
        "approval",
        said.verdict,
        f"{said.by}: {said.reason}",
        {"version": version, "stage": said.stage, "four_eyes": use_case.rollout.four_eyes},
        now=now,
        actor=said.by,
    )
    told = f"{name} version {version}: {said.verdict} for {said.stage}"
    _follow(ops, settings, use_case, told, now=now)
    return rollout


def roll_back(
    ops: OpsDatabase, settings: Settings, use_case: UseCase, *, by: str, reason: str, now: datetime
) -> Rollout:
    """Make the version before the champion champion again; record, project and anchor it."""
    name = use_case.name
    removed, rollout = ops.roll_back(name, by=by, reason=reason, now=now)
    ops.record_decision(
        name,
        "rollback",
        "rolled_back",
        f"{by}: {reason}",
        {"from_version": removed.version, "to_version": rollout.version},
        now=now,
        actor=by,
    )
    _follow(ops, settings, use_case, f"{name} version {rollout.version}: full again", now=now)
    return rollout


def _follow(
    ops: OpsDatabase, settings: Settings, use_case: UseCase, told: str, *, now: datetime
) -> None:
    """Let alerts, MLflow and the anchors of the audit chain follow what a person decided."""
    check_approval(ops, use_case, now=now)
    registry = Registry(open_tracking(settings, use_case.name), use_case.name)
    project(ops, registry, now=now)
    anchor_chain(ops, settings, use_case, reason=told, now=now)


def check_approval(ops: OpsDatabase, use_case: UseCase, *, now: datetime) -> None:
    """Raise an alert when the champion's approval has ended, and resolve it when one holds."""
    name, champion = use_case.name, ops.champion(use_case.name)
    said = champion and last_approval(champion, ops.approvals(name), "production")
    if champion and said and said.expires_at and has_ended(said, now):
        ops.raise_alert(
            name,
            APPROVAL_ENDED,
            "error",
            f"the approval of version {champion.version} ended at {said.expires_at.isoformat()}; "
            "it does not score any more",
            f"a person renews it: mlops approve {name} {champion.version} --by NAME --reason TEXT, "
            "or approves another version",
            now=now,
            dedupe_key=APPROVAL_ENDED,
        )
    elif any(item.kind == APPROVAL_ENDED for item in ops.list_alerts(name, open_only=True)):
        why = "the champion's approval holds"
        ops.resolve_alerts_by_key(name, APPROVAL_ENDED, by="mlops", reason=why, now=now)


def project(ops: OpsDatabase, registry: Registry, *, now: datetime) -> None:
    """Set MLflow's aliases and approval states from the rollouts and approvals."""
    rollouts, approvals = ops.list_rollouts(registry.name), ops.approvals(registry.name)
    registry.project(
        {item.version: item.state for item in rollouts},
        {item.version: approval_state(item, approvals, now=now) for item in rollouts},
    )


def _opening(use_case: UseCase, champion: Rollout | None, *, needs_review: bool) -> tuple[str, str]:
    if use_case.rollout.approval == "always":
        return (
            "awaiting_approval",
            "the gate passed; the configuration asks for a person's approval",
        )
    if needs_review:
        return "awaiting_approval", "the gate passed, and asks for a person's approval"
    if champion is None:
        return "full", "the gate passed without asking; there is no champion yet"
    return "full", f"the gate passed without asking; replaces version {champion.version}"
