"""Random deliveries of payments, their offline frame on DuckDB, and their streams of events.

Late rows, exact repetitions, revisions (of the customer too) and ties, close to where definitions
have their edges.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace as changed
from datetime import datetime, timedelta
from typing import Any

import ibis
import pyarrow as pa
from hypothesis import strategies as st

from mlops_pipeline.config import UseCase
from mlops_pipeline.core.data.periods import Period
from mlops_pipeline.core.features.aggregates import Event
from mlops_pipeline.core.features.frames import EVENT_ROW, RowGuarantees, feature_frame
from mlops_pipeline.core.features.streams import stream_columns
from mlops_pipeline.lifecycle.ingest.accepted import superseded_at
from mlops_pipeline_tests.worlds import DAY, HOUR, TICK, TYPES, on, shop, utc

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 # naive UTC, as in the tables
START, END = on(3, 1), on(4, 1)
ASKED = [on(3, 10), on(3, 10) + TICK, on(3, 10, 1), on(3, 20), on(3, 20, 7) + 12345 * TICK]
CUSTOMERS = (1, 2)
PAYMENTS: Mapping[str, Any] = {
    "uri": "payments",
    "columns": {
        "payment": "int64",
        "customer": "int64",
        "at": "timestamp",
        "known": "timestamp",
        "amount": "float64",
        "units": "int64",
        "score": "float64",
        "kind": "string",
        "foreign": "boolean",
        "note": "string",
    },
    "key": ["payment"],
    "event_time": "at",
    "available_at": "known",
}
ASKS: Mapping[str, Any] = {
    "uri": "asks",
    "columns": {"customer": "int64", "at": "timestamp"},
    "event_time": "at",
}
COLUMNS: dict[str, dict[str, Any]] = {
    "count_1h": {"aggregate": "count", "window_hours": 1, "dtype": "int64"},
    "count_10d": {"aggregate": "count", "window_days": 10},
    "amounts_1d": {"aggregate": "count", "of": "amount", "window_days": 1, "dtype": "int64"},
    "kinds_10d": {"aggregate": "count_distinct", "of": "kind", "window_days": 10},
    "scores_10d": {"aggregate": "count_distinct", "of": "score", "window_days": 10},
    "sum_1h": {"aggregate": "sum", "of": "amount", "window_hours": 1, "precision": 2, "unseen": 0},
    "sum_paid": {
        "aggregate": "sum",
        "of": "amount * least(units, 3)",
        "where": "kind in ('shop', 'web') and not foreign",
        "window_days": 10,
        "offset_days": 1,
    },
    "sum_units": {"aggregate": "sum", "of": "units", "window_days": 10},
    "mean_units": {"aggregate": "mean", "of": "units", "window_days": 10, "unseen": -1},
    "share_foreign": {"aggregate": "mean", "of": "foreign", "window_days": 10, "precision": 3},
    "mean_10d": {"aggregate": "mean", "of": "amount", "window_days": 10, "precision": 3},
    "std_10d": {"aggregate": "std", "of": "amount", "window_days": 10, "precision": 3},
    "min_score": {"aggregate": "min", "of": "score", "window_days": 10},
    "max_score": {"aggregate": "max", "of": "score", "window_days": 10, "precision": 0},
    "max_units": {"aggregate": "max", "of": "units", "window_days": 10, "dtype": "int64"},
    "min_kind": {"aggregate": "min", "of": "kind", "window_days": 10, "dtype": "string"},
    "any_foreign": {"aggregate": "max", "of": "foreign", "window_days": 10, "dtype": "boolean"},
    "last_kind": {"aggregate": "last", "of": "kind", "window_days": 10, "dtype": "string"},
    "last_score": {"aggregate": "last", "of": "score", "window_days": 10, "unseen": 0.125},
    "last_large": {
        "aggregate": "last",
        "of": "amount > 5",
        "where": "amount is not null",
        "window_days": 10,
        "dtype": "boolean",
    },
    "rounded": {"aggregate": "last", "of": "amount", "window_days": 10, "dtype": "int64"},
    "days_since": {"aggregate": "days_since_last", "window_days": 10, "precision": 6},
    "days_known": {
        "aggregate": "days_since_first",
        "where": "kind = 'shop'",
        "window_days": 10,
        "unseen": 99,
    },
}


def use_case(columns: Mapping[str, Mapping[str, Any]] = COLUMNS) -> UseCase:
    return shop(
        grid={"every": "event"},
        population={"source": "asks"},
        sources={"asks": ASKS, "payments": PAYMENTS},
        label={"kind": "event_present", "source": "payments", "horizon_days": 30},
        views={"recent": {"source": "payments", "online": True, "columns": columns}},
    )


@dataclass(frozen=True)
class Version:
    """A delivered row of payments."""

    payment: int
    customer: int | None
    at: datetime
    known: datetime
    effective: datetime
    values: tuple[Any, ...]  # amount, units, score, kind, foreign, note

    def row(self, number: int) -> dict[str, Any]:
        names = ("amount", "units", "score", "kind", "foreign", "note")
        return {
            **dict(zip(names, self.values, strict=True)),
            "payment": self.payment,
            "customer": self.customer,
            "at": self.at,
            "known": self.known,
            "_row_no": number,
            "_available_at": self.effective,
        }


def accepted(versions: list[Version]) -> list[dict[str, Any]]:
    """What ingestion keeps of the deliveries: no exact repetition, one row of key and times."""
    contents: dict[Any, int] = {}
    for number, item in enumerate(versions):
        contents.setdefault(changed(item, effective=item.known), number)
    times: dict[Any, int] = {}
    for number in contents.values():
        item = versions[number]
        times.setdefault((item.payment, item.known, item.effective), number)
    return [versions[number].row(number) for number in times.values()]


class Offline:
    """The offline frame: compiled once, run on many sets of rows."""

    def __init__(self) -> None:
        case = use_case()
        self.connection = ibis.duckdb.connect(threads=1)
        asks = [
            {"customer": customer, "at": at, "_row_no": number, "_available_at": at}
            for number, (customer, at) in enumerate((c, at) for c in CUSTOMERS for at in ASKED)
        ]
        self.fill("asks", ASKS, asks, "NULL::TIMESTAMP")
        self.superseded = superseded_at(case.sources["payments"])
        self.fill("payments", PAYMENTS, [], self.superseded)
        tables = {name: self.connection.table(name) for name in case.sources}
        period = Period(utc(START), utc(END))
        frame = feature_frame(case, tables, period, RowGuarantees(revised=frozenset({"payments"})))
        self.query = self.connection.compile(frame.order_by(["as_of", EVENT_ROW]))

    def fill(
        self, name: str, source: Mapping[str, Any], rows: list[dict[str, Any]], superseded: str
    ) -> None:
        types = {column: TYPES[kind] for column, kind in source["columns"].items()}
        types |= {"_row_no": pa.int64(), "_available_at": pa.timestamp("us")}
        arrays = {
            column: pa.array([row[column] for row in rows], kind) for column, kind in types.items()
        }
        self.connection.con.register("_given", pa.table(arrays))
        self.connection.con.execute(
            f"CREATE OR REPLACE TABLE {name} AS "
            f"SELECT *, {superseded} AS _superseded_at FROM _given"
        )

    def run(self, versions: list[Version]) -> list[dict[str, Any]]:
        self.fill("payments", PAYMENTS, accepted(versions), self.superseded)
        found: list[dict[str, Any]] = (
            self.connection.con.sql(self.query).to_arrow_table().to_pylist()
        )
        return found


def microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // TICK


def stream(case: UseCase, versions: list[Version], customer: int) -> list[Event]:
    """The events of one customer: versions of others are departures."""
    names = stream_columns(case, "payments")
    rows = [item.row(number) for number, item in enumerate(versions)]
    return [
        Event(
            identity=row["payment"],
            happened_us=microseconds(row["at"]),
            declared_us=microseconds(row["known"]),
            known_us=microseconds(row["_available_at"]),
            arrival=row["_row_no"],
            values=tuple(row[n] for n in names) if row["customer"] == customer else None,
        )
        for row in rows
    ]


# random deliveries, close to where definitions have their edges

EDGES = [timedelta(0), HOUR, DAY, 10 * DAY, 11 * DAY, 5 * DAY]
NEAR = [-TICK, timedelta(0), TICK, -HOUR, 30 * TICK]
DELAYS = st.sampled_from([timedelta(0), timedelta(0), timedelta(0), TICK, HOUR, 10 * DAY])
MOMENTS = st.builds(
    lambda asked, edge, near: asked - edge + near,
    st.sampled_from(ASKED),
    st.sampled_from(EDGES),
    st.sampled_from(NEAR),
)
CONTENT = st.tuples(
    st.one_of(
        st.none(),
        st.sampled_from([0.0, 5.0, 2.675, 0.005, 1000000.1, -3.5]),
        st.integers(-100_000, 100_000).map(lambda units: units / 1000),
    ),
    st.sampled_from([None, 0, 1, 2, -3, 5, 2**53 + 1, 2**62]),
    st.sampled_from([None, 0.5, -1e17, math.inf, math.nan, 7.25, 7.25, -0.0, 0.0]),
    st.sampled_from(["shop", "shop", "web", "é", None]),
    st.sampled_from([True, False, False, None]),
    st.sampled_from(["seen", "unseen"]),
)


@st.composite
def deliveries(draw: st.DrawFn) -> list[Version]:
    found: list[Version] = []
    for _ in range(draw(st.integers(0, 14))):
        form = draw(st.integers(0, 9)) if found else 9
        if form < 2:  # the same again, perhaps later
            held = draw(st.sampled_from(found))
            found.append(changed(held, effective=held.effective + draw(DELAYS)))
            continue
        at = draw(MOMENTS)
        if form == 2:  # another event of the same moment
            at = draw(st.sampled_from(found)).at
        known_at = at + draw(DELAYS)
        version = Version(
            payment=len(found),
            customer=draw(st.sampled_from([1, 1, 1, 2, None])),
            at=at,
            known=known_at,
            effective=known_at + draw(DELAYS),
            values=draw(CONTENT),
        )
        if form in (3, 4, 5):  # a revision, perhaps of the customer and the time too
            held = draw(st.sampled_from(found))
            version = changed(version, payment=held.payment)
            if form == 3:
                version = changed(version, customer=held.customer, at=held.at)
            if form == 4:  # known at the same time
                version = changed(version, known=held.known, effective=held.effective)
        found.append(version)
    return found
