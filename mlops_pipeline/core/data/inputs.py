"""Which of the configured rules the inputs of one prediction break, and what they satisfy."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mlops_pipeline.core.expressions.to_row import row_function
from mlops_pipeline.core.expressions.types import Kind, Value
from mlops_pipeline.spec.grammar import Expression
from mlops_pipeline.spec.rules import InputRule, InSet, NotNull, Range

Inputs = Mapping[str, Any]
TYPES: Mapping[str, tuple[type, ...]] = {  # of a value as JSON has it; times are not compared
    "float64": (float, int), "int64": (int,), "string": (str,), "boolean": (bool,),
}  # fmt: skip


def condition(expression: Expression, kinds: Mapping[str, Kind]) -> Callable[[Inputs], bool]:
    """Return whether inputs satisfy an expression: what is missing or of another type does not."""
    columns = {name: kinds[name] for name in sorted(expression.columns)}
    holds = row_function(expression, columns, is_condition=True).of_row

    def satisfied(values: Inputs) -> bool:
        return bool(holds([_typed(values.get(name), kind) for name, kind in columns.items()]))

    return satisfied


def _typed(value: Any, kind: Kind) -> Value:
    is_right = isinstance(value, TYPES.get(kind, ()))
    if not is_right or isinstance(value, bool) != (kind == "boolean"):
        return None
    found: Value = value
    return float(value) if kind == "float64" else found


def broken_inputs(rules: Sequence[InputRule], values: Inputs) -> tuple[str, ...]:
    """Return the rules that inputs break, without values; an absent column breaks none."""
    return tuple(text for rule in rules for text in _broken(rule, values))


def _broken(rule: InputRule, values: Inputs) -> Iterator[str]:
    match rule:
        case NotNull():
            for name in rule.columns:
                if name in values and _is_missing(values[name]):
                    yield f"{name} is missing"
        case Range():
            value: Any = values.get(rule.column)
            low = -math.inf if rule.min is None else rule.min
            high = math.inf if rule.max is None else rule.max
            if isinstance(value, int | float) and not low <= value <= high:
                yield f"{rule.column} is outside of [{low:g}, {high:g}]"
        case InSet():
            value = values.get(rule.column)
            if not _is_missing(value) and value not in rule.values:
                yield f"{rule.column} is none of the {len(rule.values)} known values"


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
