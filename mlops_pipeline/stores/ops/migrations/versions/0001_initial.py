"""The first schema: lease, pointer, lifecycle, rollout, approval, alert, decision."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("rollout_event", "approval")


def upgrade() -> None:
    """Create every table."""
    _create_lease_and_pointer()
    _create_lifecycle()
    _create_rollout()
    _create_rollout_records()
    _create_alert_and_decision()
    _make_append_only()


def _create_lease_and_pointer() -> None:
    op.create_table(
        "lease",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("beats", sa.BigInteger, nullable=False),
        sa.Column("acquired_at", sa.BigInteger, nullable=False),
        sa.Column("heartbeat_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.CheckConstraint("state IN ('held', 'lingering', 'released')", name="ck_lease_state"),
    )
    op.create_table(
        "pointer",
        sa.Column("use_case", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )


def _create_lifecycle() -> None:
    op.create_table(
        "lifecycle_run",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("use_case", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("as_of", sa.BigInteger, nullable=False),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("verdict", sa.Text),
        sa.Column("fingerprint", sa.Text),
        sa.Column("summary", sa.Text),
        sa.UniqueConstraint("use_case", "run_id", name="uq_lifecycle_run"),
    )
    op.create_table(
        "lifecycle_step",
        sa.Column("use_case", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("asset", sa.Text, primary_key=True),
        sa.Column("seconds", sa.Double, nullable=False),
    )


def _create_rollout() -> None:
    op.create_table(
        "rollout",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("use_case", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("stages", sa.Text, nullable=False),
        sa.Column("mlflow_run_id", sa.Text, nullable=False),
        sa.Column("dagster_run_id", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("waiting_for", sa.Text),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("use_case", "version", name="uq_rollout_version"),
        sa.CheckConstraint(
            "state IN ('awaiting_approval', 'full', 'previous', 'rejected', 'superseded', "
            "'archived', 'rolled_back')",
            name="ck_rollout_state",
        ),
    )
    one_full = sa.text("state = 'full'")
    op.create_index(
        "uq_rollout_one_full",
        "rollout",
        ["use_case"],
        unique=True,
        sqlite_where=one_full,
        postgresql_where=one_full,
    )


def _create_rollout_records() -> None:
    op.create_table(
        "rollout_event",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("rollout_id", sa.Integer, sa.ForeignKey("rollout.id"), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("from_state", sa.Text),
        sa.Column("to_state", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index("ix_rollout_event_rollout", "rollout_event", ["rollout_id"])
    op.create_table(
        "approval",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("rollout_id", sa.Integer, sa.ForeignKey("rollout.id"), nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.CheckConstraint("verdict IN ('approved', 'rejected')", name="ck_approval_verdict"),
    )
    op.create_index("ix_approval_rollout", "approval", ["rollout_id"])


def _create_alert_and_decision() -> None:
    op.create_table(
        "alert",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("use_case", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text),
        sa.Column("dedupe_key", sa.Text),
        sa.Column("raised_at", sa.BigInteger, nullable=False),
        sa.Column("last_raised_at", sa.BigInteger, nullable=False),
        sa.Column("times_raised", sa.Integer, nullable=False),
        sa.Column("resolved_at", sa.BigInteger),
        sa.Column("resolved_by", sa.Text),
        sa.Column("resolution", sa.Text),
    )
    op.create_index("ix_alert_use_case", "alert", ["use_case", "resolved_at"])
    op.create_table(
        "decision",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("use_case", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("run_key", sa.Text),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_decision_use_case", "decision", ["use_case", "kind"])


def _make_append_only() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    if not is_sqlite:
        op.execute(
            "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
        )
    for table in APPEND_ONLY:
        for change in ("UPDATE", "DELETE"):
            body = (
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
                if is_sqlite
                else "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
            )
            op.execute(
                f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} {body}"
            )
