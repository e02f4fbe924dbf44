from pathlib import Path

import pyarrow as pa
import pytest
from deltalake.exceptions import SchemaMismatchError

from mlops_pipeline.stores.lake import Lake


def test_extend_adds_a_column_that_earlier_rows_lack(tmp_path: Path) -> None:
    from deltalake import DeltaTable

    lake = Lake(str(tmp_path))
    uri = lake.table_uri("churn", "predictions")
    reasons = pa.list_(pa.struct([("feature", pa.string())]))
    lake.write(uri, pa.table({"key": [1, 2]}), {"period": "a"}, "extend")
    newer = pa.table({"key": [3], "reasons": pa.array([[{"feature": "plan"}]], reasons)})
    lake.write(uri, newer, {"period": "b"}, "extend")
    rows = DeltaTable(uri).to_pyarrow_table().sort_by("key").to_pylist()
    assert [row["reasons"] for row in rows] == [None, None, [{"feature": "plan"}]]
    assert [item["period"] for item in lake.facts_of_commits(uri)] == ["a", "b"]


def test_append_refuses_a_new_column(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    uri = lake.table_uri("churn", "raw")
    lake.write(uri, pa.table({"key": [1]}), {}, "append")
    with pytest.raises(SchemaMismatchError):
        lake.write(uri, pa.table({"key": [2], "more": [1]}), {}, "append")
