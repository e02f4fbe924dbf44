"""The ops database: state that outlives a run and is shared by all processes.

One module for each topic; SQLAlchemy stays inside this package. SQLite in WAL mode by default,
PostgreSQL by URL, with the same promises: each public method is one transaction, and writers of
one scope take turns.
"""

from mlops_pipeline.stores.ops.approvals import approval_state, has_ended, last_approval
from mlops_pipeline.stores.ops.database import OpsDatabase
from mlops_pipeline.stores.ops.lease import HeldLease, is_at_work
from mlops_pipeline.stores.ops.records import (
    Alert,
    Approval,
    ApprovalState,
    AuditEvent,
    Decision,
    FeatureReader,
    FeatureUse,
    Lease,
    LeaseState,
    LifecycleRun,
    OpeningState,
    Pointer,
    Rollout,
    RolloutEvent,
    RolloutState,
    Stage,
    Tombstone,
    Verdict,
)

__all__ = [
    "Alert",
    "Approval",
    "ApprovalState",
    "AuditEvent",
    "Decision",
    "FeatureReader",
    "FeatureUse",
    "HeldLease",
    "Lease",
    "LeaseState",
    "LifecycleRun",
    "OpeningState",
    "OpsDatabase",
    "Pointer",
    "Rollout",
    "RolloutEvent",
    "RolloutState",
    "Stage",
    "Tombstone",
    "Verdict",
    "approval_state",
    "has_ended",
    "is_at_work",
    "last_approval",
]
