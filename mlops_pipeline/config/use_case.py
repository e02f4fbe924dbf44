"""The whole configuration of one use case, and the checks that need more than one section."""

import re
from collections.abc import Iterable

from pydantic import Field, model_validator

from mlops_pipeline.config.fairness import Fairness, attribute_pairs
from mlops_pipeline.config.features import (
    DerivedFeature,
    Direction,
    FeatureColumn,
    FeatureView,
    ProtectedAttribute,
)
from mlops_pipeline.config.leakage import check_leakage
from mlops_pipeline.config.modelling import (
    ComputeCost,
    Evaluation,
    Explanations,
    Governance,
    Retraining,
    Rollout,
    Split,
    Training,
)
from mlops_pipeline.config.source_checks import check_source, check_value, known
from mlops_pipeline.config.tables import ColumnType, Entity, Grid, Label, Population, Source
from mlops_pipeline.spec.aggregates import AGGREGATES
from mlops_pipeline.spec.gates import GateRule, ParityRule
from mlops_pipeline.spec.grammar import Expression
from mlops_pipeline.spec.section import Name, Section

SPINE = ("as_of",)  # columns that every frame has beside the entity key
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


class UseCase(Section):
    """One use case: tabular binary classification from sources to deployment."""

    name: Name
    description: str = Field(min_length=10)
    owner: str = Field(min_length=1)
    intended_use: str = Field(min_length=10)
    out_of_scope: tuple[str, ...] = ()
    licence: str = "not provided"
    entity: Entity
    grid: Grid
    population: Population
    sources: dict[Name, Source] = Field(min_length=1)
    label: Label
    views: dict[Name, FeatureView] = Field(min_length=1)
    derived: dict[Name, DerivedFeature] = Field(default_factory=dict)
    protected: dict[Name, ProtectedAttribute] = Field(default_factory=dict)
    split: Split = Split()
    training: Training
    evaluation: Evaluation = Evaluation()
    fairness: Fairness = Fairness()
    explanations: Explanations = Explanations()
    gates: tuple[GateRule, ...] = Field(min_length=1)
    rollout: Rollout = Rollout()
    retraining: Retraining = Retraining()
    compute_cost: ComputeCost = ComputeCost()
    governance: Governance = Governance()

    @property
    def features(self) -> tuple[str, ...]:
        """Every feature name, in the order of the file: views, then derived."""
        return tuple(self.definitions)

    @property
    def definitions(self) -> dict[str, FeatureColumn | DerivedFeature]:
        """Every feature by name, in the order of the file: views, then derived."""
        columns = {n: item for view in self.views.values() for n, item in view.columns.items()}
        return {**columns, **self.derived}

    @property
    def directions(self) -> dict[str, Direction]:
        """The declared direction of every feature that has one."""
        return {n: item.expected for n, item in self.definitions.items() if item.expected}

    @property
    def descriptions(self) -> dict[str, str]:
        """What every feature and protected attribute is, in words; may be empty."""
        features = {name: item.description for name, item in self.definitions.items()}
        return {**features, **{name: item.description for name, item in self.protected.items()}}

    @property
    def inputs(self) -> tuple[str, ...]:
        """Inputs of new models: features not deprecated, and protected ones declared as inputs."""
        current = [name for name, item in self.definitions.items() if not item.deprecated]
        declared = [name for name, item in self.protected.items() if item.as_input]
        return (*current, *declared)

    @property
    def audited(self) -> tuple[str, ...]:
        """What fairness is audited by: the protected attributes, then their intersections."""
        names = tuple(self.protected)
        return (*names, *attribute_pairs(names)) if self.fairness.intersections else names

    @property
    def label_horizon_days(self) -> int:
        """Days from as_of until an event label is known."""
        return (self.label.horizon_days or 0) + self.label.delay_days

    @property
    def request_columns(self) -> dict[str, ColumnType]:
        """The source columns that request-time features read, with their types."""
        source = self.sources[self.population.source]
        views = [view for view in self.views.values() if view.request_time]
        read = {used for view in views for item in view.columns.values() for used in item.reads}
        return {name: source.column(name).type for name in source.columns if name in read}

    def with_dependents(self, features: Iterable[str]) -> set[str]:
        """Return these features and all that are derived from one of them."""
        found = set(features)
        for name, derived in self.derived.items():  # each is defined below those it uses
            if derived.expression.columns & found:
                found.add(name)
        return found

    def feature_type(self, name: str) -> str:
        """Return the declared dtype of a feature or protected attribute."""
        for view in self.views.values():
            if name in view.columns:
                return view.columns[name].dtype
        return self.derived[name].dtype if name in self.derived else "string"

    @model_validator(mode="after")
    def _references_exist(self) -> "UseCase":
        for where, name in self._source_references():
            known(where, name, self.sources, "source")
        for source_name, source in self.sources.items():
            check_source(f"sources.{source_name}", source)
        self._check_population_and_label()
        return self

    @model_validator(mode="after")
    def _nothing_leaks(self) -> "UseCase":
        check_leakage(self)
        return self

    @model_validator(mode="after")
    def _features_fit(self) -> "UseCase":
        seen: dict[str, str] = {**RESERVED, self.entity.key: "entity"}
        for view_name, view in self.views.items():
            for name, column in view.columns.items():
                where = f"views.{view_name}.columns.{name}"
                _unique(where, name, seen)
                _check_expected(where, column)
                self._check_feature(where, view, column)
        for name, derived in self.derived.items():
            where = f"derived.{name}"
            _check_expected(where, derived)
            available = [item for item in seen if item not in {*RESERVED, self.entity.key}]
            for used in sorted(derived.expression.columns):
                known(f"{where}.expression", used, available, "feature (defined above it)")
            _unique(where, name, seen)
        for name, attribute in self.protected.items():
            _unique(f"protected.{name}", name, seen)
            self._check_expression(f"protected.{name}.of", attribute.of, attribute.source)
        return self

    @model_validator(mode="after")
    def _evaluation_fits(self) -> "UseCase":
        names = (*self.features, *self.protected)
        for name in self.evaluation.slices:
            known("evaluation.slices", name, names, "feature or protected attribute")
        if self.evaluation.missing_block is not None:
            known("evaluation.missing_block", self.evaluation.missing_block, self.views, "view")
        if self.evaluation.first_seen is not None:
            known("evaluation.first_seen", self.evaluation.first_seen, names, "feature")
        self._check_monotone()
        if self.training.refit == "newest" and self.split.method != "time":
            raise ValueError("training.refit: `newest` needs `split.method: time`")
        for index, rule in enumerate(self.gates):
            if isinstance(rule, ParityRule):
                for name in rule.attributes:
                    known(f"gates.{index}.attributes", name, self.audited, "audited attribute")
        return self

    def _check_monotone(self) -> None:
        for name, recipe in self.training.candidates.items():
            if getattr(recipe, "monotone", False) and not self.directions:
                raise ValueError(
                    f"training.candidates.{name}.monotone: no feature declares `expected`"
                )

    def _source_references(self) -> Iterable[tuple[str, str]]:
        yield "population.source", self.population.source
        yield "label.source", self.label.source
        if self.population.leaves_with:
            yield "population.leaves_with", self.population.leaves_with
        for name, view in self.views.items():
            yield f"views.{name}.source", view.source
        for name, attribute in self.protected.items():
            yield f"protected.{name}.source", attribute.source

    def _check_expression(self, where: str, expression: Expression, source: str) -> None:
        for used in sorted(expression.columns):
            known(where, used, self.sources[source].columns, f"column of source {source}")

    def _check_population_and_label(self) -> None:
        for source_name in {item for _, item in self._source_references()}:
            known(
                f"sources.{source_name}.columns (entity.key)",
                self.entity.key,
                self.sources[source_name].columns,
                f"column of source {source_name}",
            )
            types = {
                name: self.sources[name].column(self.entity.key).type
                for name in (source_name, self.population.source)
            }
            if len(set(types.values())) > 1:
                raise ValueError(
                    f"sources.{source_name}.columns.{self.entity.key}: the entity key has type "
                    f"{types[source_name]} here and {types[self.population.source]} in "
                    f"{self.population.source}; the two cannot be joined"
                )
        if self.population.where:
            self._check_expression(
                "population.where", self.population.where, self.population.source
            )
        self._check_label()
        if self.grid.every != "event" and self.grid.start is None:
            raise ValueError("grid.start: required unless `every: event`")

    def _check_label(self) -> None:
        label = self.label
        columns = self.sources[label.source].columns
        if label.kind == "column":
            if label.column is None:
                raise ValueError("label.column: required for `kind: column`")
            for name in (label.column, label.available_at, label.treatment):
                if name is not None:
                    known("label", name, columns, f"column of source {label.source}")
            if self.grid.every != "event":
                raise ValueError("label.kind: `column` needs `grid.every: event`")
            for key, value in (("positive", label.positive), ("negative", label.negative)):
                check_value(f"label.{key}", self.sources[label.source], label.column, value)
        elif not label.horizon_days:
            raise ValueError(f"label.horizon_days: required for `kind: {label.kind}`")
        if label.where:
            self._check_expression("label.where", label.where, label.source)

    def _check_feature(self, where: str, view: FeatureView, column: FeatureColumn) -> None:
        for key, expression in (("of", column.of), ("where", column.where)):
            if expression is not None:
                self._check_expression(f"{where}.{key}", expression, view.source)
        self._check_refresh(where, view, column)
        if view.request_time:
            if column.aggregate is not None or column.of is None:
                raise ValueError(f"{where}: a request_time column has `of` and no `aggregate`")
            if self.grid.every != "event" or view.source != self.population.source:
                raise ValueError(
                    f"{where}: request_time needs `grid.every: event` and the population's source"
                )
        elif column.aggregate is None:
            raise ValueError(f"{where}.aggregate: required (only request_time views have none)")
        elif column.of is None and AGGREGATES[column.aggregate].needs_column:
            raise ValueError(f"{where}.of: required for `aggregate: {column.aggregate}`")

    def _check_refresh(self, where: str, view: FeatureView, column: FeatureColumn) -> None:
        if self.grid.every != "event":
            if view.refresh != "continuous":
                raise ValueError(f"{where}: `refresh: {view.refresh}` needs `grid.every: event`")
            return
        if view.refresh == "daily" and column.window_hours is not None:
            raise ValueError(f"{where}.window_hours: a daily view counts whole days")
        if view.refresh == "daily" or view.request_time or not view.online:
            return
        if column.reach is None:
            raise ValueError(
                f"{where}.window_days: required in a continuous view of an event grid: it is "
                "served from recent events; or make the view `refresh: daily` or `online: false`"
            )
        if not self.sources[view.source].key:
            raise ValueError(
                f"sources.{view.source}.key: required by the continuous view of {where}: a "
                "repeated event is recognised by its key"
            )


def _check_expected(where: str, feature: FeatureColumn | DerivedFeature) -> None:
    if feature.expected is not None and feature.dtype == "string":
        raise ValueError(f"{where}.expected: the feature is a text, which has no direction")


def _unique(where: str, name: str, seen: dict[str, str]) -> None:
    if FEATURE_NAME.fullmatch(name) is None:
        raise ValueError(
            f"{where}: {name!r} is no name: up to 60 small letters, digits and _, a letter first"
        )
    if name in seen:
        raise ValueError(f"{where}: the name {name!r} is already used by {seen[name]}")
    seen[name] = where
