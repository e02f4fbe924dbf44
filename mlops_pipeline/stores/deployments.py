"""Opening rollouts and people's verdicts on them; MLflow's aliases follow as a projection."""

from datetime import datetime

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.stores.opsdb import OpsDatabase, Rollout
from mlops_pipeline.stores.registry import FINGERPRINT, Registry
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline.stores.tracking import open_tracking


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
    project(ops, registry)
    return rollout


def decide_approval(
    ops: OpsDatabase,
    settings: Settings,
    use_case: UseCase,
    version: int,
    *,
    approve: bool,
    by: str,
    reason: str,
    now: datetime,
) -> Rollout:
    """Record a person's verdict on a waiting version and follow it."""
    verdict = ops.approve if approve else ops.reject
    rollout = verdict(use_case.name, version, by=by, reason=reason, now=now)
    ops.record_decision(
        use_case.name,
        "approval",
        "approved" if approve else "rejected",
        f"{by}: {reason}",
        {"version": version},
        now=now,
    )
    project(ops, Registry(open_tracking(settings, use_case.name), use_case.name))
    return rollout


def project(ops: OpsDatabase, registry: Registry) -> None:
    """Set MLflow's aliases from the rollout states."""
    registry.project({item.version: item.state for item in ops.list_rollouts(registry.name)})


def _opening(use_case: UseCase, champion: Rollout | None, *, needs_review: bool) -> tuple[str, str]:
    if champion is None:
        return "full", "the gate passed and there is no champion yet"
    if use_case.rollout.approval == "always":
        return (
            "awaiting_approval",
            "the gate passed; the configuration asks for a person's approval",
        )
    if needs_review:
        return "awaiting_approval", "the gate passed, and asks for a person's approval"
    return "full", f"the gate passed without asking; replaces version {champion.version}"
