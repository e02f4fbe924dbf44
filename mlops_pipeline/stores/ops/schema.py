"""Bringing a database to the schema that this code expects.

The common case, a database that is up to date, costs one query and does not import Alembic.
"""

import time

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import OperationalError

from mlops_pipeline.errors import StateError
from mlops_pipeline.stores.ops.transactions import write_transaction

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006")
"""Every revision in migrations/versions, oldest first (a test holds the two equal)."""

HEAD = REVISIONS[-1]

WAL_ATTEMPTS = 500
WAL_PAUSE_S = 0.03


def upgrade(engine: Engine) -> None:
    """Create or migrate the tables; any number of processes may do this at once.

    Raises
    ------
    StateError
        If the database was written by a newer version of this package.
    """
    with engine.begin() as connection:
        if _is_current(connection):
            return
    if engine.dialect.name == "sqlite":
        _switch_to_wal(engine)
    with write_transaction(engine, "schema") as connection:
        if not _is_current(connection):  # another process may have been first
            _migrate(connection)


def _is_current(connection: Connection) -> bool:
    if not inspect(connection).has_table("alembic_version"):
        return False
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if revision is not None and revision not in REVISIONS:
        raise StateError(
            "The ops database was written by another version of this package.",
            where=connection.engine.url.render_as_string(hide_password=True),
            expected=f"schema revision {HEAD} or older",
            found=f"schema revision {revision}",
            way_out="Install the newer version, or point MLOPS_DATABASE_URL elsewhere.",
        )
    return revision == HEAD


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "mlops_pipeline.stores.ops:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)


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
