"""Values from a stream of events against the offline frame at the same moments, on DuckDB."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_pipeline.config import UseCase
from mlops_pipeline.core.features.aggregates import Event
from mlops_pipeline.core.features.streams import (
    StreamView,
    derived_features,
    known,
    stream_columns,
    stream_reach,
)
from mlops_pipeline.errors import DataError, ExpressionError
from mlops_pipeline_tests.core.features.deliveries import (
    ASKED,
    COLUMNS,
    CUSTOMERS,
    Offline,
    Version,
    deliveries,
    microseconds,
    stream,
    use_case,
)
from mlops_pipeline_tests.sizes import size
from mlops_pipeline_tests.worlds import HOUR, shop


@pytest.fixture(scope="module")
def offline() -> Offline:
    return Offline()


@settings(
    max_examples=size(20, 80),
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(versions=deliveries())
def test_stream_of_random_deliveries_equals_the_offline_frame(
    offline: Offline, versions: list[Version]
) -> None:
    case = use_case()
    view = StreamView(case, "recent")
    streams = {customer: stream(case, versions, customer) for customer in CUSTOMERS}
    rows = offline.run(versions)
    assert len(rows) == len(CUSTOMERS) * len(ASKED)
    for row in rows:
        as_of_us = microseconds(row["as_of"])
        found = view.values(known(streams[row["customer"]], as_of_us), as_of_us)
        expected = {name: row[name] for name in COLUMNS}
        assert found == expected, (row["customer"], row["as_of"])
        assert {n: type(v) for n, v in found.items()} == {n: type(v) for n, v in expected.items()}


@settings(max_examples=size(10, 30), deadline=None, derandomize=True)
@given(versions=deliveries(), data=st.data())
def test_order_in_which_events_are_read_does_not_matter(
    versions: list[Version], data: st.DataObject
) -> None:
    case = use_case()
    view = StreamView(case, "recent")
    events = stream(case, versions, 1)
    shuffled = data.draw(st.permutations(events))
    as_of_us = microseconds(ASKED[-1])
    expected = view.values(known(events, as_of_us), as_of_us)
    assert view.values(known(shuffled, as_of_us), as_of_us) == expected


def event(identity: int, at: int, arrival: int, **given: Any) -> Event:
    """An event known as soon as it happened, in microseconds."""
    return Event(identity, at, given.get("known", at), given.get("known", at), arrival, (at,))


@pytest.mark.parametrize(("as_of_us", "arrivals"), [(10, []), (11, [0]), (50, [0]), (51, [0, 1])])
def test_event_counts_once_it_had_happened_and_was_known(
    as_of_us: int, arrivals: list[int]
) -> None:
    events = [event(1, 10, 0), event(2, 10, 1, known=50), event(3, 60, 2, known=5)]
    assert [item.arrival for item in known(events, as_of_us)] == arrivals


@pytest.mark.parametrize(("as_of_us", "arrivals"), [(20, [0]), (21, [2])])
def test_revision_counts_from_its_own_availability(as_of_us: int, arrivals: list[int]) -> None:
    events = [event(1, 10, 0), event(1, 10, 1), event(1, 10, 2, known=20)]
    assert [item.arrival for item in known(events, as_of_us)] == arrivals


def test_event_that_a_revision_gave_to_another_entity_counts_no_more() -> None:
    events = [event(1, 10, 0), event(1, 10, 1, known=20)._replace(values=None)]
    assert known(events, 20) == events[:1]
    assert known(events, 21) == []


def test_older_version_that_arrives_late_replaces_nothing() -> None:
    late = event(1, 10, 1)._replace(known_us=40)
    events = [event(1, 10, 0, known=20), late]
    assert known(events, 50) == events[:1]


def test_stream_columns_are_those_that_the_views_read() -> None:
    case = use_case(
        {"spent": {"aggregate": "sum", "of": "amount", "where": "kind = 'shop'", "window_hours": 5}}
    )
    assert stream_columns(case, "payments") == {"amount": "float64", "kind": "string"}
    assert stream_reach(case, "payments") == 5 * HOUR
    assert stream_columns(case, "asks") == {}
    assert stream_reach(case, "asks") == timedelta(0)


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ({"aggregate": "sum", "of": "kind"}, "'sum' needs numbers, found string"),
        ({"aggregate": "sum", "of": "kind * 2"}, "'*' needs int64 or float64, found string"),
        ({"aggregate": "count", "where": "units"}, "a value of type int64"),
        ({"aggregate": "last", "of": "kind"}, "a value of type string is declared float64"),
        (
            {"aggregate": "min", "of": "at", "dtype": "int64"},
            "a value of type timestamp is declared int64",
        ),
        (
            {"aggregate": "last", "of": "kind", "dtype": "string", "unseen": 1},
            "values of types int64, string do not go together",
        ),
    ],
)
def test_column_that_does_not_fit_its_types_says_so(column: dict[str, Any], found: str) -> None:
    case = use_case({"feature": {"window_days": 1, **column}})
    with pytest.raises(ExpressionError) as caught:
        StreamView(case, "recent")
    assert caught.value.found == found


def test_deviation_that_leaves_128_bits_says_so() -> None:
    case = use_case({"spread": {"aggregate": "std", "of": "units", "window_days": 1}})
    events = [Event(number, 0, 0, 0, number, (2**63 - 1,)) for number in range(3)]
    with pytest.raises(DataError, match="does not fit its integer type"):
        StreamView(case, "recent").values(known(events, 1), 1)


def shop_with_derived() -> UseCase:
    return shop(
        derived={
            "mean": {"expression": "spent / nullif(visits, 0)", "precision": 2},
            "is_high": {"expression": "mean > 10", "dtype": "boolean"},
            "level": {
                "expression": "case when is_high then 'high' else 'low' end",
                "dtype": "string",
            },
        }
    )


def test_derived_features_use_the_ones_above_them() -> None:
    derived = derived_features(shop_with_derived(), ("spent", "visits"))
    assert [*map(derived, [(100.0, 3), (None, 0)])] == [
        [33.33, True, "high"],
        [None, None, "low"],
    ]
