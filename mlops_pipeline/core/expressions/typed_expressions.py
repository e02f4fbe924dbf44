"""Expression trees with types: checked once, then built as functions of rows and of columns.

Belongs here: which types an operator takes and gives, and the walk that builds. What operators
compute is operators.py for a row, column_operators.py for columns; the Ibis twin is compile.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mlops_pipeline.core.expressions.compile import ALIKE, ARITHMETIC, LOGICAL
from mlops_pipeline.core.expressions.values import (
    COMPARISONS,
    INT64_MAX,
    INT64_MIN,
    Kind,
    common_kind,
)
from mlops_pipeline.spec.grammar import Call, Case, Column, Constant, Membership, Node

_Built = TypeVar("_Built")


@dataclass(frozen=True)
class Typed:
    """An operator with its operands, and the type of its values.

    Attributes
    ----------
    operator : str
        As in the grammar's Call, or "constant", "column", "as" (an integer, or null, as the
        node's type), "in", "case" (operands: condition, value, ..., the value otherwise).
    detail
        The constant; the column's place in a row; the set of an "in".
    """

    kind: Kind
    operator: str
    operands: tuple["Typed", ...] = ()
    detail: Any = None

    @property
    def of(self) -> Kind:
        """The type of the operands, of operators whose operands have one type."""
        return self.operands[0].kind


def typed_node(node: Node, columns: Mapping[str, tuple[int, Kind]]) -> Typed:
    """Give a tree its types.

    Parameters
    ----------
    columns : mapping of column name to place and type

    Raises
    ------
    TypeError
        When operands do not fit.
    """
    match node:
        case Constant(value):
            return Typed(_kind_of(value), "constant", detail=value)
        case Column(name):
            if name not in columns:
                raise TypeError(f"there is no column {name!r}")
            place, kind = columns[name]
            return Typed(kind, "column", detail=place)
        case Membership(operand, values):
            return _member(typed_node(operand, columns), values)
        case Case(branches, default):
            conditions = [_condition(typed_node(when, columns)) for when, _ in branches]
            results = [typed_node(then, columns) for _, then in branches]
            kind, (*results, other) = _alike([*results, typed_node(default, columns)])
            pairs = zip(conditions, results, strict=True)
            return Typed(kind, "case", (*(part for pair in pairs for part in pair), other))
        case Call(name, arguments):
            return _call(name, [typed_node(item, columns) for item in arguments])


def build(node: Typed, makers: Mapping[str, Callable[[Typed, Sequence[_Built]], _Built]]) -> _Built:
    """Build a tree bottom up; a maker takes a node and its built operands."""
    return makers[node.operator](node, [build(operand, makers) for operand in node.operands])


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


def _call(name: str, parts: list[Typed]) -> Typed:
    if name == "is null":
        return Typed("boolean", name, tuple(parts))
    if name in LOGICAL:
        return Typed("boolean", name, tuple(_of_type(name, part, "boolean") for part in parts))
    if name in ARITHMETIC:
        parts = [_of_type(name, part, "int64", "float64") for part in parts]
        if name in ("/", "ln"):
            return Typed("float64", name, tuple(_as(part, "float64") for part in parts))
    elif name not in ALIKE:
        raise TypeError(f"the operator {name!r} has no compilation")
    kind, parts = _alike(parts)
    return Typed("boolean" if name in COMPARISONS else kind, name, tuple(parts))


def _member(operand: Typed, values: Sequence[float | int | str | bool]) -> Typed:
    kind = common_kind([operand.kind, *map(_kind_of, values)])
    known = frozenset(map(float, values) if kind == "float64" else values)
    return Typed("boolean", "in", (_as(operand, kind),), known)


def _condition(part: Typed) -> Typed:
    if part.kind not in ("boolean", "null"):
        raise TypeError(f"'case' needs conditions, found {part.kind}")
    return _as(part, "boolean")


def _of_type(name: str, part: Typed, *wanted: Kind) -> Typed:
    """Check an operand of an arithmetic or logical operator; null becomes one of its type."""
    if part.kind == "null":
        return _as(part, wanted[0])
    if part.kind not in wanted:
        raise TypeError(f"{name!r} needs {' or '.join(wanted)}, found {part.kind}")
    return part


def _alike(parts: Sequence[Typed]) -> tuple[Kind, list[Typed]]:
    """Return the common type, and the operands as values of it."""
    kind = common_kind(part.kind for part in parts)
    return kind, [_as(part, kind) for part in parts]


def _as(part: Typed, kind: Kind) -> Typed:
    return part if part.kind == kind else Typed(kind, "as", (part,))
