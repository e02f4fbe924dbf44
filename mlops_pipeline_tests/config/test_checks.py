"""What a configuration may not read, and names and values that cannot be right."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mlops_pipeline.config import UseCase, load_use_case
from mlops_pipeline.config.tables import FeatureColumn
from mlops_pipeline.errors import ConfigError
from mlops_pipeline.stores.settings import PACKAGE_PARENT

LAST = {"aggregate": "last", "dtype": "string"}
CALLS: dict[str, Any] = {
    "uri": "calls",
    "columns": {
        "client": {"type": "int64", "personal": True},
        "at": "timestamp",
        "loaded_at": "timestamp",
        "amount": "float64",
        "agent": "string",
        "city": {"type": "string", "personal": True},
        "gender": {"type": "string", "personal": True},
        "age": "int64",
        "bought": "boolean",
        "known_at": "timestamp",
        "called_back": "boolean",
    },
    "key": ["client", "at"],
    "event_time": "at",
    "available_at": "loaded_at",
}


def document(**sections: Any) -> dict[str, Any]:
    """A use case of calls: one column, a label column, two protected attributes."""
    made: dict[str, Any] = {
        "name": "calls",
        "description": "Calls of an agency, for tests.",
        "owner": "tests",
        "intended_use": "Nothing but tests.",
        "entity": {"name": "client", "key": "client"},
        "grid": {"every": "event"},
        "population": {"source": "calls"},
        "sources": {"calls": CALLS},
        "label": {
            "kind": "column",
            "source": "calls",
            "column": "bought",
            "available_at": "known_at",
            "treatment": "called_back",
        },
        "views": view(spent={"aggregate": "sum", "of": "amount"}),
        "protected": {
            "gender": {"source": "calls", "of": "gender"},
            "band": {"source": "calls", "of": "case when age < 30 then 'young' else 'old' end"},
        },
        "training": {"candidates": {"dummy": {"kind": "dummy"}}},
        "gates": [{"rule": "metric", "metric": "roc_auc", "at_least": 0.5}],
    }
    return {**made, **sections}


def view(*, request_time: Any = False, **columns: Any) -> dict[str, Any]:
    made = {"source": "calls", "online": False, "request_time": request_time, "columns": columns}
    return {"history": made}


def refusal(given: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        UseCase.model_validate(given)
    (problem,) = caught.value.errors()
    return str(problem["msg"])


def accepted(given: dict[str, Any]) -> UseCase:
    return UseCase.model_validate(given)


# tables without time


PEOPLE: dict[str, Any] = {
    "uri": "people",
    "columns": {"client": "int64", "tier": "string", "left": "boolean", "seen": "timestamp"},
    "key": ["client"],
}


def snapshot(source: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    last = {"aggregate": "last", "of": "tier", "dtype": "string"}
    made = document(
        grid={"every": "once"},
        population={"source": "people"},
        sources={"people": {**PEOPLE, **(source or {})}},
        label={"kind": "column", "source": "people", "column": "left"},
        views={"now": {"source": "people", "columns": {"tier": last}}},
        protected={},
        split={"method": "random"},
    )
    return {**made, **sections}


def column_of_people(**column: Any) -> dict[str, Any]:
    return {"now": {"source": "people", "columns": {"tier": column}}}


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (snapshot(split={}), "split.method"),
        (snapshot(grid={"every": "day", "start": "2025-01-01"}), "sources.people.event_time"),
        (snapshot({"key": []}), "sources.people.key"),
        (snapshot({"key": ["tier"]}), "sources.people.key"),
        (snapshot({"rules": [{"rule": "freshness", "at_most_days": 3}]}), "sources.people.rules"),
        (
            snapshot(population={"source": "people", "active_within_days": 3}),
            "population.active_within_days",
        ),
        (
            snapshot(label={"kind": "event_present", "source": "people", "horizon_days": 3}),
            "grid.start",
        ),
        (
            snapshot(views=column_of_people(aggregate="count", window_days=3)),
            "views.now.columns.tier",
        ),
        (
            snapshot(views=column_of_people(aggregate="days_since_last")),
            "views.now.columns.tier",
        ),
    ],
)
def test_snapshot_that_would_need_a_time_names_the_key(given: dict[str, Any], key: str) -> None:
    assert refusal(given).startswith(f"Value error, {key}")


@pytest.mark.parametrize(
    ("rule", "place"),
    [
        ({"rule": "class_balance", "column": "age", "positive": True}, "positive"),
        ({"rule": "class_balance", "column": "agent"}, "positive"),
        ({"rule": "range", "column": "agent", "min": 1}, "column"),
    ],
)
def test_rule_that_its_column_cannot_hold_names_the_key(rule: dict[str, Any], place: str) -> None:
    given = document(sources={"calls": {**CALLS, "rules": [rule]}})
    assert refusal(given).startswith(f"Value error, sources.calls.rules.0.{place}")


def test_snapshot_needs_no_time_and_takes_one() -> None:
    assert accepted(snapshot()).sources["people"].event_time is None
    assert accepted(snapshot({"event_time": "seen"}))


# time


@pytest.mark.parametrize("key", ["offset_days", "window_days", "window_hours"])
def test_window_that_would_reach_past_as_of_names_file_and_key(tmp_path: Path, key: str) -> None:
    columns = {"spent": {"aggregate": "sum", "of": "amount", key: -1}}
    path = tmp_path / "calls.yaml"
    path.write_text(yaml.safe_dump(document(views=view(**columns))))
    with pytest.raises(ConfigError) as caught:
        load_use_case(path)
    assert caught.value.where == f"{path}: views.history.columns.spent.{key}"


@given(
    days=st.none() | st.integers(0, 36_500),
    hours=st.none() | st.integers(1, 24 * 366),
    offset=st.integers(0, 36_500),
)
def test_every_window_that_is_accepted_ends_by_as_of(
    days: int | None, hours: int | None, offset: int
) -> None:
    hours = None if days is not None else hours
    column = FeatureColumn(
        aggregate="count", window_days=days, window_hours=hours, offset_days=offset
    )
    if column.window is not None and column.reach is not None:
        assert column.reach >= column.window  # it begins this far before as_of, and ends no later


# the outcome


@pytest.mark.parametrize(
    ("column", "what"),
    [
        ("bought", "the label column bought"),
        ("known_at", "the label's availability known_at"),
        ("called_back", "the treatment column called_back"),
    ],
)
@pytest.mark.parametrize("key", ["of", "where"])
def test_feature_that_reads_the_outcome_is_refused(column: str, what: str, key: str) -> None:
    expression = f"{column} is not null"
    feature = {"aggregate": "count", "of": "amount", key: expression}
    message = refusal(document(views=view(happy=feature)))
    assert f"views.history.columns.happy.{key}: reads {what}; that leaks the outcome" in message


def test_request_time_feature_that_reads_the_label_is_refused() -> None:
    views = view(request_time=True, outcome={"of": "bought", "dtype": "boolean"})
    assert "reads the label column bought" in refusal(document(views=views))


def test_request_time_feature_that_reads_when_the_row_became_known_is_refused() -> None:
    views = view(request_time=True, late={"of": "loaded_at > at", "dtype": "boolean"})
    assert "reads loaded_at, when the row became known" in refusal(document(views=views))


def test_population_chosen_by_the_outcome_is_refused() -> None:
    population = {"source": "calls", "where": "bought"}
    assert "population.where: reads the label column" in refusal(document(population=population))


def test_protected_attribute_made_of_the_outcome_is_refused() -> None:
    protected = {"luck": {"source": "calls", "of": "bought"}}
    assert "protected.luck.of: reads the label column" in refusal(document(protected=protected))


def test_outcome_is_found_through_derived_features() -> None:
    derived = {"ratio": {"expression": "spent / label"}}
    assert "'label' is no feature (defined above it)" in refusal(document(derived=derived))


def test_column_of_another_source_may_have_the_name_of_the_label() -> None:
    earlier = {**CALLS, "uri": "earlier"}
    views = view(bought={"aggregate": "count", "where": "bought"})
    views["history"]["source"] = "earlier"
    accepted(document(sources={"calls": CALLS, "earlier": earlier}, views=views, protected={}))


# people


@pytest.mark.parametrize(
    ("feature", "attribute"),
    [
        ({**LAST, "of": "gender"}, "gender"),
        ({"aggregate": "count", "where": "gender = 'female'"}, "gender"),
        ({"aggregate": "count_distinct", "of": "gender"}, "gender"),
        ({"aggregate": "mean", "of": "age"}, "band"),
        ({"aggregate": "sum", "of": "case when age > 60 then amount end"}, "band"),
    ],
)
def test_feature_of_a_protected_attribute_is_refused(
    feature: dict[str, Any], attribute: str
) -> None:
    message = refusal(document(views=view(sex=feature)))
    assert f"which the protected attribute {attribute} is made of" in message
    assert message.startswith("Value error, views.history.columns.sex.")


def test_feature_of_a_declared_attribute_is_accepted() -> None:
    protected = {"gender": {"source": "calls", "of": "gender", "as_input": True}}
    views = view(calls_of_women={"aggregate": "count", "where": "gender = 'female'"})
    assert accepted(document(views=views, protected=protected)).inputs == (
        "calls_of_women",
        "gender",
    )


def test_request_time_feature_of_a_protected_attribute_is_refused() -> None:
    views = view(request_time=True, sex={"of": "gender", "dtype": "string"})
    assert "reads gender, which the protected attribute gender" in refusal(document(views=views))


@pytest.mark.parametrize("as_input", [False, True])
def test_derived_feature_of_a_protected_attribute_is_refused(*, as_input: bool) -> None:
    protected = {"gender": {"source": "calls", "of": "gender", "as_input": as_input}}
    derived = {"bias": {"expression": "case when gender = 'female' then spent end"}}
    message = refusal(document(derived=derived, protected=protected))
    assert "derived.bias.expression: reads the protected attribute gender" in message


@pytest.mark.parametrize(
    "feature",
    [
        {**LAST, "of": "city"},
        {"aggregate": "max", "of": "city", "dtype": "string"},
        {"aggregate": "count", "where": "city = 'Oslo'"},
    ],
)
def test_feature_of_a_personal_column_is_refused(feature: dict[str, Any]) -> None:
    message = refusal(document(views=view(place=feature)))
    assert "reads the personal column city" in message


@pytest.mark.parametrize("aggregate", ["count", "count_distinct"])
def test_feature_that_only_counts_a_personal_column_is_accepted(aggregate: str) -> None:
    accepted(document(views=view(cities={"aggregate": aggregate, "of": "city"})))
    accepted(document(views=view(clients={"aggregate": aggregate, "of": "client"})))


def test_feature_of_a_personal_column_that_is_declared_is_accepted() -> None:
    protected = {"city": {"source": "calls", "of": "city", "as_input": True}}
    accepted(document(views=view(place={**LAST, "of": "city"}), protected=protected))


def test_feature_whose_value_is_the_entity_key_is_refused() -> None:
    columns = {**CALLS["columns"], "client": "int64"}
    sources = {"calls": {**CALLS, "columns": columns}}
    views = view(who={"aggregate": "last", "of": "client", "dtype": "int64"})
    assert "reads the entity key client" in refusal(document(views=views, sources=sources))


def test_protected_attribute_leaves_the_times_of_a_row_to_features() -> None:
    protected = {"age_then": {"source": "calls", "of": "case when at > known_at then age end"}}
    label = {"kind": "event_present", "source": "calls", "horizon_days": 30}
    views = view(recent={"aggregate": "count", "where": "at is not null"})
    accepted(document(protected=protected, label=label, views=views))


@pytest.mark.parametrize(
    "path", sorted((PACKAGE_PARENT / "configs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_configuration_file_leaks_nothing(path: Path) -> None:
    assert load_use_case(path).features


# names and values


@pytest.mark.parametrize("name", ["event_row", "as_of", "label", "probability", "client"])
def test_feature_with_a_name_that_frames_use_is_refused(name: str) -> None:
    feature = {"aggregate": "sum", "of": "amount"}
    assert f"the name {name!r} is already used by" in refusal(
        document(views=view(**{name: feature}))
    )
    derived = {name: {"expression": "spent + 1"}}
    assert f"the name {name!r} is already used by" in refusal(document(derived=derived))


@pytest.mark.parametrize("name", ["_known_at", "Spent", "spent!", "9_days", "a" * 61, ""])
def test_feature_with_a_name_that_tables_cannot_hold_is_refused(name: str) -> None:
    feature = {"aggregate": "sum", "of": "amount"}
    assert "is no name: up to 60 small letters" in refusal(document(views=view(**{name: feature})))


def test_source_column_with_a_name_of_the_lake_is_refused() -> None:
    sources = {"calls": {**CALLS, "columns": {**CALLS["columns"], "_row_no": "int64"}}}
    assert "sources.calls.columns: '_row_no'" in refusal(document(sources=sources))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("agent", ["ann", False]),  # YAML reads an unquoted `no` as false
        ("agent", [1]),
        ("age", ["30"]),
        ("age", [1.5]),
        ("age", [True]),
        ("amount", ["1.0"]),
        ("amount", [float("inf"), True]),
        ("bought", ["yes"]),
        ("at", ["soon"]),
        ("at", [2024]),
    ],
)
def test_in_set_value_of_another_type_is_refused(column: str, values: list[object]) -> None:
    rule = {"rule": "in_set", "column": column, "values": values}
    message = refusal(document(sources={"calls": {**CALLS, "rules": [rule]}}))
    assert f"sources.calls.rules.0.values: {values[-1]!r} is no" in message
    assert f"column {column}" in message


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("agent", ["ann", "no"]),
        ("age", [1, 2.0]),
        ("amount", [1, 2.5]),
        ("bought", [True, 0]),
        ("at", ["2024-01-31", "2024-01-31T10:00:00"]),
    ],
)
def test_in_set_value_of_the_column_type_is_accepted(column: str, values: list[object]) -> None:
    rule = {"rule": "in_set", "column": column, "values": values}
    accepted(document(sources={"calls": {**CALLS, "rules": [rule]}}))


def test_label_value_of_another_type_is_refused() -> None:
    label = {"kind": "column", "source": "calls", "column": "agent", "negative": "no"}
    assert "label.positive: 1 is no string" in refusal(document(label=label))


# labels of several sources


def also(name: str = "sent", **changes: Any) -> dict[str, Any]:
    """The calls, which a second source labels; some of the source's keys replaced."""
    columns = {name: CALLS["columns"][name] for name in ("client", "at", "loaded_at", "bought")}
    sent = {**CALLS, "uri": "sent", "columns": columns, **changes}
    made = document(sources={"calls": CALLS, "sent": sent})
    return {**made, "label": {**made["label"], "also": [name]}}


def test_label_may_have_a_second_source() -> None:
    assert accepted(also()).label.sources == ("calls", "sent")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (also("sentt"), "label.also[0]: 'sentt' is no source; did you mean 'sent'"),
        (also("calls"), "label.also: names a source of the label twice"),
        (also(key=["client"]), "sources.sent.key: has to be [client, at]"),
        (
            also(columns={**CALLS["columns"], "bought": "string"}),
            "sources.sent.columns.bought: has type string here and boolean in calls",
        ),
    ],
)
def test_second_source_that_cannot_label_the_rows_is_refused(
    given: dict[str, Any], expected: str
) -> None:
    assert expected in refusal(given)


def test_second_source_without_the_label_column_names_the_nearest() -> None:
    columns = {name: CALLS["columns"][name] for name in ("client", "at", "loaded_at")}
    found = refusal(also(columns={**columns, "bougth": "boolean"}))
    assert "label.also: 'bought' is no column of source sent; did you mean 'bougth'" in found


def test_feature_that_reads_the_label_of_a_second_source_is_refused() -> None:
    views = {
        "told": {
            "source": "sent",
            "online": False,
            "columns": {"frauds": {"aggregate": "count", "where": "bought", "dtype": "int64"}},
        }
    }
    assert "reads the label column bought" in refusal({**also(), "views": views})
