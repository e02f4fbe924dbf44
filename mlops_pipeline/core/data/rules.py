"""Validation rules as boolean Ibis expressions: what is broken, row by row or for a table.

Belongs here: what a rule means. Reading tables, quarantine and the accepted pointer are
lifecycle/ingest/validation.py's.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlops_pipeline.config.tables import Source
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.expressions.to_ibis import condition
from mlops_pipeline.spec import rules

REPRESENTABLE = 1e12  # beyond it six decimal places no longer fit 64-bit exact sums
SECONDS_PER_DAY = 86_400
NOT_YET_KNOWN = "not_yet_known"  # stored under a later Clock: kept out, and not wrong
Finding = tuple[str, bool, float, float, str]  # rule, passed, value, threshold, reason


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
    """Return {rule name: expression true for a row that breaks it}, built-in rules first."""
    until = now.replace(tzinfo=None)
    availability = table[source.availability]
    happened = table[source.happened]
    broken: dict[str, Any] = {
        "time_present": happened.isnull() | availability.isnull(),
        "not_in_the_future": (happened > until) & (availability <= until),
        NOT_YET_KNOWN: availability > until,
    }
    for column in source.columns:
        if source.column(column).type == "float64":
            value = table[column]
            bad = value.isnan() | value.isinf() | (value.abs() > REPRESENTABLE)
            broken[f"finite({column})"] = bad
    label = use_case.label
    if label.kind == "column" and name in label.sources and label.column is not None:
        known = table[label.column].isin((label.positive, label.negative))
        may_lack = bool(label.also)  # another source may have it
        broken[f"label_values({label.column})"] = ~known.fill_null(may_lack)
    for rule in source.rules:
        broken.update(_row_rule(rule, table))
    return {key: value.fill_null(False) for key, value in broken.items()}


def _row_rule(rule: rules.SourceRule, table: Any) -> Mapping[str, Any]:
    match rule:
        case rules.NotNull(columns=columns):
            return {f"not_null({column})": table[column].isnull() for column in columns}
        case rules.Range(column=column, min=low, max=high):
            bad = table[column] < low if low is not None else table[column].isnull() & False
            if high is not None:
                bad = bad | (table[column] > high)
            bounds = f"{'' if low is None else f'{low:g}'}..{'' if high is None else f'{high:g}'}"
            return {f"range({column}, {bounds})": bad}
        case rules.InSet(column=column, values=values):
            return {f"in_set({column})": table[column].isin(values) == False}  # noqa: E712 # an Ibis expression
        case rules.Check(name=name, expression=expression):
            return {f"check({name})": ~condition(expression, table)}
    return {}


@dataclass(frozen=True)
class TableFigures:
    """Counts over all rows that were not quarantined."""

    rows: int
    quarantined: int
    not_yet_known: int
    present: Mapping[str, int]
    positives: Mapping[rules.ClassBalance, int]
    newest: datetime | None


def table_results(
    name: str, source: Source, figures: TableFigures, now: datetime
) -> list[RuleResult]:
    """Evaluate the rules that concern a table as a whole."""
    broken = figures.quarantined - figures.not_yet_known
    total = figures.rows + broken
    share, most = broken / total if total else 0.0, source.max_quarantined
    reason = f"{share:g} of the rows broke a rule (at most {most:g})"
    passed = share <= most
    quarantined = RuleResult(name, "quarantined_share", passed, share, most, broken, reason)
    if figures.rows == 0:
        reason = "every row broke a rule" if total else "the table is empty"
        return [quarantined, RuleResult(name, "not_empty", False, 0.0, 1.0, total, reason)]
    found = [
        (f"has_values({column})", False, 0.0, 1.0, f"column {column} has no value in any row")
        for column, present in figures.present.items()
        if present == 0 and not source.column(column).optional
    ]
    for of_source in source.rules:
        found += _findings(source, of_source, figures, now)
    results = [
        RuleResult(name, rule, passed, value, bound, figures.rows, reason)
        for rule, passed, value, bound, reason in found
    ]
    return [quarantined, *results]


def _findings(
    source: Source, rule: rules.SourceRule, figures: TableFigures, now: datetime
) -> Iterator[Finding]:
    """Yield what a rule of the whole table finds; a rule of rows, or one that is off, nothing."""
    match rule:
        case rules.MinRows(at_least=fewest):
            yield _at_least("min_rows", figures.rows, fewest, "rows")
        case rules.Completeness(column=column, at_least=share):
            present = figures.present[column] / figures.rows
            what = f"of the rows have a {column}"
            yield _at_least(f"completeness({column})", present, share, what)
        case rules.ClassBalance(column=column, min=low, max=high):
            value = figures.positives[rule] / figures.rows
            reason = f"{value:.2%} positive, allowed {low:.2%} to {high:.2%}"
            bound = low if value < low else high
            yield f"class_balance({column})", low <= value <= high, value, bound, reason
        case rules.Freshness(at_most_days=days) if not source.static:
            age = math.inf
            if figures.newest is not None:
                age = (now - figures.newest).total_seconds() / SECONDS_PER_DAY
            reason = f"{age:g} days since the newest row became available (at most {days:g})"
            yield "freshness", age <= days, age, days, reason


def _at_least(rule: str, value: float, bound: float, what: str) -> Finding:
    return rule, value >= bound, value, bound, f"{value:g} {what} (at least {bound:g})"
