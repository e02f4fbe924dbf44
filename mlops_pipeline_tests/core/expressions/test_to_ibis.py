"""What expressions mean, as DuckDB computes them."""

from typing import Any

import ibis
import pytest

from mlops_pipeline.core.expressions.to_ibis import condition, to_ibis
from mlops_pipeline.errors import ExpressionError
from mlops_pipeline.spec.grammar import Expression

SCHEMA = {"x": "float64", "y": "float64", "n": "int64", "s": "string", "b": "boolean"}


@pytest.fixture(scope="module")
def connection() -> Any:
    return ibis.duckdb.connect(threads=1)


def evaluate(connection: Any, text: str, **row: Any) -> Any:
    table = ibis.memtable([{**dict.fromkeys(SCHEMA), **row}], schema=SCHEMA)
    expression = table.select(value=to_ibis(Expression.of(text), table))
    value = connection.to_pyarrow(expression).column("value")[0].as_py()
    return round(value, 12) if isinstance(value, float) else value


@pytest.mark.parametrize(
    ("text", "row", "value"),
    [
        ("x + y * 2", {"x": 1.0, "y": 3.0}, 7.0),
        ("(x + y) * 2", {"x": 1.0, "y": 3.0}, 8.0),
        ("-x", {"x": 1.5}, -1.5),
        ("n / 2", {"n": 3}, 1.5),
        ("1 / 2", {}, 0.5),
        ("x / y", {"x": 1.0, "y": 0.0}, None),
        ("n / 0", {"n": 1}, None),
        ("0 / 0", {}, None),
        ("ln(x)", {"x": 1.0}, 0.0),
        ("ln(x)", {"x": 0.0}, None),
        ("ln(x)", {"x": -1.0}, None),
        ("ln(n)", {"n": 0}, None),
        ("ln(x)", {}, None),
        ("abs(n)", {"n": -4}, 4),
        ("nullif(n, 999)", {"n": 999}, None),
        ("nullif(n, 999)", {"n": 3}, 3),
        ("coalesce(x, y, 0)", {"y": 2.0}, 2.0),
        ("coalesce(x, y, 0)", {}, 0.0),
        ("least(x, y)", {"x": 2.0}, 2.0),
        ("greatest(x, y)", {"y": 2.0}, 2.0),
        ("least(x, y, 1)", {"x": 3.0, "y": 2.0}, 1.0),
        ("greatest(x, y)", {}, None),
    ],
)
def test_arithmetic_has_its_documented_value(
    connection: Any, text: str, row: dict[str, Any], value: object
) -> None:
    assert evaluate(connection, text, **row) == value


@pytest.mark.parametrize(
    ("text", "row", "value"),
    [
        ("x + 1", {}, None),
        ("x < 1", {}, None),
        ("s = 'a'", {}, None),
        ("s != 'a'", {}, None),
        ("s = null", {"s": "a"}, None),
        ("s in ('a', 'b')", {"s": "b"}, True),
        ("s in ('a', 'b')", {"s": "c"}, False),
        ("s in ('a', 'b')", {}, None),
        ("s not in ('a', 'b')", {}, None),
        ("s not in ('a', 'b')", {"s": "c"}, True),
        ("n in (1, 2.5)", {"n": 1}, True),
        ("s is null", {}, True),
        ("s is not null", {}, False),
        ("not b", {}, None),
        ("b and x > 0", {"x": 0.0}, False),
        ("b or x > 0", {"x": 1.0}, True),
        ("b or x > 0", {"x": 0.0}, None),
        ("b = true", {"b": True}, True),
        ("x <= 1 and x >= 1", {"x": 1.0}, True),
    ],
)
def test_conditions_have_three_valued_logic(
    connection: Any, text: str, row: dict[str, Any], value: object
) -> None:
    assert evaluate(connection, text, **row) is value


@pytest.mark.parametrize(
    ("row", "value"), [({"n": 5}, "low"), ({"n": 50}, "high"), ({"n": 20}, None), ({}, None)]
)
def test_case_takes_the_first_branch_that_holds(
    connection: Any, row: dict[str, Any], value: str | None
) -> None:
    text = "case when n < 10 then 'low' when n > 30 then 'high' end"
    assert evaluate(connection, text, **row) == value


def test_case_without_a_true_branch_takes_its_default(connection: Any) -> None:
    assert evaluate(connection, "case when n < 10 then 1 else 0 end") == 0


@pytest.mark.parametrize(
    "text",
    [
        "ln(s)",
        "s * 2",
        "s + 'a'",
        "-s",
        "abs(s)",
        "n and b",
        "x in ('a')",
        "s in (1, 2)",
        "s = 1",
        "x < 'a'",
        "missing + 1",
    ],
)
def test_expression_that_does_not_fit_its_columns_says_so(text: str) -> None:
    table = ibis.table(SCHEMA, name="t")
    with pytest.raises(ExpressionError, match="does not fit the types") as caught:
        to_ibis(Expression.of(text), table)
    assert caught.value.where == text
    assert caught.value.found


def test_condition_that_is_no_truth_value_says_so() -> None:
    table = ibis.table(SCHEMA, name="t")
    with pytest.raises(ExpressionError, match="not a condition") as caught:
        condition(Expression.of("x + 1"), table)
    assert caught.value.where == "x + 1"
    assert caught.value.expected
    assert "float64" in str(caught.value.found)
    assert condition(Expression.of("x > 1"), table).type().is_boolean()


def test_number_of_another_width_is_computed_with_64_bits() -> None:
    table = ibis.table({"n": "int8", "x": "float32"}, name="t")
    types = [str(to_ibis(Expression.of(text), table).type()) for text in ("n + n", "x * x")]
    assert types == ["int64", "float64"]


def test_column_of_a_type_that_no_expression_reads_says_so() -> None:
    table = ibis.table({"a": "array<int64>"}, name="t")
    with pytest.raises(ExpressionError, match="no expression reads") as caught:
        to_ibis(Expression.of("a is null"), table)
    assert (caught.value.where, caught.value.found) == ("a", "array<int64>")
    assert caught.value.expected
