"""What has to hold of a use case as a whole; a section alone is checked where it is defined.

Belongs here: names that have to exist, values and types that have to fit, and what no feature may
read. That no row from after as_of changes a value is shown on the data, by
lifecycle/features/leak_check.py; windows cannot reach past as_of: an offset shifts them into the
past only.

A check yields what is wrong. The first problem refuses the configuration, so a check may rely on
those before it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from mlops_pipeline.errors import did_you_mean, nearest_names
from mlops_pipeline.spec.kinds import AGGREGATES
from mlops_pipeline.spec.rules import (
    Check,
    Freshness,
    InSet,
    MinRows,
    NotNull,
    ParityRule,
    SourceRule,
)
from mlops_pipeline.spec.section import Scalar

if TYPE_CHECKING:
    from mlops_pipeline.config.tables import DerivedFeature, FeatureColumn, FeatureView, Source
    from mlops_pipeline.config.use_case import Read, UseCase

RESERVED = {  # names that a feature's column would hide, and whose they are
    **dict.fromkeys(("as_of", "event_row"), "grid"),
    "label": "label",
    **dict.fromkeys(("probability", "decision", "needs_review", "entity_hash"), "predictions"),
}
FEATURE_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")  # as in `Name`
Problems = Iterator[str]


def problems(use_case: "UseCase") -> Problems:
    """Yield what is wrong with a use case, with the key that is wrong first."""
    yield from _sources(use_case)
    yield from _label_and_grid(use_case)
    for read in use_case.reads:
        yield from _unknown_columns(use_case, read.where, sorted(read.columns), read.source)
    yield from _leaks(use_case)
    yield from _features(use_case)
    yield from _evaluation(use_case)


def _unknown(where: str, names: Iterable[str], known: Iterable[str], what: str) -> Problems:
    present = list(known)
    for name in names:
        if name not in present:
            hint = did_you_mean(name, present) or f"known: {nearest_names(name, present)}"
            yield f"{where}: {name!r} is no {what}; {hint}"


def _unknown_columns(
    use_case: "UseCase", where: str, columns: Iterable[str], source: str
) -> Problems:
    known = use_case.sources[source].columns
    return _unknown(where, columns, known, f"column of source {source}")


# sources


def _sources(use_case: "UseCase") -> Problems:
    used = {
        "population.source": use_case.population.source,
        "label.source": use_case.label.source,
        "population.leaves_with": use_case.population.leaves_with,
        **{f"views.{name}.source": view.source for name, view in use_case.views.items()},
        **{f"protected.{name}.source": item.source for name, item in use_case.protected.items()},
    }
    named = {where: name for where, name in used.items() if name is not None}
    for where, name in named.items():
        yield from _unknown(where, [name], use_case.sources, "source")
    for name, source in use_case.sources.items():
        yield from _source(f"sources.{name}", source)
    for name in dict.fromkeys(named.values()):
        yield from _key(use_case, name)


def _source(where: str, source: "Source") -> Problems:
    for column in source.columns:
        if column.startswith("_"):
            yield f"{where}.columns: {column!r}: names with a leading _ are the lake's"
    for key, time in (("event_time", source.event_time), ("available_at", source.available_at)):
        if time is not None:
            yield from _unknown(f"{where}.{key}", [time], source.columns, "column of this source")
            if source.column(time).type not in ("timestamp", "date"):
                yield f"{where}.{key}: {time} is not a timestamp or date"
    yield from _unknown(f"{where}.key", source.key, source.columns, "column of this source")
    for index, rule in enumerate(source.rules):
        place = f"{where}.rules.{index}"
        yield from _unknown(place, _judged(rule), source.columns, "column of this source")
        if isinstance(rule, InSet):
            for value in rule.values:
                yield from _misfit(f"{place}.values", source, rule.column, value)


def _judged(rule: SourceRule) -> Iterable[str]:
    """Return the columns that a rule reads."""
    match rule:
        case NotNull(columns=columns):
            return columns
        case Check(expression=expression):
            return sorted(expression.columns)
        case MinRows() | Freshness():
            return ()
    return (rule.column,)


def _misfit(where: str, source: "Source", column: str, value: Scalar) -> Problems:
    """Yield that a column of its type can never hold a value."""
    kind = source.column(column).type
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "boolean":
        fits = isinstance(value, bool) or value in (0, 1)
    elif kind in ("timestamp", "date"):
        fits = isinstance(value, str) and _is_time(value)
    elif kind == "string":
        fits = isinstance(value, str)
    else:
        fits = is_number and (kind == "float64" or float(value).is_integer())
    if not fits:
        hint = "; put it in quotes" if kind == "string" else ""
        yield f"{where}: {value!r} is no {kind}, the type of column {column}{hint}"


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _key(use_case: "UseCase", name: str) -> Problems:
    key, home = use_case.entity.key, use_case.population.source
    for source in (name, home):
        where = f"sources.{source}.columns (entity.key)"
        yield from _unknown_columns(use_case, where, [key], source)
    here, there = (use_case.sources[source].column(key).type for source in (name, home))
    if here != there:
        yield (
            f"sources.{name}.columns.{key}: the entity key has type {here} here and {there} in "
            f"{home}; the two cannot be joined"
        )


# label and grid


def _label_and_grid(use_case: "UseCase") -> Problems:
    if use_case.grid.every != "event" and use_case.grid.start is None:
        yield "grid.start: required unless `every: event`"
    label = use_case.label
    if label.kind == "column":
        if label.column is None:
            yield "label.column: required for `kind: column`"
            return
        named = [item for item in (label.column, label.available_at, label.treatment) if item]
        yield from _unknown_columns(use_case, "label", named, label.source)
        if use_case.grid.every != "event":
            yield "label.kind: `column` needs `grid.every: event`"
        source = use_case.sources[label.source]
        for key, value in (("positive", label.positive), ("negative", label.negative)):
            yield from _misfit(f"label.{key}", source, label.column, value)
    elif not label.horizon_days:
        yield f"label.horizon_days: required for `kind: {label.kind}`"
    if label.where:
        columns = sorted(label.where.columns)
        yield from _unknown_columns(use_case, "label.where", columns, label.source)


# what no feature may read


def _leaks(use_case: "UseCase") -> Problems:
    """Yield the expressions that read what they must not.

    - The label, when it was known, and the treatment: nowhere (population and protected attributes
      included, since both choose or describe rows by it).
    - In a `request_time` view also the source's availability: it lies after the row's own time.
    - The entity key and personal columns as values: an identity is memorised. A feature that only
      counts carries no value of the column that it counts.
    - Columns that a protected attribute is made of, even counted, and, in derived features,
      protected attributes themselves. With `as_input: true` the attribute declares its columns as
      inputs.
    """
    outcome = _outcome_columns(use_case)
    for read in use_case.reads:
        if read.source == use_case.label.source:
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


def _outcome_columns(use_case: "UseCase") -> Mapping[str, str]:
    """Return {column of the label's source: what it is}, for labels that are a column."""
    label = use_case.label
    if label.kind != "column":
        return {}
    source = use_case.sources[label.source]
    named = {
        label.treatment: "the treatment column",
        label.available_at: "the label's availability",
        label.column: "the label column",
    }
    row_times = (source.event_time, source.available_at)
    return {name: what for name, what in named.items() if name and name not in row_times}


def _leaks_of_feature(use_case: "UseCase", read: "Read", feature: "FeatureColumn") -> Problems:
    source, key = use_case.sources[read.source], use_case.entity.key
    is_filter = read.where.endswith(".where")  # it says which rows count
    is_value = not is_filter and not feature.is_count
    known = source.availability
    is_own_value = feature.aggregate is None and not is_filter
    if is_own_value and known != source.event_time and known in read.columns:
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
    allowed = declared | {key, source.event_time, source.availability}
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


# features


def _features(use_case: "UseCase") -> Problems:
    seen: dict[str, str] = {**RESERVED, use_case.entity.key: "entity"}
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
        yield from _unknown(f"{where}.expression", used, above, "feature (defined above it)")
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


# evaluation


def _evaluation(use_case: "UseCase") -> Problems:
    names = (*use_case.features, *use_case.protected)
    evaluation, training = use_case.evaluation, use_case.training
    attribute = "feature or protected attribute"
    yield from _unknown("evaluation.slices", evaluation.slices, names, attribute)
    if evaluation.missing_block is not None:
        block = [evaluation.missing_block]
        yield from _unknown("evaluation.missing_block", block, use_case.views, "view")
    if evaluation.first_seen is not None:
        yield from _unknown("evaluation.first_seen", [evaluation.first_seen], names, "feature")
    for name, candidate in training.candidates.items():
        if getattr(candidate, "monotone", False) and not use_case.directions:
            yield f"training.candidates.{name}.monotone: no feature declares `expected`"
    if training.refit == "newest" and use_case.split.method != "time":
        yield "training.refit: `newest` needs `split.method: time`"
    for index, rule in enumerate(use_case.gates):
        if isinstance(rule, ParityRule):
            where = f"gates.{index}.attributes"
            yield from _unknown(where, rule.attributes, use_case.audited, "audited attribute")
