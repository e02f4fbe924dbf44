"""Expressions as one Python function of a row of plain values, missing is None.

Belongs here: what each operator is in Python source, and its writer. The source holds names and
operators that are written here, nothing else: what a configuration says is bound to names. An
operand that a row does not need, as a branch not taken, is not computed for it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, time
from functools import lru_cache
from typing import Any, NamedTuple

from mlops_pipeline.core.expressions.types import (
    Kind,
    TypedNode,
    Value,
    converter,
    int64,
    misfit,
    type_check,
    unchanged,
)
from mlops_pipeline.spec.grammar import Expression

COMPILED = 4_096  # functions kept; a use case has tens
Function = Callable[[Sequence[Any]], Any]


class RowFunction(NamedTuple):
    """A function of a row's values (DataError: an integer outside int64), and its result's type."""

    kind: Kind
    of_row: Function


class Declared(NamedTuple):
    """An expression with the type that its value is declared to have."""

    expression: Expression
    dtype: Kind
    precision: int


def row_function(
    expression: Expression, columns: Mapping[str, Kind], *, is_condition: bool = False
) -> RowFunction:
    """Compile an expression over rows that hold values of these columns, in their order."""
    return _row_function(expression, tuple(columns.items()), is_condition)


@lru_cache(maxsize=COMPILED)
def _row_function(
    expression: Expression, columns: tuple[tuple[str, Kind], ...], is_condition: bool
) -> RowFunction:
    node = type_check(expression, dict(columns), is_condition=is_condition)
    writer = _Writer(dict(columns))
    return RowFunction(node.kind, writer.function(writer.write(node)))


def values_function(
    definitions: Mapping[str, Declared], columns: Mapping[str, Kind], *, is_chained: bool
) -> Callable[[Sequence[Value]], list[Value]]:
    """Compile expressions to one function of a row; `is_chained`: each may read those before it."""
    kinds, writer, found = dict(columns), _Writer(columns), []
    for name, (expression, dtype, precision) in definitions.items():
        node = type_check(expression, kinds)
        try:
            convert = converter(node.kind, dtype, precision)
        except TypeError as error:
            raise misfit(expression, error) from error
        found.append(writer.converted(writer.write(node), convert))
        if is_chained:
            kinds[name], writer.columns[name] = dtype, found[-1]
    return writer.function(f"[{', '.join(found)}]")


# a template of an operand's name; a missing operand makes the result missing
_OF_PRESENT: Mapping[str, str] = {
    "+": "{} + {}",
    "-": "{} - {}",
    "*": "{} * {}",
    "/": "{0} / {1} if {1} else None",
    "negate": "-{}",
    "abs": "abs({})",
    "ln": "log({0}) if not {0} <= 0 else None",
    "not": "not {}",
    "=": "{0} == {1}",
    "!=": "{0} != {1}",
    "<": "{0} < {1}",
    "<=": "{0} <= {1}",
    ">": "{0} > {1}",
    ">=": "{0} >= {1}",
}
# comparisons of floats: NaN equals NaN and is above every number
_EQUAL = "({0} == {1} or {0} != {0} and {1} != {1})"
_LESS = "({0} < {1} or {1} != {1} and {0} == {0})"
_GREATER = "({0} > {1} or {0} != {0} and {1} == {1})"
_OF_FLOATS: Mapping[str, str] = {
    "=": _EQUAL,
    "!=": f"not {_EQUAL}",
    "<": _LESS,
    "<=": f"not {_GREATER}",
    ">": _GREATER,
    ">=": f"not {_LESS}",
}
_OF_ANY: Mapping[str, str] = {  # these see to missing operands themselves
    "is null": "{} is None",
    "and": "False if {0} is False or {1} is False else None if None in ({0}, {1}) else True",
    "or": "True if {0} or {1} else None if None in ({0}, {1}) else False",
}


def _comparison(name: str, kind: Kind) -> str:
    return (_OF_FLOATS if kind == "float64" else _OF_PRESENT)[name]


class _Writer:
    """Writes the lines of a function; what is computed stands in a variable of its own."""

    def __init__(self, columns: Mapping[str, Kind]) -> None:
        self._places = {name: place for place, name in enumerate(columns)}
        self.columns: dict[str, str] = {}  # variables of the columns that are read
        self._loads: list[str] = []
        self._lines: list[str] = []
        self._depth = 1
        self._count = 0
        self._present: set[str] = set()  # variables that are never None
        self._bound: dict[str, Any] = {
            "__builtins__": {},
            "abs": abs,
            "float": float,
            "int64": int64,
            "log": math.log,
            "midnight": lambda day: datetime.combine(day, time()),
        }

    def function(self, result: str) -> Function:
        """Compile the lines to a function that returns this."""
        lines = ["def of_row(row):", *self._loads, *self._lines, f" return {result}"]
        bound = dict(self._bound)
        exec(compile("\n".join(lines), "<expression>", "exec"), bound)  # noqa: S102 # own names only
        function: Function = bound["of_row"]
        return function

    def write(self, node: TypedNode) -> str:
        """Write what computes a node, and return the variable that holds it."""
        match node.operator:
            case "constant":
                return "None" if node.kind == "null" else self._bind(node.detail)
            case "column":
                return self._column(node.detail)
            case "coalesce":
                return self._coalesce(node)
            case "case":
                return self._case(node)
        parts = [self.write(part) for part in node.operands]
        match node.operator:
            case "nullif":
                left, right = parts
                equal = _comparison("=", node.of).format(left, right)
                is_missing = f"{left} is None or {right} is not None and {equal}"
                return self._assign(f"None if {is_missing} else {left}")
            case "least" | "greatest" as name:
                return self._extreme("<" if name == "least" else ">", node, parts)
            case name if name in _OF_ANY:
                return self._assign(_OF_ANY[name].format(*parts))
        return self._of_present(node, parts)

    def converted(self, variable: str, convert: Callable[[Any], Any]) -> str:
        """Write a conversion to a declared type."""
        if convert is unchanged:
            return variable
        return self._assign(f"{self._bind(convert)}({variable})")

    def _of_present(self, node: TypedNode, parts: Sequence[str]) -> str:
        if "None" in parts:
            return "None"
        match node.operator:
            case "as":
                text = "float({})" if node.kind == "float64" else "midnight({})"
            case "in":
                text = f"{{}} in {self._bind(frozenset(node.detail))}"
            case name if name in _OF_FLOATS:
                text = _comparison(name, node.of)
            case name:
                text = _OF_PRESENT[name]
        value = text.format(*parts)
        if node.kind == "int64":
            value = f"int64({value})"
        missing = [f"{part} is None" for part in parts if part not in self._present]
        is_present = not missing and node.operator not in ("/", "ln")
        guard = f"None if {' or '.join(missing)} else " if missing else ""
        return self._assign(f"{guard}{value}", is_present=is_present)

    def _extreme(self, sign: str, node: TypedNode, parts: Sequence[str]) -> str:
        found, *rest = parts
        for part in rest:
            beats = _comparison(sign, node.of).format(part, found)
            found = self._assign(
                f"{part} if {found} is None or {part} is not None and {beats} else {found}"
            )
        return found

    def _coalesce(self, node: TypedNode) -> str:
        first, *rest = node.operands
        found = self._assign(self.write(first))
        for operand in rest:
            with self._block(f"if {found} is None:"):
                self._line(f"{found} = {self.write(operand)}")
        return found

    def _case(self, node: TypedNode) -> str:
        # branches stand below each other: Python nests no more than a hundred
        *pairs, default = node.operands
        found, is_open = self._assign("None"), self._assign("True")
        for when, then in zip(pairs[::2], pairs[1::2], strict=True):
            with self._block(f"if {is_open}:"), self._block(f"if {self.write(when)}:"):
                self._line(f"{found}, {is_open} = {self.write(then)}, False")
        with self._block(f"if {is_open}:"):
            self._line(f"{found} = {self.write(default)}")
        return found

    def _column(self, name: str) -> str:
        if name not in self.columns:
            self.columns[name] = self._name()
            self._loads.append(f" {self.columns[name]} = row[{self._places[name]}]")
        return self.columns[name]

    def _bind(self, value: object) -> str:
        name = self._name()
        self._bound[name] = value
        self._present.add(name)
        return name

    def _assign(self, value: str, *, is_present: bool = False) -> str:
        name = self._name()
        self._line(f"{name} = {value}")
        if is_present:
            self._present.add(name)
        return name

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def _line(self, text: str) -> None:
        self._lines.append(f"{' ' * self._depth}{text}")

    @contextmanager
    def _block(self, header: str) -> Iterator[None]:
        self._line(header)
        self._depth += 1
        yield
        self._depth -= 1
