"""Exceptions from gate rules, and their revocations: gate_exception."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table, append-only as rollout_event is."""
    op.create_table(
        "gate_exception",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("use_case", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("attribute", sa.Text),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revokes", sa.Integer, sa.ForeignKey("gate_exception.id")),
        sa.UniqueConstraint("revokes", name="uq_gate_exception_revokes"),
    )
    op.create_index("ix_gate_exception_use_case", "gate_exception", ["use_case"])
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for change in ("UPDATE", "DELETE"):
        body = (
            "BEGIN SELECT RAISE(ABORT, 'gate_exception is append-only'); END"
            if is_sqlite
            else "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        name = f"gate_exception_no_{change.lower()}"
        op.execute(f"CREATE TRIGGER {name} BEFORE {change} ON gate_exception {body}")
