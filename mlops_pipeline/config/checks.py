"""What has to hold of a use case as a whole; a section alone is checked where it is defined.

Belongs here: names that have to exist, values and types that fit, what no feature may read, what is
easily overlooked. The first problem refuses the configuration: a check may rely on those before it.
That no row from after as_of changes a value is shown on the data, by leak_check.py.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlops_pipeline.config.data_checks import (
    Problems,
    label_and_grid_problems,
    source_problems,
    unknown,
    unknown_columns,
)
from mlops_pipeline.spec.kinds import AGGREGATES
from mlops_pipeline.spec.rules import NaiveRule, NotNull, ParityRule

if TYPE_CHECKING:
    from mlops_pipeline.config.tables import DerivedFeature, FeatureColumn, FeatureView
    from mlops_pipeline.config.use_case import Read, UseCase

RESERVED = {  # names that a feature's column would hide, and whose they are
    **dict.fromkeys(("as_of", "event_row"), "grid"),
    "label": "label",
    **dict.fromkeys(("probability", "decision", "needs_review", "entity_hash"), "predictions"),
}
FEATURE_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")  # as in `Name`


def problems(use_case: "UseCase") -> Problems:
    """Yield what is wrong with a use case, with the key that is wrong first."""
    yield from source_problems(use_case)
    yield from label_and_grid_problems(use_case)
    for read in use_case.reads:
        yield from unknown_columns(use_case, read.where, sorted(read.columns), read.source)
    yield from _leaks(use_case)
    yield from _features(use_case)
    yield from _evaluation(use_case)
    yield from _serving(use_case)


def _leaks(use_case: "UseCase") -> Problems:
    """Yield the expressions that read what they must not; docs/configuration.md lists it."""
    for read in use_case.reads:
        if read.source in use_case.label.sources:
            outcome = _outcome_columns(use_case, read.source)
            for column in sorted(read.columns & set(outcome)):
                yield (
                    f"{read.where}: reads {outcome[column]} {column}; that leaks the outcome (a "
                    "source of its own, with its own availability, can tell of earlier outcomes)"
                )
        if read.feature is not None:
            yield from _leaks_of_feature(use_case, read, read.feature)
    for name, derived in use_case.derived.items():
        for used in sorted(derived.expression.columns & set(use_case.protected)):
            yield (
                f"derived.{name}.expression: reads the protected attribute {used}; no feature is "
                "derived from one"
            )


def _outcome_columns(use_case: "UseCase", name: str) -> Mapping[str, str]:
    """Return {column of a source of the label: what it is}, for labels that are a column."""
    label = use_case.label
    if label.kind != "column":
        return {}
    source = use_case.sources[name]
    named = {
        label.treatment: "the treatment column",
        label.available_at: "the label's availability",
        label.column: "the label column",
    }
    row_times = (source.happened, source.available_at)
    return {name: what for name, what in named.items() if name and name not in row_times}


def _leaks_of_feature(use_case: "UseCase", read: "Read", feature: "FeatureColumn") -> Problems:
    source, key = use_case.sources[read.source], use_case.entity.key
    is_filter = read.where.endswith(".where")  # it says which rows count
    is_value = not is_filter and not feature.is_count
    known = source.availability
    is_own_value = feature.aggregate is None and not is_filter
    if is_own_value and known != source.happened and known in read.columns:
        yield (
            f"{read.where}: reads {known}, when the row became known; at its own time that lies in "
            "the future"
        )
    made_of = {
        name: attribute
        for name, attribute in use_case.protected.items()
        if attribute.source == read.source
    }
    declared = {column for item in made_of.values() if item.as_input for column in item.of.columns}
    allowed = declared | {key, source.happened, source.availability}
    for name, attribute in made_of.items():
        for column in sorted(read.columns & attribute.of.columns - allowed):
            yield (
                f"{read.where}: reads {column}, which the protected attribute {name} is made of; "
                f"leave it out, or declare protected.{name}.as_input: true"
            )
    if is_value and key in read.columns:
        yield (
            f"{read.where}: reads the entity key {key}; who an entity is says nothing of new ones "
            "(count and count_distinct of it are fine)"
        )
    for column in sorted(read.columns - declared - {key}):
        if source.column(column).personal and (is_value or is_filter):
            yield (
                f"{read.where}: reads the personal column {column}; declare it as a protected "
                "attribute with as_input: true (count and count_distinct of it are fine)"
            )


def _features(use_case: "UseCase") -> Problems:
    seen: dict[str, str] = {**RESERVED, use_case.entity.key.lower(): "entity"}
    reserved = set(seen)
    for view_name, view in use_case.views.items():
        for name, column in view.columns.items():
            where = f"views.{view_name}.columns.{name}"
            yield from _name(where, name, seen)
            yield from _direction(where, column)
            yield from _refresh(use_case, where, view, column)
            yield from _column(use_case, where, view, column)
    for name, derived in use_case.derived.items():
        where = f"derived.{name}"
        yield from _direction(where, derived)
        above = [item for item in seen if item not in reserved]
        used = sorted(derived.expression.columns)
        yield from unknown(f"{where}.expression", used, above, "feature (defined above it)")
        yield from _name(where, name, seen)
    for name in use_case.protected:
        yield from _name(f"protected.{name}", name, seen)


def _name(where: str, name: str, seen: dict[str, str]) -> Problems:
    if FEATURE_NAME.fullmatch(name) is None:
        yield f"{where}: {name!r} is no name: up to 60 small letters, digits and _, a letter first"
    if name in seen:
        yield f"{where}: the name {name!r} is already used by {seen[name]}"
    seen[name] = where


def _direction(where: str, feature: "FeatureColumn | DerivedFeature") -> Problems:
    if feature.expected is not None and feature.dtype == "string":
        yield f"{where}.expected: the feature is a text, which has no direction"


def _column(
    use_case: "UseCase", where: str, view: "FeatureView", column: "FeatureColumn"
) -> Problems:
    if view.request_time:
        if column.aggregate is not None or column.of is None:
            yield f"{where}: a request_time column has `of` and no `aggregate`"
        if use_case.grid.every != "event" or view.source != use_case.population.source:
            yield f"{where}: request_time needs `grid.every: event` and the population's source"
    elif column.aggregate is None:
        yield f"{where}.aggregate: required (only request_time views have none)"
    elif column.of is None and AGGREGATES[column.aggregate].needs_column:
        yield f"{where}.of: required for `aggregate: {column.aggregate}`"


def _refresh(
    use_case: "UseCase", where: str, view: "FeatureView", column: "FeatureColumn"
) -> Problems:
    if use_case.grid.every != "event":
        if view.refresh != "continuous":
            yield f"{where}: `refresh: {view.refresh}` needs `grid.every: event`"
    elif view.refresh == "daily":
        if column.window_hours is not None:
            yield f"{where}.window_hours: a daily view counts whole days"
    elif view.online and not view.request_time:
        if column.reach is None:
            yield (
                f"{where}.window_days: required in a continuous view of an event grid: it is "
                "served from recent events; or make the view `refresh: daily` or `online: false`"
            )
        if not use_case.sources[view.source].key:
            yield (
                f"sources.{view.source}.key: required by the continuous view of {where}: a "
                "repeated event is recognised by its key"
            )


def _evaluation(use_case: "UseCase") -> Problems:
    names = (*use_case.features, *use_case.protected)
    evaluation, training = use_case.evaluation, use_case.training
    attribute = "feature or protected attribute"
    yield from unknown("evaluation.slices", evaluation.slices, names, attribute)
    if evaluation.missing_block is not None:
        block = [evaluation.missing_block]
        yield from unknown("evaluation.missing_block", block, use_case.views, "view")
    if evaluation.first_seen is not None:
        yield from unknown("evaluation.first_seen", [evaluation.first_seen], names, "feature")
    for name, candidate in training.candidates.items():
        if getattr(candidate, "monotone", False) and not use_case.directions:
            yield f"training.candidates.{name}.monotone: no feature declares `expected`"
    if training.refit == "newest" and use_case.split.method != "time":
        yield "training.refit: `newest` needs `split.method: time`"
    for index, rule in enumerate(use_case.gates):
        if isinstance(rule, ParityRule):
            where = f"gates.{index}.attributes"
            yield from unknown(where, rule.attributes, use_case.audited, "audited attribute")
        if isinstance(rule, NaiveRule) and rule.column is not None:
            yield from unknown(f"gates.{index}.column", [rule.column], use_case.inputs, "input")


def _serving(use_case: "UseCase") -> Problems:
    yield from unknown("serving.on_missing", use_case.serving.on_missing, use_case.views, "view")
    given = (*use_case.features, *use_case.request_columns)
    for index, rule in enumerate(use_case.serving.inputs):
        names = rule.columns if isinstance(rule, NotNull) else (rule.column,)
        what = "feature or column of a request"
        yield from unknown(f"serving.inputs.{index}", names, given, what)
    if use_case.serving.high_impact is not None:
        used = sorted(use_case.serving.high_impact.columns)
        yield from unknown("serving.high_impact", used, given, "feature or column of a request")


def notes(use_case: "UseCase") -> Problems:
    """Yield what follows from choices, explicit or by default, and is easily overlooked."""
    yield from _label_notes(use_case)
    for name, source in use_case.sources.items():
        if source.is_day(source.availability):
            yield (
                f"sources.{name}: {source.availability} is a date, so a row is known at the end of "
                "its day (UTC); available_at: a timestamp that says otherwise"
            )


def _label_notes(use_case: "UseCase") -> Problems:
    """Yield when labels of events are known, and whether later arrivals may change them."""
    label, delay = use_case.label, use_case.label_delay_days
    if label.kind == "column":
        return
    yield f"label: known {label.horizon_days} + {delay} days after as_of (horizon_days, delay_days)"
    for name in label.sources:
        lateness = use_case.sources[name].lateness_days
        if delay < lateness:
            yield (
                f"label.delay_days: {delay} is less than sources.{name}.lateness_days "
                f"({lateness}): an event that arrives later changes a label that counted as known; "
                "without the key, labels wait so long"
            )
