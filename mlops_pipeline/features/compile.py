"""Expression trees -> Ibis expressions: the engine-independent meaning of the grammar.

Belongs here: the compilation. The grammar itself is config/expressions.py.
"""

from collections.abc import Callable
from typing import Any

from mlops_pipeline.config.expressions import Call, Case, Column, Constant, Membership, Node, parse
from mlops_pipeline.errors import ExpressionError

_ARITHMETIC = frozenset({"+", "-", "*", "/", "negate", "abs", "ln"})
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "=": lambda left, right: _unless_null(left, right, left == right),
    "!=": lambda left, right: _unless_null(left, right, left != right),
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
    "and": lambda left, right: left & right,
    "or": lambda left, right: left | right,
    "nullif": lambda left, right: left.nullif(right),
}


def compiled(expression: str, table: Any) -> Any:
    """Compile an expression over the columns of an Ibis table.

    Raises
    ------
    ExpressionError
        When the types of the columns do not fit the operators.
    """
    try:
        return compile_node(parse(expression), table)
    except ExpressionError:
        raise
    except Exception as error:  # Ibis raises many types for it
        raise ExpressionError(
            "the expression does not fit the types of its columns",
            where=expression,
            found=str(error).splitlines()[0][:200],
        ) from error


def condition(expression: str, table: Any) -> Any:
    """Compile an expression that has to be true or false of a row (`where`, a check).

    Raises
    ------
    ExpressionError
        When it is not a condition, or its types do not fit.
    """
    value = compiled(expression, table)
    if not (value.type().is_boolean() or value.type().is_null()):
        raise ExpressionError(
            "the expression is not a condition",
            where=expression,
            expected="true or false, for example a comparison",
            found=f"a value of type {value.type()}",
        )
    return value


def compile_node(node: Node, table: Any) -> Any:
    """Compile one node; see config/expressions.py for the semantics."""
    import ibis

    match node:
        case Constant(value):
            return ibis.null() if value is None else ibis.literal(value)
        case Column(name):
            return table[name]
        case Membership(operand, values):
            return _member(compile_node(operand, table), values)
        case Case(branches, default):
            pairs = [
                (compile_node(when, table), compile_node(then, table)) for when, then in branches
            ]
            return ibis.cases(*pairs, else_=compile_node(default, table))
        case Call(name, arguments):
            return _call(name, [compile_node(item, table) for item in arguments])


def _call(name: str, arguments: list[Any]) -> Any:
    if name in _ARITHMETIC:
        for argument in arguments:
            if not (argument.type().is_numeric() or argument.type().is_null()):
                raise TypeError(f"{name!r} needs numbers, found {argument.type()}")
    if name in _BINARY:
        return _BINARY[name](*arguments)
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](arguments)
    raise ExpressionError(f"the operator {name!r} has no compilation")


def _unless_null(left: Any, right: Any, result: Any) -> Any:
    """Return null for a comparison with the literal null, which Ibis would read as `is null`."""
    import ibis

    is_null = left.type().is_null() or right.type().is_null()
    return ibis.null("boolean") if is_null else result


def _member(operand: Any, values: tuple[float | int | str | bool, ...]) -> Any:
    import ibis

    for value in values:
        if not ibis.literal(value).type().is_string() == operand.type().is_string():
            raise TypeError(f"{operand.type()} is compared with {value!r}")
    return operand.isin(values)


def _divide(arguments: list[Any]) -> Any:
    return arguments[0].cast("float64") / arguments[1].cast("float64").nullif(0.0)


def _logarithm(arguments: list[Any]) -> Any:
    import ibis

    return ibis.ifelse(arguments[0] > 0, arguments[0].cast("float64"), ibis.null("float64")).ln()


def _coalesce(arguments: list[Any]) -> Any:
    import ibis

    return ibis.coalesce(*arguments)


def _least(arguments: list[Any]) -> Any:
    import ibis

    return ibis.least(*arguments)


def _greatest(arguments: list[Any]) -> Any:
    import ibis

    return ibis.greatest(*arguments)


_FUNCTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "/": _divide,
    "not": lambda arguments: ~arguments[0],
    "negate": lambda arguments: -arguments[0],
    "is null": lambda arguments: arguments[0].isnull(),
    "abs": lambda arguments: arguments[0].abs(),
    "ln": _logarithm,
    "coalesce": _coalesce,
    "least": _least,
    "greatest": _greatest,
}
