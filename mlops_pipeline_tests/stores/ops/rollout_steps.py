"""Opening rollouts with everything that does not matter to a test filled in."""

from datetime import datetime

from mlops_pipeline.stores.ops import OpeningState, OpsDatabase, Rollout
from mlops_pipeline_tests.stores.ops.timestamps import NOON


def open_version(
    database: OpsDatabase,
    version: int,
    *,
    state: OpeningState,
    use_case: str = "churn",
    fingerprint: str | None = None,
    now: datetime = NOON,
) -> Rollout:
    return database.open_rollout(
        use_case,
        version,
        mlflow_run_id=f"mlflow-{version}",
        dagster_run_id=f"dagster-{version}",
        fingerprint=fingerprint or f"fingerprint-{version}",
        stages=["full"],
        state=state,
        reason="gate passed",
        waiting_for="approval of production" if state == "awaiting_approval" else None,
        now=now,
    )


def open_waiting(database: OpsDatabase, version: int, use_case: str = "churn") -> Rollout:
    return open_version(database, version, state="awaiting_approval", use_case=use_case)


def open_full(database: OpsDatabase, version: int, use_case: str = "churn") -> Rollout:
    return open_version(database, version, state="full", use_case=use_case)


def states(database: OpsDatabase, use_case: str = "churn") -> dict[int, str]:
    return {found.version: found.state for found in database.list_rollouts(use_case)}
