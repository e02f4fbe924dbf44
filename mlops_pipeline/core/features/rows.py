"""Expressions compiled to functions of rows of Python values: the online twin of compile.py.

Belongs here: a compiled expression, and several that are computed of the same rows, derived
features among them. Types are typed_expressions.py, operators operators.py (a row) and
column_operators.py (columns); aggregates over events are streams.py.

Both forms are compiled: one row is cheapest as calls on plain values, many are as NumPy columns. A
property test holds them, and the Ibis compilation, equal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.expressions.cells import Batch, Cells, Selection, cells_converter
from mlops_pipeline.core.expressions.column_operators import OF_COLUMNS, ColumnFunction
from mlops_pipeline.core.expressions.operators import OF_ROW, Function
from mlops_pipeline.core.expressions.typed_expressions import build, typed_node
from mlops_pipeline.core.expressions.values import Kind, Value, converter
from mlops_pipeline.errors import ExpressionError
from mlops_pipeline.spec.grammar import parse

COMPILED = 4_096  # expressions kept; a use case has tens
MANY = 64  # rows from which on columns are the faster form (docs/decisions/0013)


@dataclass(frozen=True)
class RowFunction:
    """A compiled expression.

    Attributes
    ----------
    kind : Kind
        The type of its values.
    columns : mapping of str to Kind
        What a row holds, in this order.
    of_row : callable
        Takes the values of one row, returns the value; raises DataError for an integer result
        outside int64.
    of_cells : callable
        Takes rows as columns, returns the column of their values; raises as `of_row` does for
        any of them.
    """

    kind: Kind
    columns: Mapping[str, Kind]
    of_row: Function
    of_cells: ColumnFunction

    def of_columns(self, columns: Mapping[str, Sequence[Value]]) -> list[Value]:
        """Return the value of every row; the columns have one length, missing is None."""
        rows = list(zip(*(columns[name] for name in self.columns), strict=True))
        return self.of_batch(Batch(rows, tuple(self.columns.values()))).tolist()

    def of_batch(self, batch: Batch) -> Cells:
        """Return the column of the values of every row; infinities and NaN are no warnings."""
        with np.errstate(all="ignore"):
            return self.of_cells(Selection(batch))


class Declared(NamedTuple):
    """An expression with the type that its value is declared to have."""

    expression: str
    dtype: Kind
    precision: int


def row_function(expression: str, columns: Mapping[str, Kind]) -> RowFunction:
    """Compile an expression over rows of the given columns; compiled ones are kept.

    Parameters
    ----------
    columns : mapping of column name to type
        Its order is that of a row's values, which are of their column's type or None.

    Raises
    ------
    ExpressionError
        When the types of the columns do not fit the operators.
    """
    return _row_function(expression, tuple(columns.items()))


def typed_function(declared: Declared, columns: Mapping[str, Kind]) -> RowFunction:
    """Compile an expression, and give its value the declared type (see values.converter).

    Raises
    ------
    ExpressionError
        When the types do not fit.
    """
    expression, dtype, precision = declared
    function = row_function(expression, columns)
    try:
        convert = converter(function.kind, dtype, precision)
    except TypeError as error:
        raise _misfit(expression, error) from error
    convert_cells = cells_converter(function.kind, dtype, precision, convert)
    of_row, of_cells = function.of_row, function.of_cells
    return RowFunction(
        dtype,
        function.columns,
        lambda row: convert(of_row(row)),
        lambda rows: convert_cells(of_cells(rows)),
    )


class RowFunctions:
    """Several functions of the same rows, each of which may read the values of those before it.

    Parameters
    ----------
    kinds : sequence of Kind
        The types of a row's values.
    functions : sequence of RowFunction
        Compiled for rows of these types and, after them, the values of the functions before it.
    """

    def __init__(self, kinds: Sequence[Kind], functions: Sequence[RowFunction]) -> None:
        self._width, self._functions = len(kinds), tuple(functions)
        self._kinds = (*kinds, *(function.kind for function in functions))

    def of_rows(self, rows: Sequence[Sequence[Value]]) -> list[list[Value]]:
        """Return the values of each row, one for each function; missing is None.

        Raises
        ------
        DataError
            For an integer result outside int64.
        """
        if not self._functions:
            return [[] for _ in rows]
        return self._of_many(rows) if len(rows) >= MANY else [*map(self._of_one, rows)]

    def _of_one(self, values: Sequence[Value]) -> list[Value]:
        row = list(values)
        for function in self._functions:
            row.append(function.of_row(row))
        return row[self._width :]

    def _of_many(self, rows: Sequence[Sequence[Value]]) -> list[list[Value]]:
        batch, found = Batch(rows, self._kinds), list[list[Value]]()
        for place, function in enumerate(self._functions, self._width):
            cells = function.of_batch(batch)
            batch.put(place, cells)
            found.append(cells.tolist())
        return [list(row) for row in zip(*found, strict=True)]


def derived_features(use_case: UseCase, inputs: Sequence[str]) -> RowFunctions:
    """Compile the derived features of a use case, in their order.

    Parameters
    ----------
    inputs : sequence of str
        The features of the views, in the order in which a row gives them.
    """
    dtypes = {
        name: cast(Kind, column.dtype)
        for view in use_case.views.values()
        for name, column in view.columns.items()
    }
    columns = {name: dtypes[name] for name in inputs}
    functions = []
    for name, item in use_case.derived.items():
        declared = Declared(item.expression, item.dtype, item.precision)
        functions.append(typed_function(declared, columns))
        columns[name] = item.dtype
    return RowFunctions([dtypes[name] for name in inputs], functions)


@lru_cache(maxsize=COMPILED)
def _row_function(expression: str, columns: tuple[tuple[str, Kind], ...]) -> RowFunction:
    places = {name: (place, kind) for place, (name, kind) in enumerate(columns)}
    try:
        tree = typed_node(parse(expression), places)
    except TypeError as error:
        raise _misfit(expression, error) from error
    return RowFunction(tree.kind, dict(columns), build(tree, OF_ROW), build(tree, OF_COLUMNS))


def _misfit(expression: str, error: TypeError) -> ExpressionError:
    return ExpressionError(
        "the expression does not fit the types of its columns",
        where=expression,
        found=str(error),
    )
