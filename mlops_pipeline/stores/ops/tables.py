"""The tables of the ops database, and the two column types that they share.

Belongs here: columns, constraints, indexes. A change here needs a new file in migrations/versions
and its number in schema.py. Text has no length limit, because only one of the two databases would
enforce it. Statements belong to the module of their topic.
"""

import json
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.exc import DontWrapMixin

from mlops_pipeline.core.audit.chain import EPOCH, MICROSECOND
from mlops_pipeline.errors import StateError


class UnstorableValueError(StateError, DontWrapMixin):
    """A value that both databases cannot give back as it was."""


class UtcTimestamp(TypeDecorator[datetime]):
    """A moment, stored as whole microseconds since 1970 in UTC: exact in both databases."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - fixed by SQLAlchemy
        """Turn a timezone-aware datetime into microseconds."""
        if value is None:
            return None
        if value.utcoffset() is None:
            raise UnstorableValueError(
                "A timestamp without a time zone cannot be stored.",
                expected="a timezone-aware datetime",
                found=repr(value),
                way_out="Pass datetime(..., tzinfo=UTC).",
            )
        return (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - fixed by SQLAlchemy
        """Turn microseconds into a datetime in UTC."""
        return None if value is None else EPOCH + value * MICROSECOND


class JsonText(TypeDecorator[Any]):
    """A JSON document as text: the same bytes in both databases, NaN refused in both."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 - fixed by SQLAlchemy
        """Write the document."""
        if value is None:
            return None
        try:
            return json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UnstorableValueError(
                "A document is not plain JSON.",
                expected="dict, list, str, int, finite float, bool or None",
                found=str(error),
                way_out="Convert arrays and dates first; write a missing number as None.",
            ) from error

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 - fixed by SQLAlchemy
        """Read the document."""
        return None if value is None else json.loads(value)


metadata = MetaData()

lease = Table(
    "lease",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    # A released row stays, so that the fencing token never goes back.
    Column("state", Text, nullable=False),
    Column("token", BigInteger, nullable=False),
    # Counts renewals: shows a living holder even where two clocks disagree.
    Column("beats", BigInteger, nullable=False),
    Column("acquired_at", UtcTimestamp, nullable=False),
    Column("heartbeat_at", UtcTimestamp, nullable=False),
    Column("expires_at", UtcTimestamp, nullable=False),
    CheckConstraint("state IN ('held', 'lingering', 'released')", name="ck_lease_state"),
)

pointer = Table(
    "pointer",
    metadata,
    Column("use_case", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", JsonText, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("updated_at", UtcTimestamp, nullable=False),
)

lifecycle_run = Table(
    "lifecycle_run",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("use_case", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("as_of", UtcTimestamp, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("started_at", UtcTimestamp, nullable=False),
    Column("finished_at", UtcTimestamp),
    Column("verdict", Text),
    Column("fingerprint", Text),
    Column("summary", JsonText),
    Column("triggered_by", Text),
    UniqueConstraint("use_case", "run_id", name="uq_lifecycle_run"),
)

lifecycle_step = Table(
    "lifecycle_step",
    metadata,
    Column("use_case", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("asset", Text, primary_key=True),
    Column("seconds", Double, nullable=False),
)

ROLLOUT_STATES_SQL = (
    "state IN ('awaiting_approval', 'full', 'previous', 'rejected', 'superseded', 'archived', "
    "'rolled_back')"
)

rollout = Table(
    "rollout",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("use_case", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("stages", JsonText, nullable=False),
    Column("mlflow_run_id", Text, nullable=False),
    Column("dagster_run_id", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("waiting_for", Text),
    Column("opened_at", UtcTimestamp, nullable=False),
    Column("changed_at", UtcTimestamp, nullable=False),
    UniqueConstraint("use_case", "version", name="uq_rollout_version"),
    CheckConstraint(ROLLOUT_STATES_SQL, name="ck_rollout_state"),
)

# The promise "one champion" holds even for a writer that goes round this package.
ONE_FULL = text("state = 'full'")
Index(
    "uq_rollout_one_full",
    rollout.c.use_case,
    unique=True,
    sqlite_where=ONE_FULL,
    postgresql_where=ONE_FULL,
)

rollout_event = Table(  # append-only: triggers refuse UPDATE and DELETE
    "rollout_event",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("rollout_id", Integer, ForeignKey("rollout.id"), nullable=False),
    Column("at", UtcTimestamp, nullable=False),
    Column("from_state", Text),
    Column("to_state", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index("ix_rollout_event_rollout", "rollout_id"),
)

approval = Table(  # append-only: triggers refuse UPDATE and DELETE
    "approval",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("rollout_id", Integer, ForeignKey("rollout.id"), nullable=False),
    Column("stage", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", UtcTimestamp, nullable=False),
    Column("expires_at", UtcTimestamp),
    CheckConstraint("verdict IN ('approved', 'rejected')", name="ck_approval_verdict"),
    Index("ix_approval_rollout", "rollout_id"),
)

alert = Table(
    "alert",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("use_case", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("run_id", Text),
    Column("dedupe_key", Text),
    Column("raised_at", UtcTimestamp, nullable=False),
    Column("last_raised_at", UtcTimestamp, nullable=False),
    Column("times_raised", Integer, nullable=False),
    Column("resolved_at", UtcTimestamp),
    Column("resolved_by", Text),
    Column("resolution", Text),
    Index("ix_alert_use_case", "use_case", "resolved_at"),
)

decision = Table(
    "decision",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("use_case", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", JsonText, nullable=False),
    Column("run_key", Text),
    Column("at", UtcTimestamp, nullable=False),
    Index("ix_decision_use_case", "use_case", "kind"),
)

tombstone = Table(  # whom ingestion keeps out: a keyed hash, never the id
    "tombstone",
    metadata,
    Column("entity", Text, primary_key=True),
    Column("pseudonym", Text, primary_key=True),
    Column("use_case", Text, primary_key=True),
    # {use case: model versions whose data held the person}
    Column("model_versions", JsonText, nullable=False),
    Column("by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", UtcTimestamp, nullable=False),
    Column("finished_at", UtcTimestamp),
)

audit_event = Table(  # append-only: triggers refuse UPDATE and DELETE
    "audit_event",
    metadata,
    # Counted by us under the scope lock: a sequence of the database would leave gaps.
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcTimestamp, nullable=False),
    Column("use_case", Text),
    Column("kind", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("detail", Text, nullable=False),  # canonical JSON, byte for byte what is hashed
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

gate_exception = Table(  # append-only: triggers refuse UPDATE and DELETE
    "gate_exception",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("use_case", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("attribute", Text),
    Column("by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", UtcTimestamp, nullable=False),
    Column("expires_at", UtcTimestamp),  # None in a revocation
    Column("revokes", Integer, ForeignKey("gate_exception.id")),
    UniqueConstraint("revokes", name="uq_gate_exception_revokes"),
    Index("ix_gate_exception_use_case", "use_case"),
)

feature_use = Table(
    "feature_use",
    metadata,
    Column("use_case", Text, primary_key=True),
    Column("feature", Text, primary_key=True),
    Column("reader", Text, primary_key=True),
    Column("first_used_at", UtcTimestamp, nullable=False),
    Column("last_used_at", UtcTimestamp, nullable=False),
)
