"""SQLite: rows of append-only tables cannot be replaced: REPLACE fires no trigger of DELETE."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

KEYS = {"audit_event": "seq", "rollout_event": "id", "approval": "id", "gate_exception": "id"}


def upgrade() -> None:
    """Refuse an INSERT of a key that is there; PostgreSQL has no REPLACE."""
    if op.get_bind().dialect.name != "sqlite":
        return
    for table, key in KEYS.items():
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key}) "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
