"""How tables of the lake are written."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from mlops_pipeline.stores.lake import Lake


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
