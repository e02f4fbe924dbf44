"""The order of rows of the same time, and what is known of a date."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.errors import DataError
from mlops_pipeline.lifecycle.context import Context, Snapshot
from mlops_pipeline.lifecycle.features.leak_check import leak_check
from mlops_pipeline.lifecycle.features.offline import load_frame
from mlops_pipeline_tests.lifecycle.ingest.test_ingestion import raw, take
from mlops_pipeline_tests.worlds import (
    TICK,
    VISITS,
    World,
    accept_all,
    advance,
    on,
    shop,
    shop_with,
    stored_rows,
    utc,
    visit,
)


def kinds(work: Context) -> list[str]:
    return [row["kind"] for row in raw(work)]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("source", [{}, {"key": ["kind"]}], ids=["no key", "key"])
def test_rows_of_the_same_time_are_numbered_as_they_were_delivered(
    tmp_path: Path, suffix: str, source: dict[str, Any]
) -> None:
    world = World(shop_with({**source, "format": suffix}), tmp_path)
    given = [[f"{file}{row * 7 % 40}" for row in range(40)] for file in "zay"]
    for names in given:
        rows = [visit(on(1, 2), kind=name) for name in names]
        if suffix == "parquet":
            world.deliver("visits", rows)
        else:
            lines = [",".join(str(value) for value in row.values()) for row in rows]
            world.deliver_csv("visits", "\n".join([",".join(rows[0]), *lines]))
    with world.open() as work:
        take(work, on(2))
        assert kinds(work) == [name for names in given for name in names]


def test_rows_of_the_same_time_in_a_later_delivery_come_after_those_before(world: World) -> None:
    world.deliver("visits", [visit(on(1, 2), kind=name) for name in "db"])
    with world.open() as work:
        take(work, on(2))
        world.deliver("visits", [visit(on(1, 2), kind=name) for name in "cbaa"])
        assert take(work, on(2)).rows_added == 4
        assert kinds(work) == [*"dbcbaa"]
        world.withdraw("visits")
        world.deliver("visits", [visit(on(1, 2), kind=name) for name in "dbzcbaaxa"])
        assert take(work, on(2)).rows_added == 3
        assert kinds(work) == [*"dbcbaazxa"]


def test_last_of_rows_of_the_same_time_is_the_last_delivered_at_any_hour(tmp_path: Path) -> None:
    last = {"aggregate": "last", "of": "kind", "dtype": "string"}
    case = shop(views={"history": {"source": "visits", "columns": {"kind": last}}})
    for hour in (0, 5):
        world = World(case, tmp_path / str(hour))
        rows = [
            visit(on(1, 2, hour), customer, kind=kind)
            for kind in ("first", "second")
            for customer in range(200)
        ]
        world.deliver("visits", rows)
        with world.open() as work:
            built = advance(work, utc(on(2)))
            found = stored_rows(work, built.uri, order="customer")
        assert {row["kind"] for row in found} == {"second"}


# dates


def daily_case(**source: Any) -> UseCase:
    columns = {"customer": "int64", "day": "date", "known": "timestamp", "total": "float64"}
    totals = {**VISITS, "uri": "totals", "columns": columns, "event_time": "day"}
    totals["available_at"] = None
    total = {"aggregate": "last", "of": "total", "window_days": 30}
    return shop(
        grid={"every": "event", "period": "day"},
        sources={"visits": VISITS, "totals": {**totals, **source}},
        views={"day": {"source": "totals", "columns": {"total": total}}},
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [({}, [1.0, 2.0]), ({"available_at": "known"}, [2.0, 2.0])],
    ids=["the end of the day", "as the source says"],
)
def test_a_date_is_known_at_the_end_of_its_day(
    tmp_path: Path, source: dict[str, Any], expected: list[float]
) -> None:
    world = World(daily_case(**source), tmp_path)
    world.deliver("visits", [visit(on(1, 3, 9)), visit(on(1, 4))])
    days = [{"customer": 1, "day": on(1, day), "known": on(1, day, 8)} for day in (2, 3)]
    world.deliver("totals", [{**row, "total": 1.0 + n} for n, row in enumerate(days)])
    with world.open() as work:
        built = advance(work, utc(on(1, 5)))
        found = stored_rows(work, built.uri, order="as_of")
        assert [row["total"] for row in found] == expected
        assert leak_check(work, accept_all(work)).passed


def test_a_time_in_a_date_is_dropped(tmp_path: Path) -> None:
    for suffix in ("parquet", "csv"):
        world = World(daily_case(format=suffix), tmp_path / suffix)
        world.deliver("visits", [visit(on(1, 3, 9))])
        if suffix == "csv":
            text = "customer,day,known,total\n1,2025-01-02 13:00,2025-01-02,1"
            world.deliver_csv("totals", text)
        else:
            moments = pa.array([on(1, 2, 13)], pa.timestamp("us"))
            world.deliver_table(
                "totals",
                pa.table({"customer": [1], "day": moments, "known": moments, "total": [1.0]}),
            )
        with world.open() as work:
            take(work, on(2), source="totals")
            (row,) = raw(work, "totals")
        assert (row["day"], row["_available_at"]) == (on(1, 2), on(1, 3) - TICK)


def test_a_label_of_a_date_is_known_at_the_end_of_the_day(tmp_path: Path) -> None:
    columns = {**VISITS["columns"], "judged": "date"}
    case = shop(
        grid={"every": "event", "period": "day"},
        sources={"visits": {**VISITS, "columns": columns}},
        label={"kind": "column", "source": "visits", "column": "units", "available_at": "judged"},
    )
    world = World(case, tmp_path)
    world.deliver("visits", [visit(on(1, 2, 9), judged=on(1, 4))])
    with world.open() as work:
        advance(work, utc(on(1, 5)))
        with pytest.raises(DataError, match="no labelled row"):
            load_frame(work, Snapshot(utc(on(1, 4)), accept_all(work)))
        assert len(load_frame(work, Snapshot(utc(on(1, 5)), accept_all(work)))) == 1
