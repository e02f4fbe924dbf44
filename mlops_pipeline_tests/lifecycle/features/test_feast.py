"""The folder of a Feast feature repository and the definitions in it; Feast is not needed here."""

import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mlops_pipeline.errors import ConfigError, NotFoundError, StateError
from mlops_pipeline.lifecycle.features.feast import export_feast, exported_views
from mlops_pipeline_tests.lifecycle.features.feast_world import (
    DERIVED,
    HISTORY,
    PLAN,
    TTL_DAYS,
    VISIT,
    exported,
    monthly,
)
from mlops_pipeline_tests.worlds import World, advance, assert_complete, on, utc


def test_export_of_the_same_table_changes_nothing(tmp_path: Path) -> None:
    first = exported(monthly(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    with World(monthly(), tmp_path / "data").open() as work:
        again = export_feast(work, first.folder)
    assert (first.is_new, again.is_new) == (True, False)
    assert again.rows == first.rows
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")} == before
    assert "feast" not in sys.modules


def test_export_of_another_description_replaces_the_definitions(tmp_path: Path) -> None:
    first = exported(monthly(), tmp_path)
    other = monthly(views={"history": {**HISTORY, "description": "Other."}, "plan": PLAN})
    with World(other, tmp_path / "data").open() as work:
        assert export_feast(work, first.folder).is_new
    assert "'Other.'" in (first.folder / "features.py").read_text()


def test_export_holds_no_protected_attribute(tmp_path: Path) -> None:
    folder = exported(monthly(), tmp_path).folder
    columns = {name for path in folder.rglob("*.parquet") for name in pq.read_schema(path).names}
    assert {"customer", "spent", "tier", "spent_a_visit"} < columns
    assert "region" not in columns
    assert "region" not in (folder / "features.py").read_text()


@pytest.mark.parametrize("moved", [(), ("state",)], ids=["before-the-state", "after-the-state"])
def test_export_after_a_killed_one_keeps_what_feast_stored(
    tmp_path: Path, moved: tuple[str, ...]
) -> None:
    folder = exported(monthly(), tmp_path).folder
    (folder / "state" / "registry.db").write_text("Feast's own")
    old, new = (tmp_path / f".feast.{name}" for name in ("old", "new"))
    folder.rename(old)
    new.mkdir()
    for name in moved:
        (old / name).rename(new / name)
    with World(monthly(), tmp_path / "data").open() as work:
        assert not export_feast(work, folder).is_new
    assert (folder / "state" / "registry.db").read_text() == "Feast's own"
    assert not old.exists()
    assert not new.exists()


def test_export_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    folder = exported(monthly(), tmp_path).folder
    definitions = (folder / "features.py").read_text()
    unknown = monthly(views={"history": HISTORY}, derived={})
    with World(unknown, tmp_path / "data").open() as work:
        advance(work, utc(on(4)))
        (tmp_path / ".feast.new").write_text("in the way")
        with pytest.raises(FileExistsError):
            export_feast(work, folder)
    assert (folder / "features.py").read_text() == definitions


def test_export_into_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "feast").mkdir()
    (tmp_path / "feast" / "letters.txt").write_text("mine")
    with pytest.raises(StateError) as error:
        exported(monthly(), tmp_path)
    assert_complete(error.value)
    assert (tmp_path / "feast" / "letters.txt").read_text() == "mine"


def test_export_without_features_is_refused(tmp_path: Path) -> None:
    with World(monthly(), tmp_path).open() as work, pytest.raises(NotFoundError) as error:
        export_feast(work, tmp_path / "feast")
    assert_complete(error.value)
    assert not (tmp_path / "feast").exists()


def test_views_of_an_event_grid_are_online_only_where_a_materialized_value_is_right() -> None:
    views = {
        "history": {**HISTORY, "refresh": "daily", "online": True},
        "plan": PLAN,
        "visit": VISIT,
    }
    derived = {**DERIVED, "share": {"expression": "amount_now / nullif(spent_a_visit, 0)"}}
    use_case = monthly(grid={"every": "event", "period": "month"}, views=views, derived=derived)
    online = {view.name: view.online for view in exported_views(use_case)}
    assert online == {"history": True, "plan": False, "visit": False, "derived": False}


def test_derived_view_lives_as_long_as_the_shortest_of_its_parts() -> None:
    views = exported_views(monthly(views={"history": HISTORY, "plan": {**PLAN, "ttl_days": 90}}))
    assert {view.name: view.ttl_days for view in views} == {
        "history": TTL_DAYS,
        "plan": 90,
        "derived": TTL_DAYS,
    }


@pytest.mark.parametrize("name", ["event_timestamp", "created_timestamp", "spent_y"])
def test_feature_with_a_name_that_feast_loses_is_refused(name: str) -> None:
    columns = {name: {"aggregate": "count", "dtype": "int64"}}
    use_case = monthly(views={"history": {"source": "visits", "columns": columns}}, derived={})
    with pytest.raises(ConfigError) as error:
        exported_views(use_case)
    assert_complete(error.value)


def test_view_with_the_name_of_the_derived_ones_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        exported_views(monthly(views={"history": HISTORY, "derived": PLAN}))
    assert_complete(error.value)
