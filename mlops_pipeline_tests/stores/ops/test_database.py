from pathlib import Path

import pytest

from mlops_pipeline.errors import ConfigError
from mlops_pipeline.lifecycle.bookkeeping import get_pointer, set_pointer
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.stores.ops.timestamps import NOON


@pytest.mark.parametrize(
    "url_text",
    [
        "mysql://root@localhost/x",
        "sqlite://",
        "sqlite:///:memory:",
        "not a url",
        "",
        "postgresql+psycopg2://h/d",
    ],
)
def test_open_unsupported_url_says_what_is_supported(url_text: str) -> None:
    with pytest.raises(ConfigError, match=r"postgresql\+psycopg://"):
        OpsDatabase.open(url_text)


def test_open_server_that_is_not_there_hides_password() -> None:
    with pytest.raises(ConfigError, match="cannot be opened") as refusal:
        OpsDatabase.open("postgresql+psycopg://me:secret@127.0.0.1:1/ops")
    assert "secret" not in str(refusal.value)


def test_open_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    path = tmp_path / "ops.db"
    path.write_text("something else altogether, long enough to have a header\n" * 20)
    with pytest.raises(ConfigError, match="cannot be opened"):
        OpsDatabase.open(f"sqlite:///{path}")


def test_reopened_database_holds_what_was_written(url: str) -> None:
    with OpsDatabase.open(url) as database:
        set_pointer(database, "churn", "accepted", {"orders": 3}, run_id="run-1", now=NOON)
    with OpsDatabase.open(url) as database:
        found = get_pointer(database, "churn", "accepted")
    assert found is not None
    assert found.value == {"orders": 3}
