"""How tables of the lake are written."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import SchemaMismatchError

from mlops_pipeline.stores.lake.tables import Lake


def test_extend_adds_a_column_that_earlier_rows_lack(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    uri = lake.table_uri("churn", "predictions")
    reasons = pa.list_(pa.struct([("feature", pa.string())]))
    lake.write(uri, pa.table({"key": [1, 2]}), {"period": "a"}, "extend")
    newer = pa.table({"key": [3], "reasons": pa.array([[{"feature": "plan"}]], reasons)})
    lake.write(uri, newer, {"period": "b"}, "extend")
    rows = DeltaTable(uri).to_pyarrow_table().sort_by("key").to_pylist()
    assert [row["reasons"] for row in rows] == [None, None, [{"feature": "plan"}]]
    assert [item["period"] for item in lake.commit_metadata(uri)] == ["a", "b"]


def test_append_refuses_a_new_column(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    uri = lake.table_uri("churn", "raw")
    lake.write(uri, pa.table({"key": [1]}), {}, "append")
    with pytest.raises(SchemaMismatchError):
        lake.write(uri, pa.table({"key": [2], "more": [1]}), {}, "append")


def test_write_makes_dictionaries_of_texts_only(tmp_path: Path) -> None:
    numbers = range(1000)
    rows = pa.table(
        {
            "count": pa.array(numbers, pa.int64()),
            "amount": pa.array(numbers, pa.float64()),
            "a.kind": pa.array([str(number % 3) for number in numbers]),
        }
    )
    lake = Lake(str(tmp_path))
    lake.write(lake.table_uri("shop", "raw", "visits"), rows, {}, "append")
    (file,) = DeltaTable(lake.table_uri("shop", "raw", "visits")).file_uris()
    group = pq.ParquetFile(file).metadata.row_group(0)
    made = {
        group.column(index).path_in_schema: group.column(index).has_dictionary_page
        for index in range(group.num_columns)
    }
    assert made == {"count": False, "amount": False, "a.kind": True}


def test_log_holds_no_values_of_other_columns_than_as_of_and_row_number(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    uri = lake.table_uri("shop", "raw", "visits")
    rows = {
        "name": ["Rumpelstilzchen"],
        "_row_no": [0],
        "_superseded_at": pa.array([None], pa.int64()),
    }
    lake.write(uri, pa.table(rows), {}, "append")
    revised = {**rows, "_superseded_at": [7], "_is_stored": [True]}
    lake.supersede(uri, pa.table(revised), {})
    lake.write(uri, pa.table(rows), {}, "overwrite")
    DeltaTable(uri).create_checkpoint()
    log = Path(uri) / "_delta_log"
    text = "".join(path.read_text() for path in log.glob("*.json"))
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    text += str(pq.read_table(checkpoint).to_pylist())
    assert "_row_no" in text
    assert "Rumpelstilzchen" not in text
