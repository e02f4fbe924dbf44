"""Expression trees -> functions of one row of Python values: the online twin of compile.py.

Belongs here: the compilation, and the derived features of a row. The operators are
operators.py, values and types values.py; aggregates over events are streams.py.

Types are checked once, when an expression is compiled; a row then costs a call or two an operator,
less than operations on one-element arrays would. A column of many rows is the same function along
it. A property test holds both compilations equal.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, cast

from mlops_pipeline.config.expressions import Call, Case, Column, Constant, Membership, Node, parse
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import ExpressionError
from mlops_pipeline.features.compile import ALIKE, ARITHMETIC, LOGICAL
from mlops_pipeline.features.operators import (
    CHOICES,
    OF_FLOATS,
    OF_NUMBERS,
    OF_TRUTHS,
    Function,
    lifted,
)
from mlops_pipeline.features.values import (
    INT64_MAX,
    INT64_MIN,
    Kind,
    Value,
    common_kind,
    comparison,
    converter,
    int64,
)

COMPILED = 4_096  # expressions kept; a use case has tens


class _Part(NamedTuple):
    kind: Kind
    of_row: Function


@dataclass(frozen=True)
class RowFunction:
    """A compiled expression.

    Attributes
    ----------
    kind : Kind
        The type of its values.
    columns : tuple of str
        What a row holds, in this order.
    of_row : callable
        Takes the values of one row, returns the value; raises DataError for an integer result
        outside int64.
    """

    kind: Kind
    columns: tuple[str, ...]
    of_row: Function

    def of_columns(self, columns: Mapping[str, Sequence[Value]]) -> list[Value]:
        """Return the value of every row; the columns have one length."""
        rows = zip(*(columns[name] for name in self.columns), strict=True)
        return list(map(self.of_row, rows))


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


def typed_function(
    expression: str, columns: Mapping[str, Kind], dtype: str, precision: int
) -> Function:
    """Compile an expression, and give its value the declared type (see values.converter).

    Raises
    ------
    ExpressionError
        When the types do not fit.
    """
    function = row_function(expression, columns)
    of_row = function.of_row
    try:
        convert = converter(function.kind, dtype, precision)
    except TypeError as error:
        raise _misfit(expression, error) from error
    return lambda row: convert(of_row(row))


class DerivedFeatures:
    """The derived features of a use case, from the values of its other features.

    Parameters
    ----------
    use_case : UseCase
        Compiled once, when this is made.

    Attributes
    ----------
    inputs : tuple of str
        The features of the views, all of which a row has to give, as values or None.
    names : tuple of str
        The derived features.
    """

    def __init__(self, use_case: UseCase) -> None:
        columns = {
            name: cast(Kind, column.dtype)
            for view in use_case.views.values()
            for name, column in view.columns.items()
        }
        self.inputs = tuple(columns)
        self.names = tuple(use_case.derived)
        self._steps: list[Function] = []
        for name, item in use_case.derived.items():
            step = typed_function(item.expression, columns, item.dtype, item.precision)
            self._steps.append(step)
            columns[name] = item.dtype

    def of_row(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return the derived features of one row, in order."""
        return dict(zip(self.names, self._derived([values[n] for n in self.inputs]), strict=True))

    def of_columns(self, columns: Mapping[str, Sequence[Value]]) -> dict[str, list[Value]]:
        """Return the derived features of many rows; the columns have one length."""
        rows = zip(*(columns[name] for name in self.inputs), strict=True)
        derived = [self._derived(list(row)) for row in rows]
        return {name: [row[place] for row in derived] for place, name in enumerate(self.names)}

    def _derived(self, row: list[Any]) -> list[Any]:
        """Return the derived features of a row, which is extended by them."""
        for step in self._steps:
            row.append(step(row))
        return row[len(self.inputs) :]


@lru_cache(maxsize=COMPILED)
def _row_function(expression: str, columns: tuple[tuple[str, Kind], ...]) -> RowFunction:
    places = {name: (index, kind) for index, (name, kind) in enumerate(columns)}
    try:
        part = _compiled(parse(expression), places)
    except TypeError as error:
        raise _misfit(expression, error) from error
    return RowFunction(part.kind, tuple(places), part.of_row)


def _misfit(expression: str, error: TypeError) -> ExpressionError:
    return ExpressionError(
        "the expression does not fit the types of its columns",
        where=expression,
        found=str(error),
    )


def _compiled(node: Node, places: Mapping[str, tuple[int, Kind]]) -> _Part:
    match node:
        case Constant(value):
            return _Part(_kind_of(value), lambda _row: value)
        case Column(name):
            if name not in places:
                raise TypeError(f"there is no column {name!r}")
            index, kind = places[name]
            return _Part(kind, operator.itemgetter(index))
        case Membership(operand, values):
            return _member(_compiled(operand, places), values)
        case Case(branches, default):
            conditions = [_compiled(when, places) for when, _ in branches]
            results = [_compiled(then, places) for _, then in branches]
            return _case(conditions, [*results, _compiled(default, places)])
        case Call(name, arguments):
            return _call(name, [_compiled(item, places) for item in arguments])


def _kind_of(value: float | int | str | bool | None) -> Kind:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, float):
        return "float64"
    if not INT64_MIN <= value <= INT64_MAX:
        raise TypeError(f"{value} is outside int64; write it as a float, with a point")
    return "int64"


# types


def _alike(parts: Sequence[_Part]) -> tuple[Kind, list[Function]]:
    """Return the common type and the operands as functions of it."""
    kind = common_kind(part.kind for part in parts)
    convert = kind == "float64"
    return kind, [
        _as_float(part.of_row) if convert and part.kind == "int64" else part.of_row
        for part in parts
    ]


def _as_float(function: Function) -> Function:
    def of_row(row: Sequence[Any]) -> float | None:
        value = function(row)
        return None if value is None else float(value)

    return of_row


def _of_type(name: str, part: _Part) -> _Part:
    """Check an operand of an arithmetic or logical operator; null becomes one of its type."""
    wanted: tuple[Kind, ...] = ("boolean",) if name in LOGICAL else ("int64", "float64")
    if part.kind == "null":
        return _Part(wanted[0], part.of_row)
    if part.kind not in wanted:
        raise TypeError(f"{name!r} needs {' or '.join(wanted)}, found {part.kind}")
    return part


# operators


def _call(name: str, parts: list[_Part]) -> _Part:
    if name in ARITHMETIC or name in LOGICAL:
        parts = [_of_type(name, part) for part in parts]
    if name in ("/", "ln"):
        return _Part("float64", OF_FLOATS[name](*(_as_float(part.of_row) for part in parts)))
    if name == "is null":
        function = parts[0].of_row
        return _Part("boolean", lambda row: function(row) is None)
    kind, functions = _alike(parts)
    if name in LOGICAL:
        return _Part("boolean", OF_TRUTHS[name](*functions))
    if name in OF_NUMBERS:
        compute = OF_NUMBERS[name]
        if kind == "int64":
            return _Part(kind, lifted(lambda *values: int64(compute(*values)), functions))
        return _Part(kind, lifted(compute, functions))
    if name in CHOICES:
        return _Part(kind, CHOICES[name](functions, kind))
    if name in ALIKE:
        return _Part("boolean", lifted(comparison(name, kind), functions))
    raise TypeError(f"the operator {name!r} has no compilation")


def _member(operand: _Part, values: Sequence[float | int | str | bool]) -> _Part:
    kind, (function, *_) = _alike(
        [operand, *(_Part(_kind_of(value), lambda _row: None) for value in values)]
    )
    known = frozenset(map(float, values) if kind == "float64" else values)
    if operand.kind == "null":
        return _Part("boolean", lambda _row: None)
    return _Part("boolean", lifted(known.__contains__, (function,)))


def _case(conditions: Sequence[_Part], values: Sequence[_Part]) -> _Part:
    for condition in conditions:
        if condition.kind not in ("boolean", "null"):
            raise TypeError(f"'case' needs conditions, found {condition.kind}")
    kind, (*results, default) = _alike(values)
    branches = [(part.of_row, then) for part, then in zip(conditions, results, strict=True)]

    def of_row(row: Sequence[Any]) -> Any:
        for when, then in branches:
            if when(row):
                return then(row)
        return default(row)

    return _Part(kind, of_row)
