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
from mlops_pipeline.stores.ops.declarations import Declared, metadata
from mlops_pipeline.stores.ops.engine import write_transaction
from mlops_pipeline.stores.ops.tables import TABLES

REVISION = 1
NUMBER = Table("ledger_schema", MetaData(), Column("revision", Integer, nullable=False))

WAL_ATTEMPTS = 500
WAL_PAUSE_S = 0.03


def create(engine: Engine) -> None:
    """Make the tables if they are not there; any number of processes may do this at once."""
    with engine.begin() as connection:
        if _is_current(connection):
            return
    if engine.dialect.name == "sqlite":
        _switch_to_wal(engine)
    with write_transaction(engine, "schema") as connection:
        if not _is_current(connection):  # another process may have been first
            _create_tables(connection)


def _is_current(connection: Connection) -> bool:
    look = inspect(connection)
    if not look.has_table(NUMBER.name):
        if look.has_table("alembic_version") and look.has_table("rollout_event"):
            raise _other_version(connection, "tables of the first kind, with Alembic revisions")
        return False
    revision: int | None = connection.scalar(NUMBER.select())
    if revision != REVISION:
        raise _other_version(connection, f"schema revision {revision}")
    return True


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
    is_sqlite = connection.dialect.name == "sqlite"
    if not is_sqlite:
        connection.execute(
            text(
                "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
            )
        )
    for declared in TABLES.values():
        if declared.append_only:
            for statement in _triggers(declared, is_sqlite=is_sqlite):
                connection.execute(text(statement))


def _triggers(declared: Declared, *, is_sqlite: bool) -> list[str]:
    """Return the statements that make a table append-only."""
    name = declared.table.name
    if not is_sqlite:
        return [
            f"CREATE TRIGGER {name}_no_{change.lower()} BEFORE {change} ON {name} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
            for change in ("UPDATE", "DELETE")
        ]
    refusal = f"BEGIN SELECT RAISE(ABORT, '{name} is append-only'); END"
    # REPLACE fires no trigger of DELETE; PostgreSQL has none
    same = (
        " AND ".join(f"{column.name} = NEW.{column.name}" for column in constraint.columns)
        for constraint in declared.table.constraints
        if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint)
    )
    is_there = f"WHEN EXISTS (SELECT 1 FROM {name} WHERE {' OR '.join(sorted(same))})"
    return [
        f"CREATE TRIGGER {name}_no_update BEFORE UPDATE ON {name} {refusal}",
        f"CREATE TRIGGER {name}_no_delete BEFORE DELETE ON {name} {refusal}",
        f"CREATE TRIGGER {name}_no_replace BEFORE INSERT ON {name} {is_there} {refusal}",
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
