"""Answers put together by row number hold the values of those rows, whatever their type."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mlops_pipeline.lifecycle.features import history
from mlops_pipeline.lifecycle.features.history import LateGather, gather
from mlops_pipeline.stores.lake.engine import Engine, open_engine
from mlops_pipeline.stores.settings import Settings

VALUES = "SELECT n AS _row_no, n / 4.0::DOUBLE AS half, 'text ' || n AS word, n % 2 = 0 AS even"
NUMBERS = "(VALUES (3), (7), (9), (20)) numbers(n)"
SHOWN = {"row": "row", "half": "half", "said": "word", "even": "even"}


def gathered_in(folder: Path, rows: str, completed: str | None = None) -> pa.Table:
    settings = Settings.from_environment({"MLOPS_DATA_DIR": str(folder)})
    with open_engine(settings) as engine:
        return pa.concat_tables(found(engine, rows, completed))


def found(engine: Engine, rows: str, completed: str | None) -> list[Any]:
    job = LateGather(rows, {"row_of": f"{VALUES} FROM {NUMBERS}"}, completed, SHOWN)
    return list(gather(engine, job))


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_answers_in_any_chunk_are_the_values_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(history, "CHUNK_ROWS", chunk)
    rows = (
        "SELECT * FROM (VALUES (0, 9), (1, NULL), (2, 3), (3, 9)) asked(row, row_of) ORDER BY row"
    )
    assert gathered_in(tmp_path, rows).to_pydict() == {
        "row": [0, 1, 2, 3],
        "half": [2.25, None, 0.75, 2.25],
        "said": ["text 9", None, "text 3", "text 9"],
        "even": [False, None, False, False],
    }


def test_answers_completed_of_a_chunk_hold_what_is_made_of_the_values(tmp_path: Path) -> None:
    completed = "SELECT row, coalesce(half, -1) AS half, word, even FROM _chunk"
    rows = "SELECT * FROM (VALUES (0, 7), (1, NULL)) asked(row, row_of) ORDER BY row"
    assert gathered_in(tmp_path, rows, completed).column("half").to_pylist() == [1.75, -1.0]


def test_answers_to_no_rows_have_their_columns(tmp_path: Path) -> None:
    rows = "SELECT 0 AS row, 3 AS row_of WHERE false"
    answer = gathered_in(tmp_path, rows)
    assert (answer.num_rows, answer.column_names) == (0, list(SHOWN))
