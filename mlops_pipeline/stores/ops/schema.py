"""The schema in a database: made once, whole; its number says which.

A change of tables.py needs the next number and the statements that bring the one before to it.
"""

import time

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    inspect,
    text,
)
from sqlalchemy.exc import OperationalError

from mlops_pipeline.errors import StateError
from mlops_pipeline.stores.ops.declarations import metadata
from mlops_pipeline.stores.ops.engine import write_transaction
from mlops_pipeline.stores.ops.tables import TABLES

REVISION = 2  # of 1, PostgreSQL's append-only tables could be truncated
NUMBER = Table("ledger_schema", MetaData(), Column("revision", Integer, nullable=False))

WAL_ATTEMPTS = 500
WAL_PAUSE_S = 0.03


def create(engine: Engine) -> None:
    """Bring tables and triggers to this revision; any number of processes may do this at once."""
    with engine.begin() as connection:
        if _revision(connection) == REVISION:
            return
    if engine.dialect.name == "sqlite":
        _switch_to_wal(engine)
    with write_transaction(engine, "schema") as connection:
        revision = _revision(connection)
        if revision is None:
            _create_tables(connection)
        elif revision != REVISION:  # no other process was first
            _refuse_changes(connection)
            connection.execute(NUMBER.update().values(revision=REVISION))


def _revision(connection: Connection) -> int | None:
    look = inspect(connection)
    if not look.has_table(NUMBER.name):
        if look.has_table("alembic_version") and look.has_table("rollout_event"):
            raise _other_version(connection, "tables of the first kind, with Alembic revisions")
        return None
    revision: int | None = connection.scalar(NUMBER.select())
    if revision not in (1, REVISION):
        raise _other_version(connection, f"schema revision {revision}")
    return revision


def _other_version(connection: Connection, found: str) -> StateError:
    return StateError(
        "The ops database was written by another version of this package.",
        where=connection.engine.url.render_as_string(hide_password=True),
        expected=f"schema revision {REVISION}",
        found=found,
        way_out="Open it with the version that wrote it (`mlops audit export` keeps its record), "
        "or point MLOPS_DATABASE_URL elsewhere.",
    )


def _create_tables(connection: Connection) -> None:
    metadata.create_all(connection)
    NUMBER.create(connection)
    connection.execute(NUMBER.insert().values(revision=REVISION))
    _refuse_changes(connection)


def _refuse_changes(connection: Connection) -> None:
    """Give every table that is declared append-only the triggers that it lacks."""
    triggers = _sqlite_triggers
    if connection.dialect.name != "sqlite":
        triggers = _postgres_triggers
        connection.execute(
            text(
                "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
            )
        )
    for declared in TABLES.values():
        if declared.append_only:
            for statement in triggers(declared.table):
                connection.execute(text(statement))


def _postgres_triggers(table: Table) -> list[str]:
    each = {"update": "ROW", "delete": "ROW", "truncate": "STATEMENT"}
    return [
        f"CREATE OR REPLACE TRIGGER {table.name}_no_{change} BEFORE {change} ON {table.name} "
        f"FOR EACH {unit} EXECUTE FUNCTION refuse_change()"
        for change, unit in each.items()
    ]


def _sqlite_triggers(table: Table) -> list[str]:
    name = table.name
    refusal = f"BEGIN SELECT RAISE(ABORT, '{name} is append-only'); END"
    # REPLACE fires no trigger of DELETE; PostgreSQL has none
    same = (
        " AND ".join(f"{column.name} = NEW.{column.name}" for column in constraint.columns)
        for constraint in table.constraints
        if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint)
    )
    is_there = f"WHEN EXISTS (SELECT 1 FROM {name} WHERE {' OR '.join(sorted(same))})"
    changes = {"update": "", "delete": "", "insert": is_there}
    return [
        f"CREATE TRIGGER IF NOT EXISTS {name}_no_{'replace' if condition else change} "
        f"BEFORE {change} ON {name} {condition} {refusal}"
        for change, condition in changes.items()
    ]


def _switch_to_wal(engine: Engine) -> None:
    """Let readers and the writer work side by side; the file remembers it.

    SQLite does not wait by itself for this lock when several processes ask for it at once.
    """
    for attempt in range(WAL_ATTEMPTS):
        raw = engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA journal_mode = WAL")
            return
        except engine.dialect.loaded_dbapi.OperationalError as error:
            if "locked" not in str(error) or attempt == WAL_ATTEMPTS - 1:
                raise OperationalError("PRAGMA journal_mode = WAL", None, error) from error
        finally:
            raw.close()
        time.sleep(WAL_PAUSE_S)
