"""What the owner of a database can do to it."""

from sqlalchemy import text

from mlops_pipeline.stores.ops import OpsDatabase

APPEND_ONLY = ("audit_event", "rollout_event", "approval", "gate_exception", "api_key")


def tamper(database: OpsDatabase, *statements: str) -> None:
    """Run statements without the triggers that refuse changes."""
    is_sqlite = database.url.startswith("sqlite")
    with database.engine.begin() as connection:
        for table in APPEND_ONLY:
            for change in ("update", "delete"):
                on = "" if is_sqlite else f" ON {table}"
                connection.execute(text(f"DROP TRIGGER IF EXISTS {table}_no_{change}{on}"))
        for statement in statements:
            connection.execute(text(statement.replace(":", r"\:")))
