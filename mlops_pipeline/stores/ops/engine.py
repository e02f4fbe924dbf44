"""Connections and transactions: the same promises on SQLite and PostgreSQL.

A write transaction is alone in its scope: BEGIN IMMEDIATE on SQLite (one writer in the file), an
advisory lock on PostgreSQL (one writer for each scope). So whoever holds one may read, decide and
write without looking over their shoulder, and no statement needs a dialect of its own.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, DatabaseError

from mlops_pipeline.errors import ConfigError, StateError

BUSY_TIMEOUT_MS = 15_000
CONNECT_TIMEOUT_S = 10
WRITES = "opsdb_writes"
POSTGRES_DRIVER = "postgresql+psycopg"


@contextmanager
def write_transaction(engine: Engine, scope: str) -> Iterator[Connection]:
    """Open a transaction that no other writer of the same scope can overlap.

    SQLite has one scope: the file.
    """
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
    with engine.begin() as connection, _any_text(connection):
        try:
            yield connection
        except DatabaseError as error:
            raise StateError(
                "The audit chain cannot be read: the database is damaged.",
                where=engine.url.render_as_string(hide_password=True),
                found=str(error.orig),
                way_out="Restore it from a backup; docs/runbook.md says how to go on.",
            ) from error


@contextmanager
def _any_text(connection: Connection) -> Iterator[None]:
    """Let SQLite give back text whose bytes are no longer UTF-8, which is to be found."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    driver.text_factory = lambda stored: stored.decode(errors="backslashreplace")
    try:
        yield
    finally:
        driver.text_factory = str


def make_engine(url: str) -> Engine:
    """Make an engine; nothing is connected yet, but the folder of a SQLite file is made."""
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        Path(parsed.database or "").parent.mkdir(parents=True, exist_ok=True)
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
            where="MLOPS_DATABASE_URL",
            way_out="pip install 'mlops-pipeline[postgres]'",
        ) from error


def _parse(url: str) -> URL:
    expected = "sqlite:///path/to/file.db or postgresql+psycopg://user@host:port/database"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ConfigError(  # the text may hold a password, so it is not repeated
            "The URL of the ops database cannot be read.",
            where="MLOPS_DATABASE_URL",
            expected=expected,
        ) from error
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername=POSTGRES_DRIVER)
    is_memory = parsed.database in {None, "", ":memory:"}
    if parsed.drivername == POSTGRES_DRIVER or (
        parsed.get_backend_name() == "sqlite" and not is_memory
    ):
        return parsed
    raise ConfigError(
        "The ops database is a SQLite file or PostgreSQL.",
        where="MLOPS_DATABASE_URL",
        expected=expected,
        found=parsed.render_as_string(hide_password=True),
    )


def _prepare_sqlite(connection: Any, record: object) -> None:  # noqa: ARG001 - fixed by SQLAlchemy
    # We begin transactions ourselves: the driver would begin them late and never IMMEDIATE.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
