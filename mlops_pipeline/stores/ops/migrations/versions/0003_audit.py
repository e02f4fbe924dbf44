"""The audit chain: audit_event. Who triggered a run, and until when an approval holds."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table, append-only as rollout_event is, and add the columns."""
    op.create_table(
        "audit_event",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("use_case", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("previous_hash", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
    )
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for change in ("UPDATE", "DELETE"):
        body = (
            "BEGIN SELECT RAISE(ABORT, 'audit_event is append-only'); END"
            if is_sqlite
            else "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        name = f"audit_event_no_{change.lower()}"
        op.execute(f"CREATE TRIGGER {name} BEFORE {change} ON audit_event {body}")
    op.add_column("lifecycle_run", sa.Column("triggered_by", sa.Text))
    op.add_column("approval", sa.Column("expires_at", sa.BigInteger))
