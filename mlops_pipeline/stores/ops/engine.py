"""Connections, transactions and the schema: the same promises on SQLite and PostgreSQL.

The schema is made once, whole; its number says which. A change of tables.py needs the next number
and the statements that bring the one before to it.

A write transaction is alone in its scope: BEGIN IMMEDIATE on SQLite (one writer in the file), an
advisory lock on PostgreSQL (one writer for each scope). So whoever holds one may read, decide and
write without looking over their shoulder, and no statement needs a dialect of its own.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from mlops_pipeline.errors import ConfigError, StateError, without_secrets
from mlops_pipeline.stores.ops.declarations import metadata
from mlops_pipeline.stores.ops.tables import TABLES

BUSY_TIMEOUT_MS = 15_000
CONNECT_TIMEOUT_S = 10
WRITES = "opsdb_writes"
POSTGRES_DRIVER = "postgresql+psycopg"
# 2: PostgreSQL's append-only tables refuse to be truncated; 3: keys of the service; 4: records
# 5: when an audit event was written, by the machine's time; 6: stages and evidence of a rollout
# 7: what the service counts of a version in trial
REVISION = 7
NUMBER = Table("ledger_schema", MetaData(), Column("revision", Integer, nullable=False))
POSTGRES_REFUSAL = " BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END "
_POSTGRES_CHANGES = {"update": "ROW", "delete": "ROW", "truncate": "STATEMENT"}
WAL_ATTEMPTS = 500
WAL_PAUSE_S = 0.03


@contextmanager
def write_transaction(engine: Engine, scope: str) -> Iterator[Connection]:
    """Open a transaction that no other writer of the same scope (SQLite: of the file) overlaps."""
    with engine.connect() as connection:
        connection.execution_options(**{WRITES: True})
        with connection.begin():
            take_turn(connection, scope)
            yield connection


def take_turn(connection: Connection, scope: str) -> None:
    """Wait until no other write transaction is in `scope`; it is ours until the end."""
    if connection.dialect.name == "postgresql":
        digest = hashlib.sha256(f"mlops:{scope}".encode()).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        connection.execute(select(func.pg_advisory_xact_lock(key)))


@contextmanager
def reading_damaged(engine: Engine) -> Iterator[Connection]:
    """One look at what somebody may have tampered with; text that is no UTF-8 is read, too."""
    with engine.begin() as connection:
        driver: Any = connection.connection.driver_connection
        is_sqlite = engine.dialect.name == "sqlite"
        if is_sqlite:
            driver.text_factory = lambda stored: stored.decode(errors="backslashreplace")
        try:
            yield connection
        except DatabaseError as error:
            raise StateError(
                "The audit chain cannot be read: the database is damaged.",
                where=shown(engine.url),
                found=str(error.orig),
                way_out="Restore it from a backup; docs/runbook.md says how to go on.",
            ) from error
        finally:
            if is_sqlite:
                driver.text_factory = str


def make_engine(
    url: str, *, setting: str = "MLOPS_DATABASE_URL", what: str = "ops database"
) -> Engine:
    """Make an engine; nothing is connected yet, but the folder of a SQLite file is made."""
    parsed = _parse(url, setting, what)
    if parsed.get_backend_name() == "sqlite":
        Path(parsed.database or "").parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    timeout = {} if "connect_timeout" in parsed.query else {"connect_timeout": CONNECT_TIMEOUT_S}
    try:
        return create_engine(parsed, pool_pre_ping=True, connect_args=timeout)
    except ModuleNotFoundError as error:
        raise ConfigError(
            "The driver for PostgreSQL is not installed.",
            where=setting,
            way_out="pip install 'mlops-pipeline[postgres]'",
        ) from error


def shown(url: URL) -> str:
    """Return an address for people."""
    return without_secrets(url.render_as_string(hide_password=True))


def _parse(url: str, setting: str, what: str) -> URL:
    expected = "sqlite:///path/to/file.db or postgresql+psycopg://user@host:port/database"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ConfigError(  # the text may hold a password, so it is not repeated
            f"The URL of the {what} cannot be read.", where=setting, expected=expected
        ) from error
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername=POSTGRES_DRIVER)
    is_memory = parsed.database in {None, "", ":memory:"}
    if parsed.drivername == POSTGRES_DRIVER or (
        parsed.get_backend_name() == "sqlite" and not is_memory
    ):
        return parsed
    raise ConfigError(
        f"The {what} is a SQLite file or PostgreSQL.",
        where=setting,
        expected=expected,
        found=shown(parsed),
    )


def _prepare_sqlite(connection: Any, record: object) -> None:  # noqa: ARG001 - fixed by SQLAlchemy
    # We begin transactions ourselves: the driver would begin them late and never IMMEDIATE.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def create(engine: Engine, record_all: Callable[[Connection], None]) -> None:
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
            metadata.create_all(connection)
            add_columns(connection, [declared.table for declared in TABLES.values()])
            _refuse_changes(connection)
            record_all(connection)
            connection.execute(NUMBER.update().values(revision=REVISION))


def _revision(connection: Connection) -> int | None:
    look = inspect(connection)
    if not look.has_table(NUMBER.name):
        if look.has_table("alembic_version") and look.has_table("rollout_event"):
            raise _other_version(connection, "tables of the first kind, with Alembic revisions")
        return None
    revision: int | None = connection.scalar(NUMBER.select())
    if revision is None or not 1 <= revision <= REVISION:
        raise _other_version(connection, f"schema revision {revision}")
    return revision


def _other_version(connection: Connection, found: str) -> StateError:
    return StateError(
        "The ops database was written by another version of this package.",
        where=shown(connection.engine.url),
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


def add_columns(connection: Connection, tables: Iterable[Table]) -> None:
    """Add the columns that tables of an older version lack; each may be missing in their rows."""
    look, kind = inspect(connection), connection.dialect.type_compiler_instance
    for table in tables:
        known = {column["name"] for column in look.get_columns(table.name)}
        for column in table.c:
            if column.name not in known:
                added = f"ADD COLUMN {column.name} {kind.process(column.type)}"
                connection.execute(text(f"ALTER TABLE {table.name} {added}"))


def _refuse_changes(connection: Connection) -> None:
    """Give every table that is declared append-only the triggers that it lacks."""
    triggers = _sqlite_triggers
    if connection.dialect.name != "sqlite":
        triggers = _postgres_triggers
        connection.execute(
            text(
                "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
                f"$${POSTGRES_REFUSAL}$$"
            )
        )
    for declared in TABLES.values():
        if declared.append_only:
            for statement in triggers(declared.table):
                connection.execute(text(statement))


def _postgres_triggers(table: Table) -> list[str]:
    return [
        f"CREATE OR REPLACE TRIGGER {table.name}_no_{change} BEFORE {change} ON {table.name} "
        f"FOR EACH {unit} EXECUTE FUNCTION refuse_change()"
        for change, unit in _POSTGRES_CHANGES.items()
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


def guards(engine: Engine) -> tuple[dict[str, str], dict[str, str]]:
    """Return what guards the rows, by name, as it is made here and as it is in the database."""
    if engine.dialect.name == "sqlite":
        fresh = create_engine("sqlite://")
        with fresh.begin() as made, engine.begin() as connection:
            _create_tables(made)
            query = text("SELECT type || ' ' || name, sql FROM sqlite_master "
                         "WHERE type IN ('trigger', 'index') AND sql IS NOT NULL")  # fmt: skip
            both = [{str(name): str(sql) for name, sql in opened.execute(query)}
                    for opened in (made, connection)]  # fmt: skip
        fresh.dispose()
        return both[0], both[1]
    expected = {
        f"trigger {declared.table.name}_no_{change}": f"on, {POSTGRES_REFUSAL}"
        for declared in TABLES.values()
        for change in (_POSTGRES_CHANGES if declared.append_only else ())
    }
    query = text(
        "SELECT 'trigger ' || tgname, CASE tgenabled WHEN 'O' THEN 'on' ELSE 'off' END || ', ' || "
        "prosrc FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
        "JOIN pg_proc ON pg_proc.oid = tgfoid "
        "WHERE relnamespace = current_schema()::regnamespace AND NOT tgisinternal"
    )
    with engine.begin() as connection:
        return expected, {str(name): str(found) for name, found in connection.execute(query)}


def _switch_to_wal(engine: Engine) -> None:
    """Let readers and the writer work side by side; the file remembers it."""
    for attempt in range(WAL_ATTEMPTS):  # SQLite does not wait for this lock by itself
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
