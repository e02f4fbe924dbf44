from typing import Any

import pytest

from mlops_pipeline_tests.worlds import PLANS, VISITS, shop

SOURCES = {
    "visits": {
        **VISITS,
        "columns": {**VISITS["columns"], "kind": {"type": "string", "personal": True}},
    },
    "plans": PLANS,
}


def case(view: dict[str, Any], *, as_input: bool = False, **sections: Any) -> Any:
    protected = {"region": {"source": "plans", "of": "region", "as_input": as_input}}
    views = {"plan": {"source": "plans", "columns": view}}
    return shop(sources=SOURCES, protected=protected, views=views, **sections)


COUNT = {"rows": {"aggregate": "count", "dtype": "int64"}}


def test_hidden_are_the_key_personal_columns_and_what_protected_attributes_are_made_of() -> None:
    found = case(COUNT)
    assert found.hidden_columns("visits") == {"customer", "kind"}
    assert found.hidden_columns("plans") == {"customer", "region"}


def test_times_are_not_hidden() -> None:
    age = {"age": {"source": "plans", "of": "case when known > at then tier else 'x' end"}}
    found = shop(sources=SOURCES, protected=age)
    assert found.hidden_columns("plans") == {"customer", "tier"}


@pytest.mark.parametrize(
    ("column", "is_sensitive"),
    [
        ({"aggregate": "last", "of": "region", "dtype": "string"}, True),
        ({"aggregate": "count", "where": "region = 'north'", "dtype": "int64"}, True),
        ({"aggregate": "count_distinct", "of": "region", "dtype": "int64"}, False),
        ({"aggregate": "last", "of": "tier", "dtype": "string"}, False),
    ],
)
def test_feature_that_carries_a_declared_attribute_is_sensitive(
    column: dict[str, Any], *, is_sensitive: bool
) -> None:
    found = case({"it": column}, as_input=True).sensitive_features()
    assert found == {"region", *(["it"] if is_sensitive else [])}


def test_feature_derived_from_a_sensitive_one_is_sensitive() -> None:
    north = {"aggregate": "count", "where": "region = 'north'", "dtype": "int64"}
    derived = {"twice": {"expression": "it * 2"}, "more": {"expression": "twice + rows"}}
    found = case({**COUNT, "it": north}, as_input=True, derived=derived)
    assert found.sensitive_features() == {"region", "it", "twice", "more"}
