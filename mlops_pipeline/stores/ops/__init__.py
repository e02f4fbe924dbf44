"""The ops database: state that outlives a run and is shared by all processes.

SQLAlchemy stays inside this package. SQLite in WAL mode by default, PostgreSQL by URL, with the
same promises: a transaction is whole, and writers of one scope take turns.
"""

from mlops_pipeline.stores.ops.lease import HeldLease, get_lease, is_at_work
from mlops_pipeline.stores.ops.ledger import NEW, Ledger, OpsDatabase, Transaction
from mlops_pipeline.stores.ops.tables import (
    Alert,
    ApiKeyEntry,
    Decision,
    FeatureReader,
    FeatureUse,
    KeyScope,
    Lease,
    LifecycleRun,
    Pointer,
    Projection,
    RolloutWindow,
    StepSeconds,
    Tombstone,
)

__all__ = [
    "NEW",
    "Alert",
    "ApiKeyEntry",
    "Decision",
    "FeatureReader",
    "FeatureUse",
    "HeldLease",
    "KeyScope",
    "Lease",
    "Ledger",
    "LifecycleRun",
    "OpsDatabase",
    "Pointer",
    "Projection",
    "RolloutWindow",
    "StepSeconds",
    "Tombstone",
    "Transaction",
    "get_lease",
    "is_at_work",
]
