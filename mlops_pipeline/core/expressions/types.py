"""Types: of values, of expressions, declared ones; what the engine does to one value, as Python.

Belongs here: which types an operator takes and gives, checked once for every engine, so that
nothing is left to an engine's own promotion rules; rounding and conversion. Values are plain Python
objects, missing is None; timestamps are naive and mean UTC. What operators compute is to_ibis.py of
a table, to_row.py of a row of Python values.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

from mlops_pipeline.errors import DataError, ExpressionError
from mlops_pipeline.spec.grammar import Call, Case, Column, Constant, Expression, Membership, Node

Kind = Literal["float64", "int64", "string", "boolean", "timestamp", "date", "null"]
Value = float | int | str | bool | datetime | date | None

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
BELOW_HALF = math.nextafter(0.5, 0.0)  # 0.5 itself would round 0.49999999999999994 up
_WORD = 2**64
_WIDE_LIMIT = 10**38  # of DECIMAL(38), which holds the squares of a deviation
ARITHMETIC = frozenset({"+", "-", "*", "/", "negate", "abs", "ln"})
LOGICAL = frozenset({"and", "or", "not"})
COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">="})
OF_ONE_TYPE = COMPARISONS | {"nullif", "coalesce", "least", "greatest"}
TIMES = ("timestamp", "date")


@dataclass(frozen=True)
class TypedNode:
    """An operator with its operands, and the type of its values.

    Operators are those of the grammar's Call, "constant", "column", "as" (a null, an integer or a
    date, as the node's type), "in", "case" (operands: condition, value, ..., the value otherwise).
    """

    kind: Kind
    operator: str
    operands: tuple["TypedNode", ...] = ()
    detail: Any = None  # the constant, the name of a column, the values of an "in"

    @property
    def of(self) -> Kind:
        """The type of the operands, of operators whose operands have one type."""
        return self.operands[0].kind

    @property
    def is_null(self) -> bool:
        """Nothing but null, as whatever type."""
        return self.kind == "null" or (self.operator == "as" and self.of == "null")


def type_check(
    expression: Expression, columns: Mapping[str, Kind], *, is_condition: bool = False
) -> TypedNode:
    """Give an expression over columns of these types its types; a condition is true or false."""
    try:
        node = _typed(expression.tree, columns)
    except TypeError as error:
        raise misfit(expression, error) from error
    if is_condition and node.kind not in ("boolean", "null"):
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
            conditions = [_wanted("case", _typed(when, columns), "boolean") for when, _ in branches]
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


def _wanted(name: str, part: TypedNode, *wanted: Kind) -> TypedNode:
    """Check an operand that has to be of some type; null becomes one of its type."""
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


def common_kind(kinds: Iterable[Kind]) -> Kind:
    """Return the type that values of these types share; nulls fit any. TypeError: there is none."""
    found = set(kinds) - {"null"}
    if found == {"int64", "float64"}:
        return "float64"
    if found == {"date", "timestamp"}:
        return "timestamp"
    if len(found) > 1:
        raise TypeError(f"values of types {', '.join(sorted(found))} do not go together")
    return found.pop() if found else "null"


def int64(value: int) -> int:
    """Return an integer of 64 bits; DataError when it is not, as of the offline engine."""
    if INT64_MIN <= value <= INT64_MAX:
        return value
    raise _outside(value)


def whole(value: float) -> int:
    """Round a float to an int64, halves away from zero."""
    rounded = round_half_away(value, 1.0)
    if not -(2.0**63) <= rounded < 2.0**63:
        raise _outside(value)
    return int(rounded)


def decimal38(value: int) -> int:
    """Return an integer of at most 38 digits."""
    if -_WIDE_LIMIT < value < _WIDE_LIMIT:
        return value
    raise _outside(value, "an integer of at most 38 digits")


def double_of(value: int) -> float:
    """Convert a 128-bit integer as DuckDB does: in two words, so a last bit may differ."""
    if -_WORD <= value < 0:
        return -float(-value - 1) - 1.0
    return float(value & (_WORD - 1)) + float(value >> 64) * float(_WORD - 1)


def _outside(value: float, expected: str = "an integer of 64 bits") -> DataError:
    return DataError(
        "a number does not fit its integer type",
        expected=expected,
        found=str(value),
        way_out="compute with floats, for example 1.0 * n",
    )


def round_half_away(value: float, modifier: float) -> float:
    """Round to a decimal place (`modifier`: 10 to the power of its number), halves away from 0."""
    scaled = value * modifier
    if scaled > 0:
        rounded = (scaled + BELOW_HALF) // 1.0 / modifier
    elif scaled < 0:
        rounded = -((BELOW_HALF - scaled) // 1.0) / modifier
    else:
        return value
    return rounded if math.isfinite(rounded) else value


def converter(kind: Kind, dtype: str, precision: int) -> Callable[[Any], Any]:
    """Return the function that makes a value its declared type; missing stays missing.

    The twin of to_ibis.typed: floats are rounded to the precision, infinities and NaN become
    missing; floats declared int64 are rounded halves away from zero.
    TypeError: values of the type cannot be declared so, as text or a time as a number.
    """
    if kind == dtype and dtype != "float64":
        return unchanged
    if kind == "null":
        return lambda _: None
    if dtype != "float64" or kind not in ("float64", "int64", "boolean"):
        conversion = _CONVERSIONS.get((kind, dtype))
        if conversion is None:
            raise TypeError(f"a value of type {kind} is declared {dtype}")
        return lambda value: None if value is None else conversion(value)
    modifier = 10.0**precision
    # to 0 places by way of int64, as the compiled rounding does
    rounded = round_half_away if precision else lambda number, _: float(whole(number))

    def convert(value: Any) -> float | None:
        if value is None:
            return None
        number = float(value)
        return rounded(number, modifier) if math.isfinite(number) else None

    return convert


def unchanged(value: Any) -> Any:
    """Return a value that has its declared type."""
    return value


_CONVERSIONS: dict[tuple[str, str], Callable[[Any], Value]] = {
    ("float64", "int64"): whole,
    ("boolean", "int64"): int,
    ("float64", "string"): repr,
    ("int64", "string"): str,
    ("boolean", "string"): lambda value: "true" if value else "false",
    ("float64", "boolean"): bool,
    ("int64", "boolean"): bool,
}
