import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, func, inspect, select, text
from sqlalchemy.exc import DBAPIError

from mlops_pipeline.errors import StateError
from mlops_pipeline.lifecycle.api_keys import create_key, list_keys
from mlops_pipeline.lifecycle.exceptions import grant_exception
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.ops.declarations import metadata
from mlops_pipeline.stores.ops.engine import NUMBER, REVISION, _create_tables, make_engine
from mlops_pipeline.stores.ops.tables import DECLARED
from mlops_pipeline_tests.lifecycle.rollout_steps import approve, open_waiting
from mlops_pipeline_tests.stores.ops.timestamps import NOON

OPEN_WHEN_TOLD = """
import sys
from mlops_pipeline.stores.ops import OpsDatabase
print("ready", flush=True)
sys.stdin.readline()
OpsDatabase.open(sys.argv[1]).close()
"""

OPEN_WITHOUT_ALEMBIC = """
import sys
sys.modules["alembic"] = None  # importing it raises
from mlops_pipeline.stores.ops import OpsDatabase
OpsDatabase.open(sys.argv[1]).close()
"""


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    engine = make_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def test_created_schema_is_what_tables_declare(url: str) -> None:
    OpsDatabase.open(url).close()
    with engine_of(url) as engine, engine.begin() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
        assert [change for change in found if change[1].name != NUMBER.name] == []


def test_open_empty_database_from_four_processes_creates_it_once(empty_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", OPEN_WHEN_TOLD, empty_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=20)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], errors
    with engine_of(empty_url) as engine, engine.begin() as connection:
        versions = connection.scalars(text("SELECT revision FROM ledger_schema")).all()
        assert versions == [REVISION]


def test_open_database_does_not_import_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ops.db"
    OpsDatabase.open(url).close()
    command = [sys.executable, "-c", OPEN_WITHOUT_ALEMBIC, url]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_creation_that_fails_leaves_nothing(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create_then_fail(connection: Connection) -> None:
        _create_tables(connection)
        raise RuntimeError("power cut")

    monkeypatch.setattr("mlops_pipeline.stores.ops.engine._create_tables", create_then_fail)
    with pytest.raises(RuntimeError, match="power cut"):
        OpsDatabase.open(empty_url)
    with engine_of(empty_url) as engine:
        assert inspect(engine).get_table_names() == []


def test_open_database_of_newer_version_says_so(empty_url: str) -> None:
    OpsDatabase.open(empty_url).close()
    with engine_of(empty_url) as engine:
        with engine.begin() as connection:
            connection.execute(text("UPDATE ledger_schema SET revision = 9999"))
        with pytest.raises(StateError, match="revision 9999"):
            OpsDatabase.open(empty_url)


def test_open_database_with_alembic_revisions_is_refused_with_a_way_out(empty_url: str) -> None:
    with engine_of(empty_url) as engine:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE alembic_version (version_num TEXT)"))
            connection.execute(text("CREATE TABLE rollout_event (id INTEGER)"))
        with pytest.raises(StateError, match=r"(?s)Alembic.*audit export.*MLOPS_DATABASE_URL"):
            OpsDatabase.open(empty_url)
        assert sorted(inspect(engine).get_table_names()) == ["alembic_version", "rollout_event"]


def test_sqlite_database_is_in_wal_mode(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ops.db"
    OpsDatabase.open(url).close()
    with engine_of(url) as engine, engine.begin() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"


@pytest.mark.parametrize("table", ["rollout_event", "approval", "audit_event", "gate_exception"])
def test_append_only_table_refuses_a_row_in_place_of_another(tmp_path: Path, table: str) -> None:
    records = metadata.tables[table]
    url = f"sqlite:///{tmp_path}/ops.db"  # PostgreSQL has no REPLACE
    with OpsDatabase.open(url) as database:
        open_waiting(database, 1)
        approve(database, "churn", 1, by="ada", reason="good", now=NOON)
        grant_exception(database, "churn", "r", by="ada", reason="b", expires_at=NOON, now=NOON)
    names = ", ".join(f'"{column.name}"' for column in records.columns)
    statement = f"INSERT OR REPLACE INTO {table} ({names}) SELECT {names} FROM {table}"
    with (
        engine_of(url) as engine,
        engine.connect() as connection,
        pytest.raises(DBAPIError, match="is append-only"),
    ):
        connection.execute(text(statement))


@pytest.mark.parametrize("table", ["rollout_event", "approval", "audit_event", "gate_exception"])
@pytest.mark.parametrize("change", ["update", "delete"])
def test_append_only_table_refuses_change(
    database: OpsDatabase, url: str, table: str, change: str
) -> None:
    records = metadata.tables[table]
    open_waiting(database, 1)
    approve(database, "churn", 1, by="ada", reason="good", now=NOON)
    grant_exception(database, "churn", "r", by="ada", reason="b", expires_at=NOON, now=NOON)
    column = "actor" if table == "audit_event" else "reason"
    changed = records.update().values({column: "changed"})
    statement = changed if change == "update" else records.delete()
    with engine_of(url) as engine:
        with engine.connect() as connection, pytest.raises(DBAPIError, match="is append-only"):
            connection.execute(statement)
        with engine.begin() as connection:
            assert (connection.scalar(select(func.count()).select_from(records)) or 0) > 0


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)  # SQLite has no TRUNCATE
@pytest.mark.parametrize("table", [item.table.name for item in DECLARED if item.append_only])
def test_append_only_table_refuses_to_be_truncated_itself_or_with_what_it_refers_to(
    empty_url: str, table: str
) -> None:
    with OpsDatabase.open(empty_url) as database:
        open_waiting(database, 1)
        approve(database, "churn", 1, by="ada", reason="good", now=NOON)
        grant_exception(database, "churn", "r", by="ada", reason="b", expires_at=NOON, now=NOON)
        create_key(database, "shop", ["read"], by="ada", expires_at=NOON + timedelta(1), now=NOON)
        for emptied in (table, f"{table} CASCADE", "rollout CASCADE"):
            refusal = pytest.raises(DBAPIError, match="is append-only")
            with database.engine.connect() as connection, refusal:
                connection.execute(text(f"TRUNCATE {emptied}"))
        with database.engine.connect() as connection:
            count = select(func.count()).select_from(metadata.tables[table])
            assert (connection.scalar(count) or 0) > 0


def test_database_of_the_first_revision_gets_the_triggers_it_lacks(empty_url: str) -> None:
    with OpsDatabase.open(empty_url) as database:
        open_waiting(database, 1)
        triggers = _triggers(database)
        on = "" if empty_url.startswith("sqlite") else " ON audit_event"
        lacking = "replace" if empty_url.startswith("sqlite") else "truncate"
        with database.engine.begin() as connection:
            connection.execute(text(f"DROP TRIGGER audit_event_no_{lacking}{on}"))
            connection.execute(text("UPDATE ledger_schema SET revision = 1"))
        assert _triggers(database) != triggers
    for _ in range(2):
        with OpsDatabase.open(empty_url) as database:
            assert _triggers(database) == triggers
            assert database.audit_head()[0] == 5  # opened, two records, and those of the revision
            with database.engine.begin() as connection:
                found = connection.scalar(text("SELECT revision FROM ledger_schema"))
                assert found == REVISION


def test_database_of_the_second_revision_gets_the_table_it_lacks(empty_url: str) -> None:
    with OpsDatabase.open(empty_url) as database:
        open_waiting(database, 1)
        triggers = _triggers(database)
        with database.engine.begin() as connection:
            connection.execute(text("DROP TABLE api_key"))
            connection.execute(text("UPDATE ledger_schema SET revision = 2"))
    with OpsDatabase.open(empty_url) as database:
        assert _triggers(database) == triggers
        assert list_keys(database) == []
        assert database.audit_head()[0] == 5


def _triggers(database: OpsDatabase) -> list[str]:
    query = (
        "SELECT name FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
        if database.url.startswith("sqlite")
        else "SELECT tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
        "WHERE relnamespace = current_schema()::regnamespace AND NOT tgisinternal ORDER BY tgname"
    )
    with database.engine.begin() as connection:
        return list(connection.scalars(text(query)))
