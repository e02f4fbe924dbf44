"""The sections of a use case, and what follows from them.

Belongs here: every section, names and columns as other rooms ask for them, what is read where. That
the sections fit together is use_case.py's.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pydantic import Field

from mlops_pipeline.config.fairness import Fairness, attribute_pairs
from mlops_pipeline.config.features import (
    DerivedFeature,
    Direction,
    FeatureColumn,
    FeatureView,
    ProtectedAttribute,
)
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
from mlops_pipeline.config.tables import ColumnType, Entity, Grid, Label, Population, Source
from mlops_pipeline.spec.gates import GateRule
from mlops_pipeline.spec.section import Name, Section


class Read(NamedTuple):
    """An expression over the columns of a source, and where it stands.

    `feature` is the column of a view that reads them, of the view's features only.
    """

    where: str
    source: str
    columns: frozenset[str]
    feature: FeatureColumn | None = None

    @property
    def is_value(self) -> bool:
        """A value of what is read becomes a feature's value."""
        of_feature = self.feature is not None and not self.feature.is_count
        return of_feature and not self.is_filter

    @property
    def is_filter(self) -> bool:
        """It says which rows count."""
        return self.where.endswith(".where")


class UseCaseSections(Section):
    """A use case as it is written, not checked as a whole."""

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
    def reads(self) -> Iterator[Read]:
        """Every expression over a source that chooses or describes rows, the label's apart."""
        rule = self.population
        if rule.where is not None:
            yield Read("population.where", rule.source, rule.where.columns)
        for view_name, view in self.views.items():
            for name, column in view.columns.items():
                for key, expression in (("of", column.of), ("where", column.where)):
                    if expression is not None:
                        where = f"views.{view_name}.columns.{name}.{key}"
                        yield Read(where, view.source, expression.columns, column)
        for name, attribute in self.protected.items():
            yield Read(f"protected.{name}.of", attribute.source, attribute.of.columns)

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
