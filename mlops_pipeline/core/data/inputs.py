"""Which of the configured rules the inputs of one prediction break."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlops_pipeline.spec.rules import InputRule, InSet, NotNull, Range


def broken_inputs(rules: Sequence[InputRule], values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the rules that features and request columns break, as texts without the values.

    A column that is not there is not judged; a missing value breaks `not_null` only.
    """
    return tuple(text for rule in rules for text in _broken(rule, values))


def _broken(rule: InputRule, values: Mapping[str, Any]) -> Iterator[str]:
    match rule:
        case NotNull():
            for name in rule.columns:
                if name in values and _is_missing(values[name]):
                    yield f"{name} is missing"
        case Range():
            value: Any = values.get(rule.column)
            low = -math.inf if rule.min is None else rule.min
            high = math.inf if rule.max is None else rule.max
            if not _is_missing(value) and not low <= value <= high:
                yield f"{rule.column} is outside of [{low:g}, {high:g}]"
        case InSet():
            value = values.get(rule.column)
            if not _is_missing(value) and value not in rule.values:
                yield f"{rule.column} is none of the {len(rule.values)} known values"


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
