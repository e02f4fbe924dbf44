"""Random rows of a shop's sources, and the feature frames that the oracle expects of them."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from mlops_pipeline.config import UseCase
from mlops_pipeline.config.tables import FeatureColumn
from mlops_pipeline_tests.core.features.oracle import Feature, Row, Value, known_before, typed
from mlops_pipeline_tests.worlds import DAY, HOUR, PLANS, TICK, VISITS, on, shop

EXITS: Mapping[str, Any] = {
    "uri": "exits",
    "columns": {"customer": "int64", "at": "timestamp", "known": "timestamp"},
    "event_time": "at",
    "available_at": "known",
}
SOURCES = {"visits": VISITS, "plans": PLANS, "exits": EXITS}
AS_OF = on(3, 3)  # a Monday
END = on(4, 3)  # of the event grid's period
REVISED = frozenset({"plans"})


def product(row: Row) -> float | None:
    return None if row["amount"] is None else row["amount"] * row["units"]


def is_paid(row: Row) -> bool:
    return row["amount"] is not None and row["amount"] > 0 and row["kind"] in ("shop", "web")


def is_shop(row: Row) -> bool:
    return bool(row["kind"] == "shop")


def more_than_five(row: Row) -> bool | None:
    return None if row["amount"] is None else row["amount"] > 5


def of(name: str) -> Value:
    return lambda row: row[name]


WHERES: dict[str, Value] = {
    "kind = 'shop'": is_shop,
    "amount > 0 and kind in ('shop', 'web')": is_paid,
    "amount is not null": lambda row: row["amount"] is not None,
}
VALUES: dict[str, Value] = {
    "amount * units": product,
    "amount > 5": more_than_five,
    **{name: of(name) for name in ("amount", "units", "kind", "tier")},
}
HISTORY: dict[str, dict[str, Any]] = {
    "sum_30": {"aggregate": "sum", "of": "amount", "window_days": 30, "precision": 2},
    "sum_before_30": {"aggregate": "sum", "of": "units", "offset_days": 30},
    "sum_paid": {
        "aggregate": "sum",
        "of": "amount * units",
        "where": "amount > 0 and kind in ('shop', 'web')",
    },
    "mean_all": {"aggregate": "mean", "of": "amount", "precision": 3},
    "mean_units_7": {"aggregate": "mean", "of": "units", "window_days": 7, "unseen": -1},
    "min_all": {"aggregate": "min", "of": "amount"},
    "first_kind": {"aggregate": "min", "of": "kind", "dtype": "string"},
    "max_units_7": {"aggregate": "max", "of": "units", "window_days": 7, "dtype": "int64"},
    "std_30_before_7": {
        "aggregate": "std",
        "of": "amount",
        "window_days": 30,
        "offset_days": 7,
        "precision": 3,
    },
    "std_units": {"aggregate": "std", "of": "units"},
    "count_30": {"aggregate": "count", "window_days": 30, "dtype": "int64"},
    "count_shop": {"aggregate": "count", "where": "kind = 'shop'"},
    "count_amounts": {"aggregate": "count", "of": "amount", "dtype": "int64"},
    "kinds_30": {"aggregate": "count_distinct", "of": "kind", "window_days": 30, "dtype": "int64"},
    "last_kind": {"aggregate": "last", "of": "kind", "dtype": "string"},
    "last_amount": {"aggregate": "last", "of": "amount", "unseen": -7.5, "precision": 1},
    "last_amount_7": {"aggregate": "last", "of": "amount", "window_days": 7},
    "last_amount_shop": {"aggregate": "last", "of": "amount", "where": "kind = 'shop'"},
    "last_known_amount_30": {
        "aggregate": "last",
        "of": "amount",
        "where": "amount is not null",
        "window_days": 30,
        "offset_days": 7,
    },
    "is_large": {"aggregate": "last", "of": "amount > 5", "dtype": "boolean"},
    "days_since_shop": {"aggregate": "days_since_last", "where": "kind = 'shop'", "unseen": 999},
    "days_since_first_7": {"aggregate": "days_since_first", "window_days": 7, "precision": 2},
    "days_known": {"aggregate": "days_since_first", "precision": 0},
}
TIER: dict[str, dict[str, Any]] = {
    "tier": {"aggregate": "last", "of": "tier", "dtype": "string"},
    "tiers": {"aggregate": "count", "dtype": "int64"},
}
RATIO = {"ratio": {"expression": "sum_30 / count_30", "precision": 4}}


def oracle_of(columns: Mapping[str, Mapping[str, Any]]) -> dict[str, Feature]:
    found = {}
    for name, given_column in columns.items():
        column = FeatureColumn.model_validate(given_column)
        if column.unseen is None and column.aggregate in ("count", "count_distinct"):
            column = column.model_copy(update={"unseen": 0})
        found[name] = Feature(
            column,
            VALUES[column.of.text] if column.of else None,
            WHERES[column.where.text] if column.where else None,
        )
    return found


def use_case(every: str, population: Mapping[str, Any]) -> UseCase:
    views: dict[str, Any] = {
        "history": {"source": "visits", "columns": HISTORY},
        "plan": {"source": "plans", "columns": TIER},
    }
    if every == "event":
        views["request"] = {
            "source": "visits",
            "request_time": True,
            "columns": {
                "asked_amount": {"of": "amount * units", "precision": 2},
                "asked_kind": {"of": "kind", "dtype": "string"},
            },
        }
    grid = {"every": every} if every == "event" else {"every": every, "start": "2025-01-01"}
    return shop(
        grid=grid,
        population={"source": "visits", **population},
        sources=SOURCES,
        views=views,
        derived=RATIO,
        protected={
            "region": {"source": "plans", "of": "region"},
            "channel": {"source": "visits", "of": "kind", "as_input": True},
        },
    )


# random rows, close to where definitions have their edges

EDGES = [timedelta(days=days) for days in (0, 7, 30, 37, 60)]
NEAR = [-TICK, timedelta(0), TICK, -HOUR, HOUR]


def times(anchors: list[datetime]) -> st.SearchStrategy[datetime]:
    close = st.builds(
        lambda anchor, edge, near: anchor - edge + near,
        st.sampled_from(anchors),
        st.sampled_from(EDGES),
        st.sampled_from(NEAR),
    )
    wide = st.builds(lambda hours: AS_OF + hours * HOUR, st.integers(-24 * 75, 24 * 40))
    return st.one_of(close, wide)


@st.composite
def rows_of(draw: st.DrawFn, source: str, anchors: list[datetime], most: int) -> list[Row]:
    rows: list[Row] = []
    for number in range(draw(st.integers(0, most))):
        if rows and draw(st.integers(0, 4)) == 0:  # an exact duplicate
            rows.append({**draw(st.sampled_from(rows)), "_row_no": number})
            continue
        at = draw(times(anchors))
        if rows and draw(st.integers(0, 3)) == 0:  # the same moment
            at = draw(st.sampled_from(rows))["at"]
        delay = draw(st.sampled_from([timedelta(0), timedelta(0), HOUR, 10 * DAY]))
        available = draw(st.sampled_from([at + delay, at + delay, AS_OF, AS_OF - TICK, END]))
        row: Row = {
            "customer": draw(st.sampled_from([1, 1, 2, 3, None])),
            "at": at,
            "known": available,
            "_row_no": number,
            "_available_at": available,
            "_superseded_at": None,
        }
        rows.append({**row, **draw(VALUES_OF[source])})
    return rows


AMOUNTS = st.one_of(
    st.none(),
    st.sampled_from([0.0, 5.0, 2.675, 0.005, 1000000.1]),
    st.integers(-100_000, 100_000).map(lambda units: units / 1000),
)
VALUES_OF: dict[str, st.SearchStrategy[Row]] = {
    "visits": st.fixed_dictionaries(
        {
            "amount": AMOUNTS,
            "units": st.integers(-3, 5),
            "kind": st.sampled_from(["shop", "shop", "web", "test", None]),
        }
    ),
    "plans": st.fixed_dictionaries(
        {
            "tier": st.sampled_from(["basic", "plus", None]),
            "region": st.sampled_from(["north", "south", None]),
            "_superseded_at": st.sampled_from([None, None, AS_OF, AS_OF - TICK, on(2, 20), END]),
        }
    ),
    "exits": st.just({}),
}


def worlds(anchors: list[datetime]) -> st.SearchStrategy[dict[str, list[Row]]]:
    return st.fixed_dictionaries(
        {
            "visits": rows_of("visits", anchors, 14),
            "plans": rows_of("plans", anchors, 5),
            "exits": rows_of("exits", anchors, 2),
        }
    )


# what the frame should be


def expected_features(
    world: Mapping[str, list[Row]], customer: int, as_of: datetime
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for source, columns in (("visits", HISTORY), ("plans", TIER)):
        known = known_before(world[source], as_of, revised=source in REVISED)
        own = [row for row in known if row["customer"] == customer]
        for name, feature in oracle_of(columns).items():
            values[name] = feature.value(own, as_of)
    if values["sum_30"] is not None and values["count_30"]:
        ratio = FeatureColumn(precision=4)
        values["ratio"] = typed(values["sum_30"] / values["count_30"], ratio)
    else:
        values["ratio"] = None
    return values


def latest(
    world: Mapping[str, list[Row]], source: str, name: str, customer: int, as_of: datetime
) -> Any:
    column = FeatureColumn(aggregate="last", of=name, dtype="string")
    known = known_before(world[source], as_of, revised=source in REVISED)
    return Feature(column, of(name)).value([r for r in known if r["customer"] == customer], as_of)


def has_left(world: Mapping[str, list[Row]], customer: int, as_of: datetime) -> bool:
    return any(row["customer"] == customer for row in known_before(world["exits"], as_of))


def expected_on_grid(
    world: Mapping[str, list[Row]], as_of: datetime, *, active_days: int | None, leaves: bool
) -> list[Row]:
    members = {
        row["customer"]
        for row in known_before(world["visits"], as_of)
        if row["customer"] is not None
        and (active_days is None or row["at"] >= as_of - active_days * DAY)
        and (active_days is None or (row["kind"] is not None and row["kind"] != "test"))
    }
    return [
        {
            "customer": customer,
            "as_of": as_of,
            **expected_features(world, customer, as_of),
            "region": latest(world, "plans", "region", customer, as_of),
            "channel": latest(world, "visits", "kind", customer, as_of),
        }
        for customer in sorted(members)
        if not (leaves and has_left(world, customer, as_of))
    ]


def expected_on_events(world: Mapping[str, list[Row]]) -> list[Row]:
    events = [
        row
        for row in world["visits"]
        if AS_OF <= row["at"] < END
        and row["_available_at"] < END
        and row["customer"] is not None
        and row["kind"] not in (None, "test")
        and not has_left(world, row["customer"], row["at"])
    ]
    asked = FeatureColumn(of="amount", precision=2)
    return [
        {
            "customer": row["customer"],
            "as_of": row["at"],
            "event_row": row["_row_no"],
            **expected_features(world, row["customer"], row["at"]),
            "asked_amount": typed(product(row), asked),
            "asked_kind": row["kind"],
            "region": latest(world, "plans", "region", row["customer"], row["at"]),
            "channel": row["kind"],
        }
        for row in sorted(events, key=lambda row: (row["at"], row["_row_no"]))
    ]
