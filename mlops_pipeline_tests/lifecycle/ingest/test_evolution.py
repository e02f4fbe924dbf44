"""A source whose columns come, go, become wider, or are in some files only."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mlops_pipeline.errors import SourceError
from mlops_pipeline.lifecycle.ingest.validation import validate_source
from mlops_pipeline_tests.lifecycle.ingest.good_visits import ROWS, TYPES
from mlops_pipeline_tests.lifecycle.ingest.test_ingestion import raw, take
from mlops_pipeline_tests.worlds import (
    NOW,
    World,
    arrow,
    assert_complete,
    on,
    shop_with,
    utc,
    visit,
)


def with_columns(world: World, columns: Mapping[str, Any], **source: Any) -> World:
    return replace(world, use_case=shop_with({"columns": columns, **source}))


@pytest.mark.parametrize("source", [{}, {"key": ["customer", "at"]}], ids=["no key", "key"])
def test_source_that_gains_loses_and_widens_columns_is_followed(
    tmp_path: Path, source: dict[str, Any]
) -> None:
    world = World(shop_with(source), tmp_path)
    world.deliver("visits", [visit(on(1, 1)), visit(on(1, 2), units=3)])
    with world.open() as work:
        take(work, on(1, 5))
    wider = with_columns(world, {**TYPES, "units": "float64", "shop": "string"}, **source)
    wider.withdraw("visits")
    wider.deliver(
        "visits",
        [visit(on(1, day), units=units, shop="a") for day, units in ((1, 1), (2, 3), (3, 0.5))],
    )
    with wider.open() as work:
        assert take(work, on(1, 5)).rows_added == 1
        assert take(work, on(1, 5)).rows_added == 0
        rows = [(row["units"], row["shop"]) for row in raw(work)]
        assert validate_source(work, "visits", now=NOW).passed
    assert rows == [(1.0, None), (3.0, None), (0.5, "a")]
    narrow = {
        key: kind for key, kind in wider.use_case.sources["visits"].columns.items() if key != "kind"
    }
    less = with_columns(wider, narrow, **source)
    less.withdraw("visits")
    less.deliver("visits", [visit(on(1, 3), units=0.5, shop="a"), visit(on(1, 4), shop="b")])
    less.deliver("visits", [visit(on(1, 3), units=7.5, shop="a")])
    with less.open() as work:
        found = take(work, on(1, 6))
        kinds = [(row["units"], row["shop"], row["kind"]) for row in raw(work)]
        assert validate_source(work, "visits", now=NOW).passed
    assert found.rows_added == 2
    assert kinds[:3] == [(1.0, None, "shop"), (3.0, None, "shop"), (0.5, "a", "shop")]
    assert sorted(kinds[3:]) == [(1.0, "b", None), (7.5, "a", None)]
    with wider.open() as work:  # the column is back
        world.withdraw("visits")
        wider.deliver("visits", [visit(on(1, 4), shop="b", units=1)])
        assert take(work, on(1, 6)).rows_added == 0


def test_other_change_of_a_type_says_what_to_do(world: World) -> None:
    world.deliver("visits", ROWS)
    with world.open() as work:
        take(work, on(2))
    texts = {**TYPES, "units": "string"}
    world.withdraw("visits")
    world.deliver_table("visits", arrow(texts, [visit(on(1), units="1")]))
    with with_columns(world, texts).open() as work, pytest.raises(SourceError) as caught:
        take(work, on(2))
    assert_complete(caught.value)
    assert caught.value.where == "sources.visits.columns.units"


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_optional_column_that_only_new_files_have_is_missing_before(
    tmp_path: Path, suffix: str
) -> None:
    columns = {**TYPES, "score": {"type": "float64", "optional": True}}
    world = World(shop_with({"columns": columns, "format": suffix}), tmp_path)
    rows = [visit(on(1, 1)), visit(on(1, 2), score=0.5)]
    for row in rows[:1], rows[1:]:
        if suffix == "csv":
            values = ",".join(str(value) for value in row[0].values())
            world.deliver_csv("visits", f"{','.join(row[0])}\n{values}\n")
        else:
            types = {**TYPES, "score": "float64"}
            world.deliver_table("visits", arrow({name: types[name] for name in row[0]}, row))
        with world.open() as work:
            take(work, on(2))
            assert validate_source(work, "visits", now=NOW).passed
    with world.open() as work:
        assert [row["score"] for row in raw(work)] == [None, 0.5]


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_nanoseconds_are_cut_off(world: World, zone: str | None) -> None:
    table = arrow(TYPES, [visit(on(1)), visit(on(1))])
    last = 1_740_787_199_999_999_900  # 100 ns before March
    times = pa.array([last, -1_001], pa.timestamp("ns", zone))
    for index, name in ((1, "at"), (2, "known")):
        table = table.set_column(index, name, times)
    world.deliver_table("visits", table)
    with world.open() as work:
        assert take(work, on(4)).watermark == utc(on(2, 28)).replace(
            hour=23, minute=59, second=59, microsecond=999_999
        )
        assert raw(work)[0]["at"].isoformat() == "1969-12-31T23:59:59.999998"
