"""Expression trees -> Ibis expressions: the engine-independent meaning of the grammar.

Belongs here: the compilation. The grammar itself is spec/grammar.py; the same meaning over
Python values is rows.py. Nothing is left to an engine's own promotion rules: numbers are float64
or int64, an integer that meets a float becomes one by an explicit cast.
"""

from collections.abc import Callable
from typing import Any

from mlops_pipeline.core.expressions.values import INT64_MAX, INT64_MIN
from mlops_pipeline.errors import ExpressionError
from mlops_pipeline.spec.grammar import Call, Case, Column, Constant, Membership, Node, parse

ARITHMETIC = frozenset({"+", "-", "*", "/", "negate", "abs", "ln"})
LOGICAL = frozenset({"and", "or", "not"})
ALIKE = frozenset("=|!=|<|<=|>|>=|nullif|coalesce|least|greatest".split("|"))  # noqa: SIM905 # one line
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
    """Compile one node; see spec/grammar.py for the semantics."""
    import ibis

    match node:
        case Constant(value):
            return _literal(value)
        case Column(name):
            return table[name]
        case Membership(operand, values):
            return _member(compile_node(operand, table), values)
        case Case(branches, default):
            conditions = [
                _of_type("case", compile_node(when, table), "boolean") for when, _ in branches
            ]
            results = [compile_node(then, table) for _, then in branches]
            *results, other = _alike([*results, compile_node(default, table)])
            return ibis.cases(*zip(conditions, results, strict=True), else_=other)
        case Call(name, arguments):
            return _call(name, [compile_node(item, table) for item in arguments])


def _literal(value: float | int | str | bool | None) -> Any:
    """Return a constant whose SQL has its type: engines read 0.1 as a decimal, 100 as 32 bits."""
    import ibis

    if value is None:
        return ibis.null()
    if isinstance(value, bool | str):
        return ibis.literal(value)
    if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        raise TypeError(f"{value} is outside int64; write it as a float, with a point")
    return ibis.literal(repr(value)).cast("float64" if isinstance(value, float) else "int64")


def _call(name: str, arguments: list[Any]) -> Any:
    if name in ARITHMETIC:
        arguments = [_of_type(name, item, "int64") for item in arguments]
    elif name in LOGICAL:
        arguments = [_of_type(name, item, "boolean") for item in arguments]
    if name in ALIKE or name in ("+", "-", "*"):
        arguments = _alike(arguments)
    if name in _BINARY:
        return _BINARY[name](*arguments)
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](arguments)
    raise ExpressionError(f"the operator {name!r} has no compilation")


def _of_type(name: str, argument: Any, kind: str) -> Any:
    """Check an operand: a number for `int64`, a truth value for `boolean`; null becomes one."""
    found = argument.type()
    if found.is_null():
        return argument.cast(kind)
    if not (found.is_boolean() if kind == "boolean" else found.is_numeric()):
        wanted = "truth values" if kind == "boolean" else "numbers"
        raise TypeError(f"{name!r} needs {wanted}, found {found}")
    return argument


def _alike(values: list[Any]) -> list[Any]:
    """Cast integers beside floats to float64; a truth value stands beside its like only."""
    types = [value.type() for value in values if not value.type().is_null()]
    if any(kind.is_boolean() for kind in types) and not all(kind.is_boolean() for kind in types):
        raise TypeError(f"values of types {', '.join(map(str, types))} do not go together")
    if not any(kind.is_floating() for kind in types):
        return values
    return [value.cast("float64") if value.type().is_integer() else value for value in values]


def _unless_null(left: Any, right: Any, result: Any) -> Any:
    """Return null for a comparison with the literal null, which Ibis would read as `is null`."""
    import ibis

    is_null = left.type().is_null() or right.type().is_null()
    return ibis.null("boolean") if is_null else result


def _member(operand: Any, values: tuple[float | int | str | bool, ...]) -> Any:
    import ibis

    operand, *literals = _alike([operand, *map(_literal, values)])
    if operand.type().is_null():
        return ibis.null("boolean")
    for value, item in zip(values, literals, strict=True):
        if item.type().is_string() != operand.type().is_string():
            raise TypeError(f"{operand.type()} is compared with {value!r}")
    operand = _closed(operand) if operand.type().is_boolean() else operand
    return _closed(operand.isin(literals))


def _divide(arguments: list[Any]) -> Any:
    return arguments[0].cast("float64") / arguments[1].cast("float64").nullif(0.0)


def _logarithm(arguments: list[Any]) -> Any:
    import ibis

    return ibis.ifelse(arguments[0] > 0, arguments[0].cast("float64"), ibis.null("float64")).ln()


def _negated(arguments: list[Any]) -> Any:
    return _closed(~arguments[0])


def _closed(test: Any) -> Any:
    """Put a test in a cast, which engines drop.

    Ibis writes `(not b) is null` and `(x = y) in (true)` without their parentheses.
    """
    from ibis.expr import operations

    return operations.Cast(test, to="boolean").to_expr()


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
    "not": _negated,
    "negate": lambda arguments: -arguments[0],
    "is null": lambda arguments: arguments[0].isnull(),
    "abs": lambda arguments: arguments[0].abs(),
    "ln": _logarithm,
    "coalesce": _coalesce,
    "least": _least,
    "greatest": _greatest,
}
