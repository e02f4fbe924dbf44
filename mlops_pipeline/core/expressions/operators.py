"""The operators of expressions as functions of a row of Python values; missing is None.

Belongs here: what an operator makes of its operands, themselves functions of the row. Which types
fit is typed_expressions.py; the same operators over whole columns are column_operators.py.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlops_pipeline.core.expressions.typed_expressions import Typed
from mlops_pipeline.core.expressions.values import COMPARISONS, comparison, int64

Function = Callable[[Sequence[Any]], Any]
Maker = Callable[[Typed, Sequence[Function]], Function]
ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "negate": operator.neg,
    "abs": abs,
}


def _lifted(compute: Callable[..., Any], functions: Sequence[Function]) -> Function:
    """Apply an operator to one or two operands; a missing one makes the result missing."""
    if len(functions) == 1:
        (only,) = functions

        def of_one(row: Sequence[Any]) -> Any:
            value = only(row)
            return None if value is None else compute(value)

        return of_one
    first, second = functions

    def of_two(row: Sequence[Any]) -> Any:
        left, right = first(row), second(row)
        return None if left is None or right is None else compute(left, right)

    return of_two


def logarithm(value: float) -> float | None:
    """Return the natural logarithm, None of a number not above zero."""
    return None if value <= 0 else math.log(value)


def _constant(node: Typed, _functions: Sequence[Function]) -> Function:
    value = node.detail
    return lambda _row: value


def _column(node: Typed, _functions: Sequence[Function]) -> Function:
    return operator.itemgetter(node.detail)


def _as(node: Typed, functions: Sequence[Function]) -> Function:
    return functions[0] if node.of == "null" else _lifted(float, functions)


def _is_null(_node: Typed, functions: Sequence[Function]) -> Function:
    (function,) = functions
    return lambda row: function(row) is None


def _arithmetic(node: Typed, functions: Sequence[Function]) -> Function:
    compute = ARITHMETIC[node.operator]
    if node.kind == "int64":
        return _lifted(lambda *values: int64(compute(*values)), functions)
    return _lifted(compute, functions)


def _compared(node: Typed, functions: Sequence[Function]) -> Function:
    return _lifted(comparison(node.operator, node.of), functions)


def _and(_node: Typed, functions: Sequence[Function]) -> Function:
    first, second = functions

    def of_row(row: Sequence[Any]) -> bool | None:
        left, right = first(row), second(row)
        if left is False or right is False:
            return False
        return None if left is None or right is None else True

    return of_row


def _or(_node: Typed, functions: Sequence[Function]) -> Function:
    first, second = functions

    def of_row(row: Sequence[Any]) -> bool | None:
        left, right = first(row), second(row)
        if left or right:
            return True
        return None if left is None or right is None else False

    return of_row


def _coalesce(_node: Typed, functions: Sequence[Function]) -> Function:
    def of_row(row: Sequence[Any]) -> Any:
        for function in functions:
            value = function(row)
            if value is not None:
                return value
        return None

    return of_row


def _nullif(node: Typed, functions: Sequence[Function]) -> Function:
    equal, (first, second) = comparison("=", node.of), functions

    def of_row(row: Sequence[Any]) -> Any:
        left, right = first(row), second(row)
        if left is None or (right is not None and equal(left, right)):
            return None
        return left

    return of_row


def _extreme(sign: str) -> Maker:
    def make(node: Typed, functions: Sequence[Function]) -> Function:
        beats = comparison(sign, node.of)

        def of_row(row: Sequence[Any]) -> Any:
            found = None
            for function in functions:
                value = function(row)
                if value is not None and (found is None or beats(value, found)):
                    found = value
            return found

        return of_row

    return make


def _case(_node: Typed, functions: Sequence[Function]) -> Function:
    *pairs, default = functions
    branches = tuple(zip(pairs[::2], pairs[1::2], strict=True))

    def of_row(row: Sequence[Any]) -> Any:
        for when, then in branches:
            if when(row):
                return then(row)
        return default(row)

    return of_row


OF_ROW: Mapping[str, Maker] = {
    "constant": _constant,
    "column": _column,
    "as": _as,
    "is null": _is_null,
    "/": lambda _node, parts: _lifted(lambda left, right: left / right if right else None, parts),
    "ln": lambda _node, parts: _lifted(logarithm, parts),
    "and": _and,
    "or": _or,
    "not": lambda _node, parts: _lifted(operator.not_, parts),
    "in": lambda node, parts: _lifted(node.detail.__contains__, parts),
    "coalesce": _coalesce,
    "nullif": _nullif,
    "least": _extreme("<"),
    "greatest": _extreme(">"),
    "case": _case,
    **dict.fromkeys(ARITHMETIC, _arithmetic),
    **dict.fromkeys(COMPARISONS, _compared),
}
