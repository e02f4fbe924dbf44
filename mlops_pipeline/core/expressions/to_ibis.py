"""Expressions as Ibis expressions over the columns of a table.

Belongs here: what each operator is in Ibis, and a value as its declared type. Types are
type_check.py's; the same meaning over Python values is to_row.py's, and a property test holds both
equal.
"""

from collections.abc import Callable, Mapping
from typing import Any

from mlops_pipeline.core.expressions.type_check import (
    TypedNode,
    type_check,
    type_check_condition,
)
from mlops_pipeline.core.expressions.values import Kind
from mlops_pipeline.errors import ExpressionError
from mlops_pipeline.spec.grammar import Expression


def to_ibis(expression: Expression, table: Any) -> Any:
    """Return the value of an expression over the columns of an Ibis table."""
    return _built(type_check(expression, _kinds(expression, table)), table)


def condition(expression: Expression, table: Any) -> Any:
    """Return an expression that has to be true or false of a row (`where`, a check)."""
    return _built(type_check_condition(expression, _kinds(expression, table)), table)


def typed(value: Any, dtype: str, precision: int, *, is_finite: bool = False) -> Any:
    """Return a value as a declared type; floats are rounded, infinities and NaN are missing.

    The twin of values.converter. `is_finite` says that the value can be neither, and spares the
    test. A text declared as another type is refused: one bad row would fail a whole build.
    """
    if value.type().is_string() and dtype != "string":
        raise ExpressionError("a text is not of the declared type", expected="string", found=dtype)
    if dtype == "float64":
        import ibis

        number = value.cast("float64")
        if not is_finite and not value.type().is_integer():
            # NaN is above every number: one comparison tells both
            is_finite_number = number.abs() < ibis.literal(float("inf"))
            number = ibis.ifelse(is_finite_number, number, ibis.null("float64"))
        return number.round(precision).cast("float64")
    if dtype == "int64" and value.type().is_floating():
        return value.round().cast("int64")
    return value.cast(dtype)


def _kinds(expression: Expression, table: Any) -> dict[str, Kind]:
    types = table.schema()
    return {name: _kind_of(name, types[name]) for name in expression.columns if name in types}


def _kind_of(name: str, dtype: Any) -> Kind:
    kinds: Mapping[Kind, bool] = {
        "float64": dtype.is_floating() or dtype.is_decimal(),
        "int64": dtype.is_integer(),
        "string": dtype.is_string(),
        "boolean": dtype.is_boolean(),
        "timestamp": dtype.is_timestamp(),
        "date": dtype.is_date(),
        "null": dtype.is_null(),
    }
    for kind, is_kind in kinds.items():
        if is_kind:
            return kind
    raise ExpressionError(
        "a column has a type that no expression reads",
        where=name,
        expected=f"one of {', '.join(kinds)}",
        found=str(dtype),
    )


def _built(node: TypedNode, table: Any) -> Any:
    if node.operator == "column":
        column = table[node.detail]
        is_number = node.kind in ("float64", "int64")  # of any width in tables not of the lake
        return column.cast(node.kind) if is_number else column
    return _OPERATORS[node.operator](node, *(_built(part, table) for part in node.operands))


def _constant(node: TypedNode) -> Any:
    """Return a constant whose SQL has its type: engines read 0.1 as a decimal, 100 as 32 bits."""
    import ibis

    if node.kind == "null":
        return ibis.null()
    if node.kind in ("float64", "int64"):
        return ibis.literal(repr(node.detail)).cast(node.kind)
    return ibis.literal(node.detail)


def _compared(compare: Callable[[Any, Any], Any]) -> Callable[[TypedNode, Any, Any], Any]:
    """Return null for a comparison with the literal null, which Ibis would read as `is null`."""

    def compared(node: TypedNode, left: Any, right: Any) -> Any:
        import ibis

        if any(part.is_null for part in node.operands):
            return ibis.null("boolean")
        return compare(left, right)

    return compared


def _member(node: TypedNode, operand: Any) -> Any:
    import ibis

    if node.operands[0].is_null:
        return ibis.null("boolean")
    values = [_constant(TypedNode(node.of, "constant", detail=value)) for value in node.detail]
    operand = _closed(operand) if node.of == "boolean" else operand
    return _closed(operand.isin(values))


def _closed(test: Any) -> Any:
    """Put a test in a cast, which engines drop.

    Ibis writes `(not b) is null` and `(x = y) in (true)` without their parentheses.
    """
    from ibis.expr import operations

    return operations.Cast(test, to="boolean").to_expr()


def _logarithm(_node: TypedNode, value: Any) -> Any:
    import ibis

    return ibis.ifelse(value > 0, value, ibis.null("float64")).ln()


def _function(name: str) -> Callable[..., Any]:
    def call(_node: TypedNode, *values: Any) -> Any:
        import ibis

        return getattr(ibis, name)(*values)

    return call


def _case(_node: TypedNode, *parts: Any) -> Any:
    import ibis

    *pairs, default = parts
    return ibis.cases(*zip(pairs[::2], pairs[1::2], strict=True), else_=default)


_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "constant": _constant,
    "as": lambda node, value: value.cast(node.kind),
    "+": lambda _, left, right: left + right,
    "-": lambda _, left, right: left - right,
    "*": lambda _, left, right: left * right,
    "/": lambda _, left, right: left / right.nullif(0.0),
    "negate": lambda _, value: -value,
    "abs": lambda _, value: value.abs(),
    "ln": _logarithm,
    "=": _compared(lambda left, right: left == right),
    "!=": _compared(lambda left, right: left != right),
    "<": _compared(lambda left, right: left < right),
    "<=": _compared(lambda left, right: left <= right),
    ">": _compared(lambda left, right: left > right),
    ">=": _compared(lambda left, right: left >= right),
    "and": lambda _, left, right: left & right,
    "or": lambda _, left, right: left | right,
    "not": lambda _, value: _closed(~value),
    "is null": lambda _, value: value.isnull(),
    "in": _member,
    "nullif": lambda _, left, right: left.nullif(right),
    "coalesce": _function("coalesce"),
    "least": _function("least"),
    "greatest": _function("greatest"),
    "case": _case,
}
