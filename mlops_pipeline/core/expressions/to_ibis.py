"""Expressions as Ibis expressions over the columns of a table.

Belongs here: what each operator is in Ibis, and a value as its declared type. Types are types.py's;
the same meaning over Python values is to_row.py's, and a property test holds both equal.
"""

import operator
from collections.abc import Callable, Mapping
from operator import methodcaller
from typing import Any

from mlops_pipeline.core.expressions.types import Kind, TypedNode, type_check
from mlops_pipeline.errors import ExpressionError
from mlops_pipeline.spec.grammar import Expression


def to_ibis(expression: Expression, table: Any) -> Any:
    """Return the value of an expression over the columns of an Ibis table."""
    return _built(type_check(expression, _kinds(expression, table)), table)


def condition(expression: Expression, table: Any) -> Any:
    """Return an expression that has to be true or false of a row (`where`, a check)."""
    node = type_check(expression, _kinds(expression, table), is_condition=True)
    return _built(node, table)


def typed(value: Any, dtype: str, precision: int, *, is_finite: bool = False) -> Any:
    """Return a value as a declared type; floats are rounded, infinities and NaN are missing.

    The twin of types.converter. `is_finite` says that the value can be neither, and spares the
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
    if node.operator == "constant":
        return _constant(node.kind, node.detail)
    if node.operator == "column":
        column = table[node.detail]
        is_number = node.kind in ("float64", "int64")  # of any width in tables not of the lake
        return column.cast(node.kind) if is_number else column
    return _applied(node, [_built(part, table) for part in node.operands])


def _constant(kind: Kind, value: Any) -> Any:
    """Return a constant whose SQL has its type: engines read 0.1 as a decimal, 100 as 32 bits."""
    import ibis

    if kind in ("float64", "int64"):
        return ibis.literal(repr(value)).cast(kind)
    return ibis.null() if kind == "null" else ibis.literal(value)


def _applied(node: TypedNode, parts: list[Any]) -> Any:
    import ibis

    match node.operator:
        case "as":
            return parts[0].cast(node.kind)
        case "in" | "=" | "!=" | "<" | "<=" | ">" | ">=" if any(
            part.is_null for part in node.operands
        ):
            return ibis.null("boolean")  # Ibis would read a comparison with null as `is null`
        case "in":
            values = [_constant(node.of, value) for value in node.detail]
            operand = _closed(parts[0]) if node.of == "boolean" else parts[0]
            return _closed(operand.isin(values))
        case "ln":
            return ibis.ifelse(parts[0] > 0, parts[0], ibis.null("float64")).ln()
        case "coalesce" | "least" | "greatest" as name:
            return getattr(ibis, name)(*parts)
        case "case":
            *pairs, default = parts
            return ibis.cases(*zip(pairs[::2], pairs[1::2], strict=True), else_=default)
    return _OPERATORS[node.operator](*parts)


def _closed(test: Any) -> Any:
    """Put a test in a cast, which engines drop: Ibis writes `(not b) is null` without brackets."""
    from ibis.expr import operations

    return operations.Cast(test, to="boolean").to_expr()


_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda left, right: left / right.nullif(0.0),
    "negate": operator.neg,
    "abs": methodcaller("abs"),
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "and": operator.and_,
    "or": operator.or_,
    "not": lambda value: _closed(~value),
    "is null": methodcaller("isnull"),
    "nullif": lambda left, right: left.nullif(right),
}
