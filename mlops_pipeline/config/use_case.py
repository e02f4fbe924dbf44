"""The whole configuration of one use case: its sections, checked to fit together.

Belongs here: names that have to exist, values and types that have to fit. What no feature may read
is leakage.py's; the sections are sections.py's.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Self

from pydantic import model_validator

from mlops_pipeline.config.features import DerivedFeature, FeatureColumn, FeatureView
from mlops_pipeline.config.leakage import check_leakage
from mlops_pipeline.config.sections import UseCaseSections
from mlops_pipeline.config.tables import Freshness, InSet, MinRows, Rule, Scalar, Source
from mlops_pipeline.errors import did_you_mean, nearest_names
from mlops_pipeline.spec.aggregates import AGGREGATES
from mlops_pipeline.spec.gates import ParityRule

RESERVED = {  # names that a feature's column would hide, and whose they are
    "as_of": "grid",
    "event_row": "grid",
    "label": "label",
    "probability": "predictions",
    "decision": "predictions",
    "needs_review": "predictions",
    "entity_hash": "predictions",
}
FEATURE_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")  # as in `Name`


class UseCase(UseCaseSections):
    """One use case: tabular binary classification from sources to deployment."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _check_sources(self)
        _check_label_and_grid(self)
        for read in self.reads:
            _known_columns(self, read.where, read.columns, read.source)
        check_leakage(self)
        _check_features(self)
        _check_evaluation(self)
        return self


def _known(where: str, name: str, names: Iterable[str], what: str) -> None:
    """Refuse a name that does not exist, with the nearest ones that do."""
    present = list(names)
    if name not in present:
        hint = did_you_mean(name, present) or f"known: {nearest_names(name, present)}"
        raise ValueError(f"{where}: {name!r} is no {what}; {hint}")


def _known_columns(
    use_case: UseCaseSections, where: str, columns: Iterable[str], source: str
) -> None:
    for column in sorted(columns):
        _known(where, column, use_case.sources[source].columns, f"column of source {source}")


# sources


def _check_sources(use_case: UseCaseSections) -> None:
    used = {
        "population.source": use_case.population.source,
        "label.source": use_case.label.source,
        "population.leaves_with": use_case.population.leaves_with,
        **{f"views.{name}.source": view.source for name, view in use_case.views.items()},
        **{f"protected.{name}.source": item.source for name, item in use_case.protected.items()},
    }
    named = {where: name for where, name in used.items() if name is not None}
    for where, name in named.items():
        _known(where, name, use_case.sources, "source")
    for name, source in use_case.sources.items():
        _check_source(f"sources.{name}", source)
    for name in dict.fromkeys(named.values()):
        _check_key(use_case, name)


def _check_source(where: str, source: Source) -> None:
    for column in source.columns:
        if column.startswith("_"):
            raise ValueError(f"{where}.columns: {column!r}: names with a leading _ are the lake's")
    for key, time in (("event_time", source.event_time), ("available_at", source.available_at)):
        if time is not None:
            _known(f"{where}.{key}", time, source.columns, "column of this source")
            if source.column(time).type not in ("timestamp", "date"):
                raise ValueError(f"{where}.{key}: {time} is not a timestamp or date")
    for column in source.key:
        _known(f"{where}.key", column, source.columns, "column of this source")
    for index, rule in enumerate(source.rules):
        _check_rule(f"{where}.rules.{index}", source, rule)


def _check_rule(where: str, source: Source, rule: Rule) -> None:
    for column in _judged(rule):
        _known(where, column, source.columns, "column of this source")
    if isinstance(rule, InSet):
        for value in rule.values:
            _check_value(f"{where}.values", source, rule.column, value)


def _judged(rule: Rule) -> Iterable[str]:
    """Return the columns that a rule reads."""
    if rule.rule == "not_null":
        return rule.columns
    if rule.rule == "check":
        return sorted(rule.expression.columns)
    return () if isinstance(rule, MinRows | Freshness) else (rule.column,)


def _check_value(where: str, source: Source, column: str, value: Scalar) -> None:
    """Refuse a value that a column of its type can never hold."""
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
        raise ValueError(f"{where}: {value!r} is no {kind}, the type of column {column}{hint}")


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _check_key(use_case: UseCaseSections, name: str) -> None:
    key, home = use_case.entity.key, use_case.population.source
    for source in (name, home):
        _known_columns(use_case, f"sources.{source}.columns (entity.key)", [key], source)
    here, there = (use_case.sources[source].column(key).type for source in (name, home))
    if here != there:
        raise ValueError(
            f"sources.{name}.columns.{key}: the entity key has type {here} here and {there} in "
            f"{home}; the two cannot be joined"
        )


# label and grid


def _check_label_and_grid(use_case: UseCaseSections) -> None:
    if use_case.grid.every != "event" and use_case.grid.start is None:
        raise ValueError("grid.start: required unless `every: event`")
    label = use_case.label
    source = use_case.sources[label.source]
    if label.kind == "column":
        if label.column is None:
            raise ValueError("label.column: required for `kind: column`")
        named = [item for item in (label.column, label.available_at, label.treatment) if item]
        for column in named:
            _known_columns(use_case, "label", [column], label.source)
        if use_case.grid.every != "event":
            raise ValueError("label.kind: `column` needs `grid.every: event`")
        for key, value in (("positive", label.positive), ("negative", label.negative)):
            _check_value(f"label.{key}", source, label.column, value)
    elif not label.horizon_days:
        raise ValueError(f"label.horizon_days: required for `kind: {label.kind}`")
    if label.where:
        _known_columns(use_case, "label.where", label.where.columns, label.source)


# features


def _check_features(use_case: UseCaseSections) -> None:
    seen: dict[str, str] = {**RESERVED, use_case.entity.key: "entity"}
    reserved = set(seen)
    for view_name, view in use_case.views.items():
        for name, column in view.columns.items():
            where = f"views.{view_name}.columns.{name}"
            _check_name(where, name, seen)
            _check_direction(where, column)
            _check_refresh(use_case, where, view, column)
            _check_column(use_case, where, view, column)
    for name, derived in use_case.derived.items():
        where = f"derived.{name}"
        _check_direction(where, derived)
        for used in sorted(derived.expression.columns):
            available = [item for item in seen if item not in reserved]
            _known(f"{where}.expression", used, available, "feature (defined above it)")
        _check_name(where, name, seen)
    for name in use_case.protected:
        _check_name(f"protected.{name}", name, seen)


def _check_name(where: str, name: str, seen: dict[str, str]) -> None:
    if FEATURE_NAME.fullmatch(name) is None:
        raise ValueError(
            f"{where}: {name!r} is no name: up to 60 small letters, digits and _, a letter first"
        )
    if name in seen:
        raise ValueError(f"{where}: the name {name!r} is already used by {seen[name]}")
    seen[name] = where


def _check_direction(where: str, feature: FeatureColumn | DerivedFeature) -> None:
    if feature.expected is not None and feature.dtype == "string":
        raise ValueError(f"{where}.expected: the feature is a text, which has no direction")


def _check_column(
    use_case: UseCaseSections, where: str, view: FeatureView, column: FeatureColumn
) -> None:
    if view.request_time:
        if column.aggregate is not None or column.of is None:
            raise ValueError(f"{where}: a request_time column has `of` and no `aggregate`")
        if use_case.grid.every != "event" or view.source != use_case.population.source:
            raise ValueError(
                f"{where}: request_time needs `grid.every: event` and the population's source"
            )
    elif column.aggregate is None:
        raise ValueError(f"{where}.aggregate: required (only request_time views have none)")
    elif column.of is None and AGGREGATES[column.aggregate].needs_column:
        raise ValueError(f"{where}.of: required for `aggregate: {column.aggregate}`")


def _check_refresh(
    use_case: UseCaseSections, where: str, view: FeatureView, column: FeatureColumn
) -> None:
    if use_case.grid.every != "event":
        if view.refresh != "continuous":
            raise ValueError(f"{where}: `refresh: {view.refresh}` needs `grid.every: event`")
        return
    if view.refresh == "daily" and column.window_hours is not None:
        raise ValueError(f"{where}.window_hours: a daily view counts whole days")
    if view.refresh == "daily" or view.request_time or not view.online:
        return
    if column.reach is None:
        raise ValueError(
            f"{where}.window_days: required in a continuous view of an event grid: it is served "
            "from recent events; or make the view `refresh: daily` or `online: false`"
        )
    if not use_case.sources[view.source].key:
        raise ValueError(
            f"sources.{view.source}.key: required by the continuous view of {where}: a repeated "
            "event is recognised by its key"
        )


# evaluation


def _check_evaluation(use_case: UseCaseSections) -> None:
    names = (*use_case.features, *use_case.protected)
    evaluation = use_case.evaluation
    for name in evaluation.slices:
        _known("evaluation.slices", name, names, "feature or protected attribute")
    if evaluation.missing_block is not None:
        _known("evaluation.missing_block", evaluation.missing_block, use_case.views, "view")
    if evaluation.first_seen is not None:
        _known("evaluation.first_seen", evaluation.first_seen, names, "feature")
    for name, candidate in use_case.training.candidates.items():
        if getattr(candidate, "monotone", False) and not use_case.directions:
            raise ValueError(f"training.candidates.{name}.monotone: no feature declares `expected`")
    if use_case.training.refit == "newest" and use_case.split.method != "time":
        raise ValueError("training.refit: `newest` needs `split.method: time`")
    for index, rule in enumerate(use_case.gates):
        if isinstance(rule, ParityRule):
            for name in rule.attributes:
                _known(f"gates.{index}.attributes", name, use_case.audited, "audited attribute")
