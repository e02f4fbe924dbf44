"""Opening and deciding rollouts with everything that does not matter to a test filled in."""

from datetime import datetime

from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.core.rollout.records import OpeningState, Rollout, Stage
from mlops_pipeline.lifecycle.rollouts import PersonsDecision, decide, list_rollouts, open_rollout
from mlops_pipeline.stores.ops import Ledger, OpsDatabase
from mlops_pipeline_tests.stores.ops.timestamps import NOON


def open_version(
    database: OpsDatabase,
    version: int,
    *,
    state: OpeningState,
    use_case: str = "churn",
    fingerprint: str | None = None,
    policy: RolloutPolicy | None = None,
    now: datetime = NOON,
) -> Rollout:
    return open_rollout(
        database,
        use_case,
        version,
        mlflow_run_id=f"mlflow-{version}",
        dagster_run_id=f"dagster-{version}",
        fingerprint=fingerprint or f"fingerprint-{version}",
        policy=policy or RolloutPolicy(),
        state=state,
        reason="gate passed",
        waiting_for="approval of production" if state == "awaiting_approval" else None,
        now=now,
    )


def open_waiting(
    database: OpsDatabase,
    version: int,
    use_case: str = "churn",
    fingerprint: str | None = None,
) -> Rollout:
    return open_version(
        database, version, state="awaiting_approval", use_case=use_case, fingerprint=fingerprint
    )


def open_champion(database: OpsDatabase, version: int, use_case: str = "churn") -> Rollout:
    return open_version(database, version, state="champion", use_case=use_case)


STAGED = RolloutPolicy.model_validate(
    {"stages": ["shadow", {"share": 0.05}, {"share": 0.5, "approval": True}, "full"]}
)


def open_trial(database: OpsDatabase, version: int, state: OpeningState = "running") -> Rollout:
    return open_rollout(
        database, "churn", version, mlflow_run_id="m", dagster_run_id="d",
        fingerprint=f"fingerprint-{version}", policy=STAGED, state=state,
        reason="gate passed", waiting_for=None, now=NOON,
    )  # fmt: skip


def states(database: OpsDatabase, use_case: str = "churn") -> dict[int, str]:
    return {found.version: found.state for found in list_rollouts(database, use_case)}


def approve(
    ops: Ledger,
    use_case: str,
    version: int,
    *,
    by: str,
    reason: str,
    now: datetime,
    stage: Stage = "production",
    expires_at: datetime | None = None,
    four_eyes: bool = False,
) -> Rollout:
    said = PersonsDecision("approved", by, reason, stage, expires_at)
    return decide(ops, use_case, version, said, four_eyes=four_eyes, now=now)


def reject(
    ops: Ledger,
    use_case: str,
    version: int,
    *,
    by: str,
    reason: str,
    now: datetime,
    stage: Stage = "production",
) -> Rollout:
    return decide(ops, use_case, version, PersonsDecision("rejected", by, reason, stage), now=now)
