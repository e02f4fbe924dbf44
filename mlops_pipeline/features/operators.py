"""The operators of expressions as functions of a row of Python values; missing is None.

Belongs here: what an operator makes of its operands, themselves functions of the row. Which types
fit, and the walk over the tree, are rows.py.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from mlops_pipeline.features.values import Kind, comparison

Function = Callable[[Sequence[Any]], Any]


def lifted(compute: Callable[..., Any], functions: Sequence[Function]) -> Function:
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


def _divided(first: Function, second: Function) -> Function:
    return lifted(lambda left, right: left / right if right else None, (first, second))


def _logarithm(function: Function) -> Function:
    return lifted(lambda value: None if value <= 0 else math.log(value), (function,))


def _and(first: Function, second: Function) -> Function:
    def of_row(row: Sequence[Any]) -> bool | None:
        left, right = first(row), second(row)
        if left is False or right is False:
            return False
        return None if left is None or right is None else True

    return of_row


def _or(first: Function, second: Function) -> Function:
    def of_row(row: Sequence[Any]) -> bool | None:
        left, right = first(row), second(row)
        if left or right:
            return True
        return None if left is None or right is None else False

    return of_row


def _coalesce(functions: Sequence[Function], _kind: Kind) -> Function:
    def of_row(row: Sequence[Any]) -> Any:
        for function in functions:
            value = function(row)
            if value is not None:
                return value
        return None

    return of_row


def _nullif(functions: Sequence[Function], kind: Kind) -> Function:
    equal, (first, second) = comparison("=", kind), functions

    def of_row(row: Sequence[Any]) -> Any:
        left, right = first(row), second(row)
        if left is None or (right is not None and equal(left, right)):
            return None
        return left

    return of_row


def _extreme(sign: str) -> Callable[[Sequence[Function], Kind], Function]:
    def make(functions: Sequence[Function], kind: Kind) -> Function:
        beats = comparison(sign, kind)

        def of_row(row: Sequence[Any]) -> Any:
            found = None
            for function in functions:
                value = function(row)
                if value is not None and (found is None or beats(value, found)):
                    found = value
            return found

        return of_row

    return make


OF_FLOATS: dict[str, Callable[..., Function]] = {"/": _divided, "ln": _logarithm}
OF_TRUTHS: dict[str, Callable[..., Function]] = {
    "and": _and,
    "or": _or,
    "not": lambda function: lifted(operator.not_, (function,)),
}
OF_NUMBERS: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "negate": operator.neg,
    "abs": abs,
}
CHOICES: dict[str, Callable[[Sequence[Function], Kind], Function]] = {
    "coalesce": _coalesce,
    "nullif": _nullif,
    "least": _extreme("<"),
    "greatest": _extreme(">"),
}
