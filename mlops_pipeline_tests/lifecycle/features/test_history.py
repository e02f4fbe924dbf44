"""Historical features equal the finished periods, at their moments and for their entities."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.errors import DataError, MlopsError, NotFoundError
from mlops_pipeline.lifecycle.bookkeeping import feature_uses, set_pointer
from mlops_pipeline.lifecycle.features import history as module
from mlops_pipeline.lifecycle.features.history import (
    feature_names,
    get_historical_features,
    select_features,
    write_historical_features,
)
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.lifecycle.features.test_incremental import (
    MONTHS,
    case_of,
    feature_rows,
    live_through,
)
from mlops_pipeline_tests.worlds import (
    VISITS,
    Row,
    World,
    accept_all,
    ingest_all,
    on,
    shop,
    utc,
    visit,
)


def accepted_pointer(world: World) -> None:
    with world.open() as work:
        found = {name: item.to_dict() for name, item in accept_all(work, utc(MONTHS[-1])).items()}
    with OpsDatabase.open(world.settings.database_url) as ops:
        set_pointer(ops, "shop", "accepted", found, run_id="test", now=utc(MONTHS[-1]))


@pytest.fixture(scope="module", params=["month", "event"])
def lived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world with late rows, duplicates and revisions, and the pointer to what was accepted."""
    world = World(case_of(request.param), tmp_path_factory.mktemp("history"))
    live_through(world, seed=1)
    accepted_pointer(world)
    return world


@pytest.fixture(scope="module")
def finished(lived: World) -> list[Row]:
    with lived.open() as work:
        return feature_rows(work)


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE_VALUES", 100)


def asked_of(rows: list[Row]) -> pa.Table:
    return pa.table(
        {
            "customer": pa.array([row["customer"] for row in rows], pa.int64()),
            "as_of": pa.array([row["as_of"] for row in rows], pa.timestamp("us")),
            "note": [f"row {number}" for number in range(len(rows))],
        }
    )


@pytest.mark.usefixtures("small_slices")
def test_history_at_the_moments_of_finished_periods_equals_them(
    lived: World, finished: list[Row]
) -> None:
    case = lived.use_case
    backwards = finished[::-1]
    found = get_historical_features(
        case, asked_of(backwards), case.features, settings=lived.settings
    )
    assert found.column_names == ["customer", "as_of", "note", *case.features]
    assert found.column("note").to_pylist() == [f"row {n}" for n in range(len(backwards))]
    for name in case.features:
        expected = [row[name] for row in backwards]
        assert found.column(name).to_pylist() == expected, name


def test_history_of_an_unknown_entity_stays_with_missing_values(lived: World) -> None:
    frame = pd.DataFrame({"customer": [99], "as_of": [pd.Timestamp("2025-03-01")]})
    names = ["tier", "visits_30"]
    found = get_historical_features(lived.use_case, frame, names, settings=lived.settings)
    assert found["customer"].tolist() == [99]
    assert found["tier"].isna().all()
    assert found["visits_30"].tolist() == [0]


@pytest.mark.parametrize("values", [10_000_000, 100], ids=["one slice", "slices"])
def test_history_by_file_equals_history_by_table(
    lived: World,
    finished: list[Row],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: int,
) -> None:
    rows = asked_of(finished[:20])
    pq.write_table(rows, tmp_path / "rows.parquet")
    names = list(lived.use_case.features)
    expected = get_historical_features(lived.use_case, rows, names, settings=lived.settings)
    out = tmp_path / "out.parquet"
    monkeypatch.setattr(module, "SLICE_VALUES", values)
    count = write_historical_features(
        lived.use_case, tmp_path / "rows.parquet", names, out, settings=lived.settings
    )
    assert count == 20
    order = [("customer", "ascending"), ("as_of", "ascending"), ("note", "ascending")]
    assert pq.read_table(out).sort_by(order).equals(expected.sort_by(order))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_history_of_a_file_without_rows_is_a_file_without_rows(
    lived: World, tmp_path: Path
) -> None:
    pq.write_table(asked_of([]), tmp_path / "rows.parquet")
    names, out = ["tier", "visits_30"], tmp_path / "out.parquet"
    count = write_historical_features(
        lived.use_case, tmp_path / "rows.parquet", names, out, settings=lived.settings
    )
    assert count == 0
    assert pq.read_table(out).column_names == ["customer", "as_of", "note", *names]


@pytest.mark.parametrize("unit", ["s", "us", "ns"])  # pandas has nanoseconds
def test_history_of_aware_times_reads_them_as_utc(
    lived: World, finished: list[Row], unit: str
) -> None:
    rows = asked_of(finished[:5])
    aware = rows.set_column(1, "as_of", rows.column("as_of").cast(pa.timestamp(unit, "UTC")))
    names = list(lived.use_case.features)
    one, other = (
        get_historical_features(lived.use_case, table, names, settings=lived.settings)
        for table in (rows, aware)
    )
    assert one.select(names).equals(other.select(names))


def test_history_leaves_the_columns_and_index_of_the_caller_as_they_are(
    lived: World, finished: list[Row]
) -> None:
    big = 2**53 + 1
    given = asked_of(finished[:3]).to_pandas().set_index(pd.Index(["b", "a", "a"], name="who"))
    given["account"] = pd.array([big, None, big + 2], dtype="Int64")
    given["level"] = pd.Categorical(["low", None, "low"])
    given["odd"] = [{1}, "text", 2.5]
    given["as_of"] = given["as_of"].dt.tz_localize("UTC")
    names = list(lived.use_case.features)
    found = get_historical_features(lived.use_case, given, names, settings=lived.settings)
    pd.testing.assert_frame_equal(found[list(given.columns)], given)
    assert list(found.columns) == [*given.columns, *names]


def test_history_is_a_use_of_its_features(lived: World, finished: list[Row]) -> None:
    name = next(iter(lived.use_case.features))
    get_historical_features(
        lived.use_case, asked_of(finished[:1]), [f"customer:{name}"], settings=lived.settings
    )
    with OpsDatabase.open(lived.settings.database_url) as ops:
        uses = {use.feature for use in feature_uses(ops, "shop") if use.reader == "history"}
    assert name in uses


def bad_input(lived: World) -> dict[str, tuple[pa.Table, type[MlopsError], str]]:
    good = pa.table({"customer": [1], "as_of": pa.array([on(3)], pa.timestamp("us"))})
    later = lived.settings.now() + timedelta(days=1)
    return {
        "no key": (good.drop_columns(["customer"]), DataError, "lack a column"),
        "no as_of": (good.drop_columns(["as_of"]), DataError, "lack a column"),
        "text as_of": (good.set_column(1, "as_of", pa.array(["x"])), DataError, "no time"),
        "null key": (
            good.set_column(0, "customer", pa.array([None], pa.int64())),
            DataError,
            "lack their entity",
        ),
        "future": (
            good.set_column(1, "as_of", pa.array([later], pa.timestamp("us", "UTC"))),
            DataError,
            "in the future",
        ),
    }


@pytest.mark.parametrize("kind", ["no key", "no as_of", "text as_of", "null key", "future"])
def test_history_of_bad_rows_says_what_is_wrong(lived: World, kind: str) -> None:
    rows, error, message = bad_input(lived)[kind]
    with pytest.raises(error, match=message):
        get_historical_features(
            lived.use_case, rows, lived.use_case.features[:1], settings=lived.settings
        )


@pytest.mark.parametrize(
    "key",
    ["abc", "17.6", "1e3", "1_000", 17.6, float("inf"), 2.0**53 + 2, True],
    ids=str,
)
def test_history_of_a_key_that_is_no_whole_number_is_refused(lived: World, key: Any) -> None:
    rows = pa.table({"customer": [key], "as_of": pa.array([on(3)], pa.timestamp("us"))})
    with pytest.raises(DataError, match="no whole number"):
        get_historical_features(
            lived.use_case, rows, lived.use_case.features[:1], settings=lived.settings
        )


def test_history_of_keys_as_text_or_floats_is_that_of_whole_numbers(
    lived: World, finished: list[Row]
) -> None:
    rows, name = asked_of(finished[:9]), lived.use_case.features[0]
    keys = rows.column("customer")
    values = []
    for kind in (pa.int64(), pa.string(), pa.float64()):
        given = rows.set_column(0, "customer", keys.cast(kind))
        found = get_historical_features(lived.use_case, given, [name], settings=lived.settings)
        values.append(found.column(name).to_pylist())
    assert values[0] == values[1] == values[2] == [row[name] for row in finished[:9]]


def test_history_of_a_csv_reads_keys_of_text_as_they_stand(tmp_path: Path) -> None:
    source = {**VISITS, "columns": {**VISITS["columns"], "customer": "string"}}
    world = World(shop(sources={"visits": source}), tmp_path)
    visits = [visit(on(2, day), customer=key) for day, key in ((1, "007"), (2, "7"), (3, "7"))]
    world.deliver("visits", visits)
    with world.open() as work:
        ingest_all(work, utc(MONTHS[-1]))
    accepted_pointer(world)
    rows = tmp_path / "rows.csv"
    rows.write_text("customer,as_of\n007,2025-03-01\n7,2025-03-01\n")
    out = tmp_path / "out.parquet"
    write_historical_features(world.use_case, rows, ["visits"], out, settings=world.settings)
    assert sorted(pq.read_table(out).column("visits").to_pylist()) == [1, 2]


def test_unknown_feature_names_the_nearest(lived: World) -> None:
    name = lived.use_case.features[0]
    with pytest.raises(NotFoundError, match=f"customer:{name}"):
        feature_names(lived.use_case, [f"{name}x"])
    assert feature_names(lived.use_case, [f"customer:{name}", name]) == (name,)


def test_history_without_accepted_data_says_what_to_run(tmp_path: Path) -> None:
    world = World(shop(), tmp_path)
    rows = pa.table({"customer": [1], "as_of": pa.array([on(3)], pa.timestamp("us"))})
    with pytest.raises(NotFoundError, match="mlops run shop"):
        get_historical_features(world.use_case, rows, ["visits"], settings=world.settings)


def test_select_features_keeps_what_derived_features_are_made_of() -> None:
    case = shop(
        views={
            "history": {
                "source": "visits",
                "columns": {
                    "paid": {"aggregate": "sum", "of": "amount"},
                    "visits": {"aggregate": "count"},
                    "other": {"aggregate": "count"},
                },
            }
        },
        derived={"mean": {"expression": "paid / visits"}, "twice": {"expression": "2 * mean"}},
    )
    assert set(select_features(case, ["twice"]).features) == {"paid", "visits", "mean", "twice"}
    assert select_features(case, ["other"]).features == ("other",)


def test_request_time_features_need_the_columns_of_the_request(tmp_path: Path) -> None:
    case: UseCase = shop(
        grid={"every": "event"},
        views={
            "request": {
                "source": "visits",
                "request_time": True,
                "columns": {"asked": {"of": "amount * units", "precision": 2}},
            }
        },
    )
    world = World(case, tmp_path)
    world.deliver("visits", [visit(on(1, 5))])
    with world.open() as work:
        ingest_all(work, utc(MONTHS[-1]))
    accepted_pointer(world)
    rows = pa.table({"customer": [1], "as_of": pa.array([on(3)], pa.timestamp("us"))})
    with pytest.raises(DataError, match="amount, units"):
        get_historical_features(case, rows, ["asked"], settings=world.settings)
    for units in (3.5, "3.5", True):
        wrong = rows.append_column("amount", pa.array([2.5])).append_column("units", [[units]])
        with pytest.raises(DataError, match="units is no whole number"):
            get_historical_features(case, wrong, ["asked"], settings=world.settings)
    text = rows.append_column("amount", [["2.5"]]).append_column("units", [["3"]])
    found = get_historical_features(case, text, ["asked"], settings=world.settings)
    assert found.column("asked").to_pylist() == [7.5]
    whole = rows.append_column("amount", pa.array([2.5])).append_column("units", pa.array([3]))
    found = get_historical_features(case, whole, ["asked"], settings=world.settings)
    assert found.column("asked").to_pylist() == [7.5]


def test_settings_default_to_the_environment(
    lived: World, finished: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_DATA_DIR", str(lived.folder))
    monkeypatch.setenv("MLOPS_NOW", lived.settings.now().isoformat())
    rows, names = asked_of(finished[:3]), list(lived.use_case.features)
    given = replace(lived.settings, threads=1)
    found = get_historical_features(lived.use_case, rows, names)
    assert found.equals(get_historical_features(lived.use_case, rows, names, settings=given))
