"""The same rows in every layout that a source may have: what is stored is the same."""

import gzip
from collections.abc import Callable
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from mlops_pipeline.errors import SourceError
from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.ingest.ingestion import ingest_sources
from mlops_pipeline.stores.sources import open_delivery
from mlops_pipeline_tests.lifecycle.ingest.good_visits import GOOD_LINE, HEADER, TYPES
from mlops_pipeline_tests.lifecycle.ingest.test_ingestion import raw
from mlops_pipeline_tests.worlds import World, arrow, in_run, ingest_all, on, shop_with, visit

ROWS = [
    visit(on(1, day), day % 3, units=day % 2, kind="shop / x" if day % 2 else "web")
    for day in range(1, 9)
]
TABLE = arrow(TYPES, ROWS)


def flat(folder: Path) -> None:
    folder.mkdir()
    pq.write_table(TABLE, folder / "a.parquet")


def nested(folder: Path) -> None:
    (folder / "2025/01").mkdir(parents=True)
    (folder / "2025/02").mkdir(parents=True)
    pq.write_table(TABLE[:4], folder / "2025/01/a.parquet")
    pq.write_table(TABLE[4:], folder / "2025/02/a.parquet")
    (folder / "_SUCCESS").touch()
    (folder / ".hidden").mkdir()
    pq.write_table(TABLE, folder / ".hidden/a.parquet")


def partitioned(folder: Path) -> None:
    pa.dataset.write_dataset(
        TABLE, folder, format="parquet", partitioning=["units", "kind"], partitioning_flavor="hive"
    )


def zipped(folder: Path) -> None:
    for units in (0, 1):
        (folder / f"units={units}").mkdir(parents=True)
        rows = TABLE.filter(pa.compute.equal(TABLE["units"], units)).drop_columns(["units"])
        with gzip.open(folder / f"units={units}/a.csv.gz", "wb") as file:
            pa.csv.write_csv(rows, file)


def delta(folder: Path) -> None:
    deltalake.write_deltalake(folder, TABLE[:6], partition_by=["kind"])
    deltalake.write_deltalake(folder, TABLE[4:], mode="append")
    table = deltalake.DeltaTable(folder)
    table.delete("at >= '2025-01-05' and at < '2025-01-07'")  # rows 5 and 6 were there twice
    deltalake.write_deltalake(folder, TABLE[4:6], mode="append")


@pytest.mark.parametrize(
    ("layout", "source"),
    [
        (flat, {}),
        (nested, {}),
        (nested, {"uri": "visits/*"}),
        (partitioned, {}),
        (partitioned, {"uri": "visits/units=*"}),
        (zipped, {"format": "csv"}),
        (delta, {"format": "delta"}),
    ],
)
def test_every_layout_of_the_same_rows_is_stored_alike(
    tmp_path: Path, layout: Callable[[Path], None], source: dict[str, str]
) -> None:
    world = World(shop_with(source), tmp_path)
    world.folder.mkdir(exist_ok=True)
    layout(world.folder / "visits")
    with world.open() as work:
        found = ingest_all(work)["visits"]
        assert (found.rows_added, found.left_out) == (8, "")
        kept = [{name: row[name] for name in TYPES} for row in raw(work)]
        again = ingest_all(work)["visits"]
    assert kept == TABLE.to_pylist()
    assert (again.version, again.rows_added) == (found.version, 0)


def test_newest_version_of_a_delta_table_is_read_and_recorded(tmp_path: Path) -> None:
    world = World(shop_with({"format": "delta"}), tmp_path)
    world.folder.mkdir(exist_ok=True)
    folder = world.folder / "visits"
    deltalake.write_deltalake(folder, TABLE[:5])
    with world.open() as work:
        assert ingest_all(work)["visits"].rows == 5
    deltalake.write_deltalake(folder, TABLE[5:], mode="append")
    with world.open() as work:
        assert ingest_all(work)["visits"].rows_added == 3
        assert work.engine.reads[str(folder)] == {"version 1"}


def test_delta_table_that_is_not_there_is_asked_for(tmp_path: Path) -> None:
    world = World(shop_with({"format": "delta"}), tmp_path)
    with world.open() as work, pytest.raises(SourceError) as caught:
        ingest_all(work)
    assert caught.value.expected == "the folder of a Delta table"
    flat(tmp_path / "flat")
    world.folder.mkdir(exist_ok=True)
    (tmp_path / "flat").rename(world.folder / "visits")
    with world.open() as work, pytest.raises(SourceError, match="not a Delta table"):
        ingest_all(work)


def test_copy_of_a_file_under_another_name_is_left_out_and_said(world: World) -> None:
    first = world.deliver("visits", ROWS)
    copy = first.with_name("z_copy.parquet")
    copy.write_bytes(first.read_bytes())
    with world.open() as work:
        (found,) = ingest_sources(in_run(work))
        assert found.rows == 8
        assert found.left_out == f"{copy}, whose content is that of {first}"
        (alert,) = list_alerts(in_run(work).ops, "shop")
    assert found.left_out in alert.message
    assert "remove copies" in alert.action


def test_equal_files_below_folders_of_other_values_are_two_deliveries(world: World) -> None:
    for units in (1, 2):
        folder = world.folder / f"visits/units={units}"
        folder.mkdir(parents=True)
        pq.write_table(TABLE.drop_columns(["units"]), folder / "a.parquet")
    with world.open() as work:
        assert ingest_all(work)["visits"].rows == 16


def test_csv_file_is_parsed_once_however_often_its_rows_are_looked_at(csv_world: World) -> None:
    path = csv_world.deliver_csv("visits", HEADER + GOOD_LINE * 3)
    with csv_world.open() as work:
        delivery = open_delivery(work.engine, work.settings, work.use_case, "visits")
        path.unlink()
        assert len(work.engine.query(delivery.placed)) == 3
