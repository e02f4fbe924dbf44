"""Validation rules as boolean Ibis expressions: what is broken, row by row or for a table.

Belongs here: what a rule means. Reading tables, quarantine and the accepted pointer are
lifecycle/ingest/validation.py's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from mlops_pipeline.config.tables import (
    Check,
    ClassBalance,
    Completeness,
    Freshness,
    InSet,
    MinRows,
    NotNull,
    Range,
    Rule,
    Source,
)
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.expressions.to_ibis import condition

REPRESENTABLE = 1e12  # beyond it six decimal places no longer fit 64-bit exact sums
SECONDS_PER_DAY = 86_400


@dataclass(frozen=True)
class RuleResult:
    """One rule's outcome on one source; `passed` False refuses the source."""

    source: str
    rule: str
    passed: bool
    value: float | None
    threshold: float | None
    rows: int
    reason: str


def row_rules(
    use_case: UseCase, name: str, source: Source, table: Any, now: datetime
) -> dict[str, Any]:
    """Return {rule name: expression that is true for a row that breaks it}.

    The built-in rules come first: times present and not after the Clock, numbers finite.
    """
    until = now.replace(tzinfo=None)
    availability = table[source.availability]
    happened = table[source.event_time]
    broken: dict[str, Any] = {
        "time_present": happened.isnull() | availability.isnull(),
        "not_in_the_future": (happened > until) | (availability > until),
    }
    for column in source.columns:
        if source.column(column).type == "float64":
            value = table[column]
            bad = value.isnan() | value.isinf() | (value.abs() > REPRESENTABLE)
            broken[f"finite({column})"] = bad
    label = use_case.label
    if label.kind == "column" and label.source == name and label.column is not None:
        known = table[label.column].isin((label.positive, label.negative))
        broken[f"label_values({label.column})"] = ~known.fill_null(False)
    for rule in source.rules:
        broken.update(_row_rule(rule, table))
    return {key: value.fill_null(False) for key, value in broken.items()}


def _row_rule(rule: Rule, table: Any) -> Mapping[str, Any]:
    match rule:
        case NotNull(columns=columns):
            return {f"not_null({column})": table[column].isnull() for column in columns}
        case Range(column=column, min=low, max=high):
            bad = table[column] < low if low is not None else table[column].isnull() & False
            if high is not None:
                bad = bad | (table[column] > high)
            bounds = f"{'' if low is None else f'{low:g}'}..{'' if high is None else f'{high:g}'}"
            return {f"range({column}, {bounds})": bad}
        case InSet(column=column, values=values):
            return {f"in_set({column})": table[column].isin(values) == False}  # noqa: E712 # an Ibis expression
        case Check(name=name, expression=expression):
            return {f"check({name})": ~condition(expression, table)}
    return {}


@dataclass(frozen=True)
class TableFigures:
    """Counts over all rows that were not quarantined."""

    rows: int
    quarantined: int
    present: Mapping[str, int]
    positives: Mapping[ClassBalance, int]
    newest: datetime | None


def table_results(
    name: str, source: Source, figures: TableFigures, now: datetime
) -> list[RuleResult]:
    """Evaluate the rules that concern a table as a whole."""
    total = figures.rows + figures.quarantined
    share = figures.quarantined / total if total else 0.0
    of_rows = f"{share:g} of the rows broke a rule (at most {source.max_quarantined:g})"
    quarantined = RuleResult(
        name,
        "quarantined_share",
        share <= source.max_quarantined,
        share,
        source.max_quarantined,
        figures.quarantined,
        of_rows,
    )
    if figures.rows == 0:
        reason = "every row broke a rule" if total else "the table is empty"
        return [quarantined, RuleResult(name, "not_empty", False, 0.0, 1.0, total, reason)]
    empty = [
        RuleResult(
            *(name, f"has_values({column})", False, 0.0, 1.0, figures.rows),
            reason=f"column {column} has no value in any row",
        )
        for column, present in figures.present.items()
        if present == 0
    ]
    found = [_table_rule(source, rule, figures, now) for rule in source.rules]
    results = [
        RuleResult(name, item.rule, item.passed, item.value, item.bound, figures.rows, item.reason)
        for item in found
        if item is not None
    ]
    return [quarantined, *empty, *results]


class _Measured(NamedTuple):
    rule: str
    passed: bool
    value: float
    bound: float
    reason: str


def _table_rule(
    source: Source, rule: Rule, figures: TableFigures, now: datetime
) -> _Measured | None:
    """Return what a rule of the whole table finds; None: it is one of rows, or does not apply."""
    match rule:
        case MinRows(at_least=fewest):
            return _at_least("min_rows", figures.rows, fewest, "rows")
        case Completeness(column=column, at_least=share):
            value = figures.present[column] / figures.rows
            what = f"of the rows have a {column}"
            return _at_least(f"completeness({column})", value, share, what)
        case ClassBalance(column=column, min=low, max=high):
            value = figures.positives[rule] / figures.rows
            bound, reason = low if value < low else high, f"allowed {low:.2%} to {high:.2%}"
            reason = f"{value:.2%} positive, {reason}"
            return _Measured(f"class_balance({column})", low <= value <= high, value, bound, reason)
        case Freshness(at_most_days=days) if not source.static:
            age = math.inf
            if figures.newest is not None:
                age = (now - figures.newest).total_seconds() / SECONDS_PER_DAY
            reason = f"{age:g} days since the newest row became available (at most {days:g})"
            return _Measured("freshness", age <= days, age, days, reason)
    return None


def _at_least(rule: str, value: float, bound: float, what: str) -> _Measured:
    return _Measured(rule, value >= bound, value, bound, f"{value:g} {what} (at least {bound:g})")
