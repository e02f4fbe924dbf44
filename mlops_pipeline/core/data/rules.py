"""Validation rules as boolean Ibis expressions: what is broken, row by row or for a table.

Belongs here: what a rule means. Reading tables, quarantine and the accepted pointer are
lifecycle/ingest/validation.py's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlops_pipeline.config.tables import (
    Check,
    ClassBalance,
    Completeness,
    Freshness,
    InSet,
    MinRows,
    NotNull,
    Range,
    Source,
)
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.expressions.to_ibis import condition

REPRESENTABLE = 1e12  # beyond it six decimal places no longer fit 64-bit exact sums
SECONDS_PER_DAY = 86_400


@dataclass(frozen=True)
class Verdict:
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
    moment = now.replace(tzinfo=None)
    availability = table[source.availability]
    happened = table[source.event_time]
    broken: dict[str, Any] = {
        "time_present": happened.isnull() | availability.isnull(),
        "not_in_the_future": (happened > moment) | (availability > moment),
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


def _row_rule(rule: object, table: Any) -> Mapping[str, Any]:
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


def table_verdicts(
    name: str, source: Source, figures: TableFigures, now: datetime
) -> list[Verdict]:
    """Judge the rules that concern a table as a whole."""
    total = figures.rows + figures.quarantined
    share = figures.quarantined / total if total else 0.0
    verdicts = [
        _verdict(
            name,
            "quarantined_share",
            share,
            at_most=source.max_quarantined,
            rows=figures.quarantined,
            what="of the rows broke a rule",
        )
    ]
    if total == 0 or figures.rows == 0:
        reason = "the table is empty" if total == 0 else "every row broke a rule"
        return [*verdicts, Verdict(name, "not_empty", False, 0.0, 1.0, total, reason)]
    for column, present in figures.present.items():
        if present == 0:
            verdicts.append(
                Verdict(
                    name,
                    f"has_values({column})",
                    False,
                    0.0,
                    1.0,
                    figures.rows,
                    f"column {column} has no value in any row",
                )
            )
    for rule in source.rules:
        verdicts += _table_rule(name, source, rule, figures, now)
    return verdicts


def _table_rule(
    name: str, source: Source, rule: object, figures: TableFigures, now: datetime
) -> list[Verdict]:
    match rule:
        case MinRows(at_least=fewest):
            return [
                _verdict(
                    name, "min_rows", figures.rows, at_least=fewest, rows=figures.rows, what="rows"
                )
            ]
        case Completeness(column=column, at_least=share):
            value = figures.present[column] / figures.rows
            return [
                _verdict(
                    name,
                    f"completeness({column})",
                    value,
                    at_least=share,
                    rows=figures.rows,
                    what=f"of the rows have a {column}",
                )
            ]
        case ClassBalance(column=column, min=low, max=high):
            value = figures.positives[rule] / figures.rows
            inside = low <= value <= high
            return [
                Verdict(
                    name,
                    f"class_balance({column})",
                    inside,
                    value,
                    low if value < low else high,
                    figures.rows,
                    f"{value:.2%} positive, allowed {low:.2%} to {high:.2%}",
                )
            ]
        case Freshness(at_most_days=days) if not source.static:
            age = math.inf
            if figures.newest is not None:
                age = (now - figures.newest).total_seconds() / SECONDS_PER_DAY
            return [
                _verdict(
                    name,
                    "freshness",
                    age,
                    at_most=days,
                    rows=figures.rows,
                    what="days since the newest row became available",
                )
            ]
    return []


def _verdict(
    source: str,
    rule: str,
    value: float,
    *,
    rows: int,
    what: str,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Verdict:
    passed = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    bound = f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}"
    threshold = at_least if at_least is not None else at_most
    return Verdict(source, rule, passed, value, threshold, rows, f"{value:g} {what} ({bound})")
