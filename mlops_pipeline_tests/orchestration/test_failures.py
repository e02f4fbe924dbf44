import traceback

import duckdb
import pytest

from mlops_pipeline.errors import MlopsError, SourceError
from mlops_pipeline.orchestration.asset_run import without_values

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
