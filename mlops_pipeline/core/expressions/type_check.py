"""Expression trees with types, checked once for every engine.

Belongs here: which types an operator takes and gives. Nothing is left to an engine's own promotion
rules: an integer beside a float becomes one by an explicit "as". What operators compute is
to_ibis.py of a table, to_row.py of a row of Python values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from mlops_pipeline.core.expressions.values import INT64_MAX, INT64_MIN, Kind, common_kind
from mlops_pipeline.errors import ExpressionError
from mlops_pipeline.spec.grammar import (
    Call,
    Case,
    Column,
    Constant,
    Expression,
    Membership,
    Node,
)

ARITHMETIC = frozenset({"+", "-", "*", "/", "negate", "abs", "ln"})
LOGICAL = frozenset({"and", "or", "not"})
COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">="})
OF_ONE_TYPE = COMPARISONS | {"nullif", "coalesce", "least", "greatest"}
TIMES = ("timestamp", "date")


@dataclass(frozen=True)
class TypedNode:
    """An operator with its operands, and the type of its values.

    Attributes
    ----------
    operator : str
        As in the grammar's Call, or "constant", "column", "as" (a null, an integer or a date, as
        the node's type), "in", "case" (operands: condition, value, ..., the value otherwise).
    detail
        The constant; the name of a column; the values of an "in".
    """

    kind: Kind
    operator: str
    operands: tuple["TypedNode", ...] = ()
    detail: Any = None

    @property
    def of(self) -> Kind:
        """The type of the operands, of operators whose operands have one type."""
        return self.operands[0].kind

    @property
    def is_null(self) -> bool:
        """Nothing but null, as whatever type."""
        return self.kind == "null" or (self.operator == "as" and self.of == "null")


def type_check(expression: Expression, columns: Mapping[str, Kind]) -> TypedNode:
    """Give an expression over columns of these types its types."""
    try:
        return _typed(expression.tree, columns)
    except TypeError as error:
        raise misfit(expression, error) from error


def type_check_condition(expression: Expression, columns: Mapping[str, Kind]) -> TypedNode:
    """Do the same with an expression that has to be true or false (`where`, a check)."""
    node = type_check(expression, columns)
    if node.kind not in ("boolean", "null"):
        raise ExpressionError(
            "the expression is not a condition",
            where=expression.text,
            expected="true or false, for example a comparison",
            found=f"a value of type {node.kind}",
        )
    return node


def misfit(expression: Expression, error: TypeError) -> ExpressionError:
    """Return the error of an expression whose operands do not fit."""
    return ExpressionError(
        "the expression does not fit the types of its columns",
        where=expression.text,
        found=str(error),
    )


def _typed(node: Node, columns: Mapping[str, Kind]) -> TypedNode:
    match node:
        case Constant(value):
            return TypedNode(_kind_of(value), "constant", detail=value)
        case Column(name):
            if name not in columns:
                raise TypeError(f"there is no column {name!r}")
            return TypedNode(columns[name], "column", detail=name)
        case Membership(operand, values):
            part = _typed(operand, columns)
            kind = common_kind([part.kind, *map(_kind_of, values)])
            known = tuple(map(float, values)) if kind == "float64" else values
            return TypedNode("boolean", "in", (_as(part, kind),), known)
        case Case(branches, default):
            conditions = [_condition(_typed(when, columns)) for when, _ in branches]
            results = [_typed(then, columns) for _, then in branches]
            kind, (*results, other) = _of_one_type([*results, _typed(default, columns)])
            pairs = zip(conditions, results, strict=True)
            return TypedNode(kind, "case", (*(part for pair in pairs for part in pair), other))
        case Call(name, arguments):
            return _call(name, [_typed(item, columns) for item in arguments])


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


def _call(name: str, parts: list[TypedNode]) -> TypedNode:
    if name == "is null":
        return TypedNode("boolean", name, tuple(parts))
    if name in LOGICAL:
        return TypedNode("boolean", name, tuple(_wanted(name, part, "boolean") for part in parts))
    if name in ARITHMETIC:
        parts = [_wanted(name, part, "int64", "float64") for part in parts]
        if name in ("/", "ln"):
            return TypedNode("float64", name, tuple(_as(part, "float64") for part in parts))
    elif name not in OF_ONE_TYPE:
        raise TypeError(f"the operator {name!r} has no types")
    kind, parts = _of_one_type(parts)
    return TypedNode("boolean" if name in COMPARISONS else kind, name, tuple(parts))


def _condition(part: TypedNode) -> TypedNode:
    if part.kind not in ("boolean", "null"):
        raise TypeError(f"'case' needs conditions, found {part.kind}")
    return _as(part, "boolean")


def _wanted(name: str, part: TypedNode, *wanted: Kind) -> TypedNode:
    """Check an operand of an arithmetic or logical operator; null becomes one of its type."""
    if part.kind == "null":
        return _as(part, wanted[0])
    if part.kind not in wanted:
        raise TypeError(f"{name!r} needs {' or '.join(wanted)}, found {part.kind}")
    return part


def _of_one_type(parts: Sequence[TypedNode]) -> tuple[Kind, list[TypedNode]]:
    """Return the common type, and the operands as values of it; a text beside a time is a time."""
    if any(part.kind in TIMES for part in parts):
        parts = [_time(part) if part.operator == "constant" else part for part in parts]
    kind = common_kind(part.kind for part in parts)
    return kind, [_as(part, kind) for part in parts]


def _time(constant: TypedNode) -> TypedNode:
    if constant.kind != "string":
        return constant
    try:
        if len(constant.detail) <= len("2025-01-31"):
            return TypedNode("date", "constant", detail=date.fromisoformat(constant.detail))
        time = datetime.fromisoformat(constant.detail)
    except ValueError as error:
        raise TypeError(f"{constant.detail!r} is no time (ISO 8601)") from error
    is_aware = time.tzinfo is not None
    naive = time.astimezone(UTC).replace(tzinfo=None) if is_aware else time
    return TypedNode("timestamp", "constant", detail=naive)


def _as(part: TypedNode, kind: Kind) -> TypedNode:
    return part if part.kind == kind else TypedNode(kind, "as", (part,))
