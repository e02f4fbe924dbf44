"""Feature frames against the plain oracle, on small random sets of events."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import ibis
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from mlops_pipeline.config import UseCase
from mlops_pipeline.core.data.periods import Period
from mlops_pipeline.core.features.frames import EVENT_ROW, RowGuarantees, feature_frame
from mlops_pipeline_tests.core.features.frame_worlds import (
    AS_OF,
    END,
    REVISED,
    SOURCES,
    expected_on_events,
    expected_on_grid,
    use_case,
    worlds,
)
from mlops_pipeline_tests.core.features.oracle import Row
from mlops_pipeline_tests.sizes import size
from mlops_pipeline_tests.worlds import DAY, TICK, TYPES, on, shop, utc

POINT = Period(utc(AS_OF), utc(AS_OF))
MONTH_OF_EVENTS = Period(utc(AS_OF), utc(END))
WHOLE: dict[str, Any] = {
    "where": "kind != 'test'",
    "active_within_days": 60,
    "leaves_with": "exits",
}
EXAMPLES = settings(
    max_examples=size(12, 45),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Frames:
    """The frame of one use case and period: compiled once, run on many sets of rows."""

    def __init__(self, case: UseCase, period: Period) -> None:
        self.connection = ibis.duckdb.connect(threads=1)
        self.case = case
        for name in case.sources:
            self.fill(name, [])
        tables = {name: self.connection.table(name) for name in case.sources}
        frame = feature_frame(case, tables, period, RowGuarantees(revised=REVISED))
        row_key = EVENT_ROW if EVENT_ROW in frame.columns else "customer"
        self.query = self.connection.compile(frame.order_by(["as_of", row_key]))

    def fill(self, name: str, rows: list[Row]) -> None:
        source = self.case.sources[name]
        types = {column: TYPES[source.column(column).type] for column in source.columns}
        types |= {"_row_no": pa.int64()}
        types |= dict.fromkeys(("_available_at", "_superseded_at"), pa.timestamp("us"))
        table = pa.table(
            {
                column: pa.array([row[column] for row in rows], kind)
                for column, kind in types.items()
            }
        )
        self.connection.con.register("_given", table)
        self.connection.con.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM _given")

    def run(self, world: Mapping[str, list[Row]]) -> list[Row]:
        for name, rows in world.items():
            self.fill(name, rows)
        found: list[Row] = self.connection.con.sql(self.query).to_arrow_table().to_pylist()
        return found


@pytest.fixture(scope="module")
def everyone() -> Frames:
    return Frames(use_case("week", {}), POINT)


@pytest.fixture(scope="module")
def active() -> Frames:
    return Frames(use_case("month", WHOLE), POINT)


@pytest.fixture(scope="module")
def events() -> Frames:
    rule = {"where": "kind != 'test'", "leaves_with": "exits"}
    return Frames(use_case("event", rule), MONTH_OF_EVENTS)


@EXAMPLES
@given(world=worlds([AS_OF]))
def test_frame_of_random_rows_equals_the_oracle(
    everyone: Frames, world: dict[str, list[Row]]
) -> None:
    expected = expected_on_grid(world, AS_OF, active_days=None, leaves=False)
    assert everyone.run(world) == expected


@EXAMPLES
@given(world=worlds([AS_OF]))
def test_frame_of_a_filtered_population_equals_the_oracle(
    active: Frames, world: dict[str, list[Row]]
) -> None:
    expected = expected_on_grid(world, AS_OF, active_days=60, leaves=True)
    assert active.run(world) == expected


@EXAMPLES
@given(world=worlds([on(3, 10), on(3, 20), END]))
def test_frame_of_random_events_equals_the_oracle(
    events: Frames, world: dict[str, list[Row]]
) -> None:
    assert events.run(world) == expected_on_events(world)


@pytest.mark.parametrize(
    ("moment", "tier"),
    [(AS_OF - TICK, None), (AS_OF, "basic"), (AS_OF + TICK, "basic"), (None, "basic")],
)
def test_row_superseded_at_as_of_is_still_the_one_known_before_it(
    everyone: Frames, moment: datetime | None, tier: str | None
) -> None:
    row = {"customer": 1, "at": on(2), "known": on(2), "_row_no": 0, "_available_at": on(2)}
    visit = {**row, "amount": 1.0, "units": 1, "kind": "shop", "_superseded_at": None}
    plan = {**row, "tier": "basic", "region": "north", "_superseded_at": moment}
    found = everyone.run({"visits": [visit], "plans": [plan], "exits": []})
    assert [item["tier"] for item in found] == [tier]


@pytest.mark.parametrize(("active", "members"), [(20, [1]), (30, [1, 2]), (40, [1, 2, 3])])
def test_population_beside_a_window_is_who_was_active(active: int, members: list[int]) -> None:
    column = {"aggregate": "count", "window_days": 30, "dtype": "int64"}
    case = shop(
        grid={"every": "month", "start": "2025-01-01"},
        population={"source": "visits", "active_within_days": active},
        sources=SOURCES,
        views={"history": {"source": "visits", "columns": {"visits_30": column}}},
    )
    visits = [
        {
            **{"customer": number, "at": at, "known": at, "_row_no": number, "_available_at": at},
            **{"_superseded_at": None, "amount": 1.0, "units": 1, "kind": "shop"},
        }
        for number, at in enumerate((AS_OF - days * DAY for days in (10, 25, 35)), start=1)
    ]
    found = Frames(case, POINT).run({"visits": visits, "plans": [], "exits": []})
    counts = {1: 1, 2: 1, 3: 0}
    assert {row["customer"]: row["visits_30"] for row in found} == {
        customer: counts[customer] for customer in members
    }
