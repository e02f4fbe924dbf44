"""Which use case an entity means, and what a request says in text."""

from datetime import date, datetime
from typing import Any

import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.errors import SHOWN_NAMES, DataError, NotFoundError
from mlops_pipeline.lifecycle.features.online.plan import (
    feature_list,
    request_features,
    request_row,
)
from mlops_pipeline.lifecycle.features.online.reader import choose_use_case
from mlops_pipeline_tests.worlds import VISITS, assert_complete, shop

PAYMENT: dict[str, Any] = {
    "source": "visits",
    "request_time": True,
    "columns": {
        "amount_now": {"of": "amount"},
        "units_now": {"of": "units", "dtype": "int64"},
        "kind_now": {"of": "kind", "dtype": "string"},
        "is_weekend": {"of": "weekend", "dtype": "boolean"},
        "is_new": {"of": "since > '2025-01-01'", "dtype": "boolean"},
        "is_due": {"of": "due > '2025-01-01'", "dtype": "boolean"},
    },
}
HISTORY: dict[str, Any] = {
    "source": "visits",
    "refresh": "daily",
    "columns": {"spent": {"aggregate": "sum", "of": "amount"}},
}
TYPES = {"weekend": "boolean", "since": "timestamp", "due": "date"}


def till(**sections: Any) -> UseCase:
    """A shop that computes features of each visit as it happens."""
    source = {**VISITS, "columns": {**VISITS["columns"], **TYPES}}
    return shop(
        **{
            "name": "till",
            "grid": {"every": "event", "period": "month"},
            "sources": {"visits": source},
            "views": {"payment": PAYMENT, "history": HISTORY},
            "derived": {
                "share": {"expression": "amount_now / nullif(spent, 0)"},
                "share_again": {"expression": "2 * share"},
                "twice_spent": {"expression": "2 * spent"},
            },
            **sections,
        }
    )


CASES = {"shop": shop(), "till": till()}


def test_feature_list_of_texts_names_each_once() -> None:
    assert feature_list(["b, a", "a,", "", "c"]) == ("b", "a", "c")


# which use case


def test_use_case_of_a_single_entity_is_chosen() -> None:
    alone = {"till": till()}
    assert choose_use_case(alone, "customer", []).name == "till"


@pytest.mark.parametrize(
    ("features", "expected"),
    [(["visits"], "shop"), (["twice_spent"], "till"), (["customer:share", "spent"], "till")],
)
def test_use_case_that_has_all_features_is_chosen(features: list[str], expected: str) -> None:
    assert choose_use_case(CASES, "customer", features).name == expected


def test_use_case_that_is_named_is_chosen() -> None:
    assert choose_use_case(CASES, "customer", ["visits"], "till").name == "till"


@pytest.mark.parametrize("features", [[], ["spent"]])
def test_use_cases_that_fit_alike_are_refused_with_their_names(features: list[str]) -> None:
    with pytest.raises(DataError) as error:
        choose_use_case(CASES, "customer", features)
    assert_complete(error.value)
    assert "shop, till" in str(error.value)


@pytest.mark.parametrize(
    ("entity", "features", "name", "near"),
    [
        ("custmer", [], None, "customer"),
        ("customer", [], "tilt", "till"),
        ("customer", ["twice_spnt"], None, "twice_spent"),
        ("customer", ["customer:visit"], None, "visits"),
    ],
    ids=["entity", "use-case", "feature", "feature-with-its-entity"],
)
def test_unknown_name_is_refused_with_the_nearest(
    entity: str, features: list[str], name: str | None, near: str
) -> None:
    with pytest.raises(NotFoundError) as error:
        choose_use_case(CASES, entity, features, name)
    assert_complete(error.value)
    assert error.value.way_out == f"did you mean {near!r}?"


def test_unknown_name_shows_the_nearest_of_many_and_how_many_more() -> None:
    count = {"aggregate": "count", "dtype": "int64"}
    columns = {f"count_{days}d": {**count, "window_days": days} for days in range(1, 31)}
    view = {"source": "visits", "columns": columns}
    cases = {name: shop(name=name, views={"many": view}) for name in ("first", "second")}
    with pytest.raises(NotFoundError) as error:
        choose_use_case(cases, "customer", ["count_31d"])
    expected = str(error.value.expected)
    assert expected.startswith("one of count_3")
    assert expected.count("count_") == SHOWN_NAMES
    assert expected.endswith(" or 22 others")


def test_features_of_two_use_cases_are_refused_with_their_owners() -> None:
    with pytest.raises(NotFoundError) as error:
        choose_use_case(CASES, "customer", ["visits", "share"])
    assert_complete(error.value)
    assert error.value.found == "visits of shop; share of till"


# the request


def test_request_features_include_those_made_of_them() -> None:
    assert request_features(till()) == {*PAYMENT["columns"], "share", "share_again"}
    assert request_features(shop()) == set()


def test_request_row_has_values_of_the_columns_types() -> None:
    given = {
        "amount": "12.50",
        "units": "-3",
        "kind": "",
        "weekend": "True",
        "since": "2025-03-01T02:00:00+02:00",
        "due": "2025-03-02",
    }
    assert request_row(till(), given) == {
        "amount": 12.5,
        "units": -3,
        "kind": "",
        "weekend": True,
        "since": datetime(2025, 3, 1),  # noqa: DTZ001 # naive means UTC
        "due": date(2025, 3, 2),
    }


def test_request_row_of_empty_texts_has_missing_values() -> None:
    given = dict.fromkeys(("amount", "units", "weekend", "since", "due"), "")
    assert request_row(till(), given) == dict.fromkeys(given)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("amount", "dear"),
        ("amount", "nan"),
        ("amount", "inf"),
        ("amount", "1_000"),
        ("units", "1.5"),
        ("units", str(2**63)),
        ("weekend", "yes"),
        ("since", "soon"),
        ("due", "2025-13-01"),
    ],
)
def test_request_text_of_another_type_is_refused(name: str, text: str) -> None:
    with pytest.raises(DataError) as error:
        request_row(till(), {name: text})
    assert_complete(error.value)
    assert error.value.where == name


def test_request_column_that_nothing_reads_is_refused_with_the_nearest() -> None:
    with pytest.raises(DataError) as error:
        request_row(till(), {"amonut": "1"})
    assert_complete(error.value)
    assert error.value.way_out == "did you mean 'amount'?"


def test_request_to_a_use_case_without_request_features_is_refused() -> None:
    with pytest.raises(DataError) as error:
        request_row(shop(), {"amount": "1"})
    assert_complete(error.value)
