import sqlite3
import traceback
from contextlib import closing

import duckdb
import pytest

from mlops_pipeline.errors import MachineError, MlopsError, SourceError
from mlops_pipeline.orchestration.asset_run import without_values
from mlops_pipeline_tests.world import World

SECRET = "Rumpelstilzchen"


def said(error: BaseException) -> str:
    """What Dagster would store: the error, its traceback and its causes."""
    return "".join(traceback.format_exception(error))


def test_error_of_a_library_passes_without_the_value_that_it_quotes() -> None:
    with pytest.raises(MlopsError) as caught, without_values():
        duckdb.execute(f"SELECT CAST(x AS INTEGER) FROM (VALUES ('{SECRET}')) AS t(x)").fetchall()
    assert SECRET not in str(caught.value)
    assert SECRET not in said(caught.value)
    assert "ConversionException" in str(caught.value)
    assert "test_failures.py" in said(caught.value)


def _refuse(error: SourceError) -> None:
    try:
        float(SECRET)
    except ValueError as cause:
        raise error from cause


def test_error_of_ours_passes_without_its_cause() -> None:
    ours = SourceError("the file cannot be read")
    with pytest.raises(SourceError) as caught, without_values():
        _refuse(ours)
    assert caught.value is ours
    assert SECRET not in said(caught.value)


def test_error_about_code_passes_as_it_is() -> None:
    with pytest.raises(AttributeError, match="'NoneType' object has no"), without_values():
        None.rows  # type: ignore[attr-defined] # noqa: B018


def test_error_of_the_machine_passes_with_its_path() -> None:
    with pytest.raises(MachineError, match="no room left on a disk") as caught, without_values():
        raise OSError(28, "No space left on device", "/data/lake/x")
    assert "'/data/lake/x'" in str(caught.value)


def test_run_whose_alert_cannot_be_stored_says_all_the_same_why_it_failed(world: World) -> None:
    (world.data / "sources" / "churn" / "accounts.parquet").write_bytes(b"PAR1")
    with closing(sqlite3.connect(world.data / "ops.db")) as connection, connection:
        full = "SELECT RAISE(ABORT, 'database or disk is full')"
        connection.execute(f"CREATE TRIGGER full BEFORE INSERT ON alert BEGIN {full}; END")
    run = world.start(assets=["raw_data"])
    assert run.wait() != 0
    assert "churn/raw_data failed: the file cannot be read as parquet. What to do" in run.text()
    assert "there is no room left on a disk" in run.text()
