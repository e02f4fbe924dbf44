"""Every test runs on a SQLite file and on a throw-away schema of a real PostgreSQL server."""

import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, NullPool, create_engine, make_url, text

from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.ops.declarations import metadata

# Their owner can disable the triggers; a TRUNCATE costs several files for each table and index.
EMPTY_USED_TABLES = "DO $$ BEGIN {} {} {} END $$".format(
    *(
        " ".join(template.format(table.name) for table in reversed(metadata.sorted_tables))
        for template in (
            "ALTER TABLE {} DISABLE TRIGGER USER;",
            "IF EXISTS (SELECT FROM {0}) THEN TRUNCATE {0} RESTART IDENTITY CASCADE; END IF;",
            "ALTER TABLE {} ENABLE TRIGGER USER;",
        )
    )
)
LOCAL_POSTGRES = "postgresql+psycopg://root@127.0.0.1:5432/test"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated database without rows."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        yield f"sqlite:///{shutil.copy(template, tmp_path)}"
        return
    schema_url: str = request.getfixturevalue("postgres_schema_url")
    yield schema_url
    _execute(make_url(schema_url), EMPTY_USED_TABLES)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/new/ops.db"
        return
    yield from _throw_away_schema()


@pytest.fixture
def database(url: str) -> Iterator[OpsDatabase]:
    with OpsDatabase.open(url) as opened:
        yield opened


@pytest.fixture(scope="module")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "ops.db"
    OpsDatabase.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="module")
def postgres_schema_url() -> Iterator[str]:
    for schema_url in _throw_away_schema():
        OpsDatabase.open(schema_url).close()
        yield schema_url


def _throw_away_schema() -> Iterator[str]:
    server = _postgres_server()
    schema = f"opsdb_{uuid.uuid4().hex}"
    _execute(server, f"CREATE SCHEMA {schema}")
    try:
        options = f"-csearch_path={schema} -csynchronous_commit=off"  # no test cuts the power
        in_schema = server.update_query_dict({"options": options})
        yield in_schema.render_as_string(hide_password=False)
    finally:
        _execute(server, f"DROP SCHEMA {schema} CASCADE")


def _postgres_server() -> URL:
    given = os.environ.get("MLOPS_TEST_POSTGRES_URL")
    if given:
        return make_url(given)
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", 5432)) == 0:
            return make_url(LOCAL_POSTGRES)
    reason = "MLOPS_TEST_POSTGRES_URL is not set and nothing listens on 127.0.0.1:5432"
    if os.environ.get("MLOPS_REQUIRE_SERVICES") == "1":
        pytest.fail(f"MLOPS_REQUIRE_SERVICES=1, but {reason}")
    pytest.skip(reason)


def _execute(server: URL, statement: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
