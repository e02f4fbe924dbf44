"""The row function against the Ibis compilation on DuckDB, over random expressions and values."""

import itertools
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import duckdb
import ibis
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mlops_pipeline.core.expressions.compile import compiled
from mlops_pipeline.core.features.rows import (
    MANY,
    Declared,
    RowFunction,
    RowFunctions,
    derived_features,
    row_function,
    typed_function,
)

from mlops_pipeline.config import UseCase
from mlops_pipeline.core.expressions.values import Kind, Value
from mlops_pipeline.core.features.aggregates import typed
from mlops_pipeline.errors import DataError, ExpressionError
from mlops_pipeline_tests.core.expressions.expression_trees import COLUMNS, KINDS, expressions
from mlops_pipeline_tests.worlds import TYPES, shop

KINDS_OF = cast(dict[str, Kind], COLUMNS)
BIG = 2**63 - 1
ROWS = 160
FLOATS = [
    *(0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -0.5, 2.5, 0.1, 0.49999999999999994, 1e-320, 5e-324),
    *(1e308, -1e308, 1.7e308, 1e15, 2.0**52 + 1, 2.0**53, 2.0**63, -(2.0**63), 123456.789),
    *(math.inf, -math.inf, math.nan, None, None),
]
INTEGERS = [0, 1, -1, 2, 3, -7, 10, 2**31, 2**53 + 1, 3037000500, BIG, -BIG, -BIG - 1, None]
TEXTS = ["", "a", "b", "B", "it's", "é", "\U0001f600", "10", None]
EXAMPLES = settings(
    max_examples=80,
    deadline=None,
    report_multiple_bugs=False,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def random_rows() -> list[tuple[Value, ...]]:
    """Rows of special values, and of values of random size."""
    chance = random.Random(20250601)
    pools = {"float64": FLOATS, "int64": INTEGERS, "string": TEXTS, "boolean": [True, False, None]}
    rows = []
    for _ in range(ROWS):
        row = [chance.choice(cast(list[Value], pools[kind])) for kind in COLUMNS.values()]
        if chance.random() < 0.5:
            row[0] = chance.uniform(-1, 1) * 10.0 ** chance.randint(-8, 20)
            row[2] = chance.randint(-(10**6), 10**6)
        rows.append(tuple(row))
    return rows


@dataclass
class Engine:
    """DuckDB with the rows in a table, numbered."""

    table: Any
    connection: Any
    rows: list[tuple[Value, ...]] = field(repr=False)

    def values(self, built: Any, numbers: Sequence[int]) -> list[Value]:
        """The values of an Ibis expression in some rows."""
        table = self.table
        query = table.filter(table.number.isin(list(numbers))).order_by("number").select(v=built)
        found: list[Value] = (
            self.connection.con.sql(ibis.to_sql(query, dialect="duckdb"))
            .to_arrow_table()["v"]
            .to_pylist()
        )
        return found


@pytest.fixture(scope="module")
def engine() -> Engine:
    rows = random_rows()
    connection = ibis.duckdb.connect(threads=1)
    arrays = {
        name: pa.array([row[place] for row in rows], TYPES[kind])
        for place, (name, kind) in enumerate(COLUMNS.items())
    }
    table = pa.table({"number": pa.array(range(ROWS)), **arrays})
    return Engine(connection.create_table("given", table), connection, rows)


def outcomes(function: Callable[[Any], Value], rows: Sequence[Any]) -> list[Value | DataError]:
    found: list[Value | DataError] = []
    for row in rows:
        try:
            found.append(function(row))
        except DataError as error:
            found.append(error)
    return found


def of_columns(function: RowFunction, rows: Sequence[Any]) -> list[Value]:
    columns = [[row[place] for row in rows] for place in range(len(COLUMNS))]
    return function.of_columns(dict(zip(COLUMNS, columns, strict=True)))


def assert_same(
    engine: Engine, built: Any, function: RowFunction, *, failures: bool = False
) -> None:
    """Every row has the same value of the row, of columns and of DuckDB.

    With `failures`, those that fail do everywhere.

    Whether DuckDB computes, and so fails on, an operand that it does not need is up to its
    optimizer: `nullif(null, n * n)`.
    """
    found = outcomes(function.of_row, engine.rows)
    fine = [number for number, value in enumerate(found) if not isinstance(value, DataError)]
    expected = engine.values(built, fine) if fine else []
    for number, value in zip(fine, expected, strict=True):
        assert repr(found[number]) == repr(value), engine.rows[number]
    assert repr(of_columns(function, [engine.rows[number] for number in fine])) == repr(
        [found[number] for number in fine]
    )
    failing = [number for number, value in enumerate(found) if isinstance(value, DataError)]
    for number in failing[:20]:
        with pytest.raises(DataError, match=re.escape(str(found[number]))):
            of_columns(function, [*(engine.rows[other] for other in fine), engine.rows[number]])
    for number in failing[:2] if failures else []:
        with pytest.raises(duckdb.Error):
            engine.values(built, [number])


@EXAMPLES
@given(text=KINDS.flatmap(expressions))
@example(text="(x is not null) is null")
@example(text="(not b) in (true, false)")
@example(text="(x in (1, 2.5)) is null")
@example(text="(x = x) in (true)")
@example(text="0.1 + 0.2")
@example(text="n * 0.1")
@example(text="2000000000 + 2000000000")
@example(text="nullif(n, 9007199254740992.0)")
@example(text="least(x, y, n)")
def test_row_function_of_a_random_expression_equals_the_compiled_one(
    engine: Engine, text: str
) -> None:
    function = row_function(text, KINDS_OF)
    built = compiled(text, engine.table)
    assert function.kind == str(built.type())
    assert_same(engine, built, function)


@EXAMPLES
@given(text=KINDS.flatmap(lambda kind: expressions(kind, mixed=True)))
@example(text="b = 1")
@example(text="not n")
@example(text="n and m")
@example(text="s in (1)")
@example(text="b in (1)")
@example(text="null in ('a')")
@example(text="coalesce(null, null) + 1")
@example(text="case when b then n when coalesce(null, null) then x end")
@example(text="case when n then x end")
@example(text="9223372036854775808")
@example(text="unknown + 1")
def test_row_function_of_unfitting_operands_fails_as_the_compiled_one(
    engine: Engine, text: str
) -> None:
    expected = compilation(lambda: str(compiled(text, engine.table).type()))
    assert compilation(lambda: row_function(text, KINDS_OF).kind) == expected


def compilation(compile_it: Callable[[], str]) -> str | tuple[str, str | None]:
    """The type of the values, or what the error says and where."""
    try:
        return compile_it()
    except ExpressionError as error:
        return error.what, error.where


@settings(EXAMPLES, max_examples=40)
@given(
    text=st.recursive(
        st.sampled_from(["n", "m"]),
        lambda part: st.one_of(
            st.builds("({} {} {})".format, part, st.sampled_from("+-*"), part),
            st.builds("abs({})".format, part),
            st.builds("(- ({}))".format, part),
        ),
        max_leaves=4,
    )
)
@example(text="-n")
@example(text="abs(n)")
def test_integer_overflow_fails_in_the_same_rows(engine: Engine, text: str) -> None:
    function = row_function(text, KINDS_OF)
    built = compiled(text, engine.table)
    assert_same(engine, built, function, failures=True)


FITTING = [
    *itertools.product(["x", "n", "b", "null"], ["float64", "int64", "boolean"]),
    *itertools.product(["x * 1000", "y / 7"], ["float64"]),
    *itertools.product(["n", "b", "s", "null"], ["string"]),
    ("case when x < 0 or x >= 0 then x end", "string"),
]


@pytest.mark.parametrize("precision", [0, 1, 4, 12])
@pytest.mark.parametrize(("text", "dtype"), FITTING)
def test_declared_type_is_given_as_the_compiled_one_gives_it(
    engine: Engine, text: str, dtype: Kind, precision: int
) -> None:
    function = typed_function(Declared(text, dtype, precision), KINDS_OF)
    built = typed(compiled(text, engine.table), dtype, precision)
    assert_same(engine, built, function, failures=True)


@pytest.mark.parametrize("dtype", ["float64", "int64", "boolean"])
def test_text_declared_as_another_type_says_so(dtype: Kind) -> None:
    with pytest.raises(ExpressionError, match="does not fit the types") as caught:
        typed_function(Declared("s", dtype, 4), KINDS_OF)
    assert caught.value.found == f"a value of type string is declared {dtype}"


def test_overflow_says_what_to_do() -> None:
    function = row_function("n * n", KINDS_OF)
    with pytest.raises(DataError, match="does not fit") as caught:
        function.of_row((None, None, BIG, None, None, None))
    assert caught.value.expected
    assert caught.value.found == str(BIG * BIG)
    assert caught.value.way_out


def test_row_function_of_columns_takes_them_by_name() -> None:
    function = row_function("coalesce(x, n) + 1", {"n": "int64", "x": "float64"})
    assert function.of_columns({"x": [None, 2.5, None], "n": [1, 2, None]}) == [2.0, 3.5, None]
    assert function.of_columns({"x": [], "n": []}) == []


@pytest.mark.parametrize(
    "text",
    [
        "case when n = 1 then n * n when n > 1 then m end",
        "case when n > 1 then 0 else n * n end",
        "coalesce(m, n * n)",
        "case when b then case when n > 1 then m else n * n end else 0 end",
    ],
)
def test_operand_that_no_row_needs_does_not_fail_of_columns(text: str) -> None:
    function = row_function(text, {"n": "int64", "m": "int64", "b": "boolean"})
    columns: dict[str, list[Value]] = {"n": [1, BIG], "m": [7, 8], "b": [True, None]}
    if text.startswith("coalesce"):
        columns["m"] = [None, 8]
    rows = list(zip(*columns.values(), strict=True))
    assert function.of_columns(columns) == [function.of_row(row) for row in rows]


def test_times_of_columns_are_compared_and_chosen() -> None:
    day, later = datetime(2025, 1, 1), datetime(2025, 1, 2)  # noqa: DTZ001 # naive means UTC
    function = row_function("greatest(t, u)", {"t": "timestamp", "u": "timestamp"})
    columns: dict[str, list[Value]] = {"t": [day, None, later, None], "u": [later, day, day, None]}
    assert function.of_columns(columns) == [later, day, later, None]


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
    assert derived.of_rows([(100.0, 3), (None, 0)]) == [
        [33.33, True, "high"],
        [None, None, "low"],
    ]
    assert derived.of_rows([]) == []


@pytest.mark.parametrize("rows", [MANY - 1, MANY, 3 * MANY])
def test_derived_features_of_many_rows_are_those_of_each(rows: int) -> None:
    derived = derived_features(shop_with_derived(), ("visits", "spent"))
    given: list[tuple[Value, ...]] = [
        (number % 7 or None, None if number % 5 == 0 else number * 3.3) for number in range(rows)
    ]
    assert derived.of_rows(given) == [values for row in given for values in derived.of_rows([row])]


def test_functions_whose_names_are_those_of_columns_read_the_columns() -> None:
    kinds: dict[str, Kind] = {"amount": "float64", "rate": "float64"}
    texts = ["amount * 2", "amount + rate"]
    functions = RowFunctions(
        tuple(kinds.values()),
        [typed_function(Declared(text, "float64", 2), kinds) for text in texts],
    )
    row: tuple[Value, ...] = (10.0, 1.0)
    assert functions.of_rows([row]) == [[20.0, 11.0]]
    assert functions.of_rows([row] * MANY) == [[20.0, 11.0]] * MANY
