"""The row function against the Ibis compilation on DuckDB, over random expressions and values."""

import itertools
import math
import random
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

from mlops_pipeline.core.expressions.to_ibis import to_ibis, typed
from mlops_pipeline.core.expressions.to_row import (
    Declared,
    Function,
    row_function,
    values_function,
)
from mlops_pipeline.core.expressions.types import Kind, Value
from mlops_pipeline.errors import DataError, ExpressionError
from mlops_pipeline.spec.grammar import MAX_DEPTH, Expression
from mlops_pipeline_tests.core.expressions.expression_trees import COLUMNS, KINDS, expressions
from mlops_pipeline_tests.sizes import size
from mlops_pipeline_tests.worlds import TYPES

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
    max_examples=size(20, 80),
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


def assert_same(engine: Engine, built: Any, function: Function, *, failures: bool = False) -> None:
    """Every row has the same value of the row function and of DuckDB.

    With `failures`, those that fail do everywhere.

    Whether DuckDB computes, and so fails on, an operand that it does not need is up to its
    optimizer: `nullif(null, n * n)`.
    """
    found = outcomes(function, engine.rows)
    fine = [number for number, value in enumerate(found) if not isinstance(value, DataError)]
    expected = engine.values(built, fine) if fine else []
    for number, value in zip(fine, expected, strict=True):
        assert repr(found[number]) == repr(value), engine.rows[number]
    failing = [number for number, value in enumerate(found) if isinstance(value, DataError)]
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
    function = row_function(Expression.of(text), KINDS_OF)
    built = to_ibis(Expression.of(text), engine.table)
    assert function.kind == str(built.type())
    assert_same(engine, built, function.of_row)


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
    expected = compilation(lambda: str(to_ibis(Expression.of(text), engine.table).type()))
    assert compilation(lambda: row_function(Expression.of(text), KINDS_OF).kind) == expected


def compilation(compile_it: Callable[[], str]) -> str | tuple[str, str | None]:
    """The type of the values, or what the error says and where."""
    try:
        return compile_it()
    except ExpressionError as error:
        return error.what, error.where


@settings(EXAMPLES, max_examples=size(12, 40))
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
    function = row_function(Expression.of(text), KINDS_OF).of_row
    built = to_ibis(Expression.of(text), engine.table)
    assert_same(engine, built, function, failures=True)


FITTING = [
    *itertools.product(["x", "n", "b", "null"], ["float64", "int64", "boolean"]),
    *itertools.product(["x * 1000", "y / 7"], ["float64"]),
    *itertools.product(["n", "b", "s", "null"], ["string"]),
    ("case when x < 0 or x >= 0 then x end", "string"),
]


def declared(text: str, dtype: Kind, precision: int) -> Function:
    """The function of an expression's value as its declared type."""
    definitions = {"it": Declared(Expression.of(text), dtype, precision)}
    values = values_function(definitions, KINDS_OF, is_chained=False)
    return lambda row: values(row)[0]


@pytest.mark.parametrize("precision", [0, 1, 4, 12])
@pytest.mark.parametrize(("text", "dtype"), FITTING)
def test_declared_type_is_given_as_the_compiled_one_gives_it(
    engine: Engine, text: str, dtype: Kind, precision: int
) -> None:
    function = declared(text, dtype, precision)
    built = typed(to_ibis(Expression.of(text), engine.table), dtype, precision)
    assert_same(engine, built, function, failures=True)


@pytest.mark.parametrize("dtype", ["float64", "int64", "boolean"])
def test_text_declared_as_another_type_says_so(dtype: Kind) -> None:
    with pytest.raises(ExpressionError, match="does not fit the types") as caught:
        declared("s", dtype, 4)
    assert caught.value.found == f"a value of type string is declared {dtype}"


def test_overflow_says_what_to_do() -> None:
    function = row_function(Expression.of("n * n"), KINDS_OF)
    with pytest.raises(DataError, match="does not fit") as caught:
        function.of_row((None, None, BIG, None, None, None))
    assert caught.value.expected
    assert caught.value.found == str(BIG * BIG)
    assert caught.value.way_out


def test_row_function_takes_the_columns_in_their_order() -> None:
    columns: dict[str, Kind] = {"n": "int64", "x": "float64"}
    function = row_function(Expression.of("coalesce(x, n) + 1"), columns)
    assert [*map(function.of_row, [(1, None), (2, 2.5), (None, None)])] == [2.0, 3.5, None]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("case when n = 1 then n * n when n > 1 then m end", [1, 8]),
        ("case when n > 1 then 0 else n * n end", [1, 0]),
        ("coalesce(m, n * n)", [1, 8]),
        ("case when b then case when n > 1 then m else n * n end else 0 end", [1, 0]),
    ],
)
def test_operand_that_no_row_needs_does_not_fail(text: str, values: list[Value]) -> None:
    columns: dict[str, Kind] = {"n": "int64", "m": "int64", "b": "boolean"}
    m = None if text.startswith("coalesce") else 7
    rows = [(1, m, True), (BIG, 8, None)]
    assert [*map(row_function(Expression.of(text), columns).of_row, rows)] == values


DAY, LATER = datetime(2025, 1, 1), datetime(2025, 1, 2)  # noqa: DTZ001 # naive means UTC
TIMES: dict[str, Kind] = {"t": "timestamp", "u": "timestamp", "d": "date"}
TIME_ROWS = [
    *((DAY, LATER, DAY.date()), (None, DAY, LATER.date()), (LATER, DAY, None), (None, None, None))
]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("greatest(t, u)", [LATER, DAY, LATER, None]),
        ("t = d", [True, None, None, None]),
        ("t > '2025-01-01'", [False, None, True, None]),
        ("t >= '2025-01-02T01:00+01:00'", [False, None, True, None]),
        ("d < '2025-01-01 12:00'", [True, False, None, None]),
        ("coalesce(t, d)", [DAY, LATER, LATER, None]),
        ("case when d is null then '2025-01-01' else u end", [LATER, DAY, DAY, DAY]),
    ],
)
def test_times_are_compared_and_chosen_as_the_engine_does(text: str, values: list[Value]) -> None:
    found = [*map(row_function(Expression.of(text), TIMES).of_row, TIME_ROWS)]
    assert found == values
    names = dict(zip(TIMES, zip(*TIME_ROWS, strict=True), strict=True))
    types = {"timestamp": pa.timestamp("us"), "date": pa.date32()}
    table = pa.table({name: pa.array(names[name], types[kind]) for name, kind in TIMES.items()})
    connection = ibis.duckdb.connect(threads=1)
    given = connection.create_table("times", table)
    built = connection.to_pyarrow(given.select(v=to_ibis(Expression.of(text), given)))
    assert built["v"].to_pylist() == values


@pytest.mark.parametrize("text", ["t > 'yesterday'", "t > '2025-13-01'", "t = 1", "t > s", "t + 1"])
def test_what_is_no_time_beside_a_time_says_so(text: str) -> None:
    columns: dict[str, Kind] = {"t": "timestamp", "s": "string"}
    with pytest.raises(ExpressionError, match="does not fit the types") as caught:
        row_function(Expression.of(text), columns)
    assert caught.value.where == text
    assert caught.value.found


def test_row_condition_is_true_false_or_missing() -> None:
    condition = row_function(Expression.of("x > 1"), KINDS_OF, is_condition=True).of_row
    assert [condition((x,)) for x in (2.0, 1.0, None)] == [True, False, None]
    with pytest.raises(ExpressionError, match="not a condition"):
        row_function(Expression.of("x + 1"), KINDS_OF, is_condition=True)


def test_case_of_more_branches_than_python_nests_compiles() -> None:
    branches = " ".join(f"when n = {number} then {number}" for number in range(130))
    function = row_function(Expression.of(f"case {branches} end"), {"n": "int64"})
    assert [function.of_row((n,)) for n in (0, 129, 130, None)] == [0, 129, None, None]


def test_deepest_expression_compiles() -> None:
    text = "n"
    for _ in range(MAX_DEPTH // 2 - 1):
        text = f"case when n > 0 then coalesce(null, {text}) end"
    function = row_function(Expression.of(text), {"n": "int64"})
    assert [function.of_row((n,)) for n in (3, 0, None)] == [3, None, None]


def test_functions_whose_names_are_those_of_columns_read_the_columns() -> None:
    kinds: dict[str, Kind] = {"amount": "float64", "rate": "float64"}
    texts = {"amount": "amount * 2", "rate": "amount + rate"}
    definitions = {n: Declared(Expression.of(text), "float64", 2) for n, text in texts.items()}
    assert values_function(definitions, kinds, is_chained=False)((10.0, 1.0)) == [20.0, 11.0]
    assert values_function(definitions, kinds, is_chained=True)((10.0, 1.0)) == [20.0, 21.0]
