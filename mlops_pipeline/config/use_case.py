"""The whole configuration of one use case: its sections, and what follows from them.

Belongs here: names and columns as other rooms ask for them, what is read where, what tells of one
person. That the sections fit together is checks.py's.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from mlops_pipeline.config import modelling, tables
from mlops_pipeline.config.checks import problems
from mlops_pipeline.spec.rules import GateRule
from mlops_pipeline.spec.section import Name, Section


class Read(NamedTuple):
    """An expression over a source's columns, where it stands, and the view's column it makes."""

    where: str
    source: str
    columns: frozenset[str]
    feature: tables.FeatureColumn | None = None


class UseCase(Section):
    """One use case: tabular binary classification from sources to deployment."""

    name: Name
    description: str = Field(min_length=10)
    owner: str = Field(min_length=1)
    intended_use: str = Field(min_length=10)
    out_of_scope: tuple[str, ...] = ()
    licence: str = "not provided"
    entity: tables.Entity
    grid: tables.Grid
    population: tables.Population
    sources: dict[Name, tables.Source] = Field(min_length=1)
    label: tables.Label
    views: dict[Name, tables.FeatureView] = Field(min_length=1)
    derived: dict[Name, tables.DerivedFeature] = Field(default_factory=dict)
    protected: dict[Name, tables.ProtectedAttribute] = Field(default_factory=dict)
    split: modelling.Split = modelling.Split()
    training: modelling.Training
    evaluation: modelling.Evaluation = modelling.Evaluation()
    fairness: modelling.Fairness = modelling.Fairness()
    explanations: modelling.Explanations = modelling.Explanations()
    gates: tuple[GateRule, ...] = Field(min_length=1)
    rollout: modelling.RolloutPolicy = modelling.RolloutPolicy()
    serving: modelling.Serving = modelling.Serving()
    retraining: modelling.Retraining = modelling.Retraining()
    compute_cost: modelling.ComputeCost = modelling.ComputeCost()
    governance: modelling.Governance = modelling.Governance()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for problem in problems(self):
            raise ValueError(problem)
        return self

    @property
    def features(self) -> tuple[str, ...]:
        """Every feature name, in the order of the file: views, then derived."""
        return tuple(self.definitions)

    @property
    def definitions(self) -> dict[str, tables.FeatureColumn | tables.DerivedFeature]:
        """Every feature by name, in the order of the file: views, then derived."""
        columns = {n: item for view in self.views.values() for n, item in view.columns.items()}
        return {**columns, **self.derived}

    @property
    def directions(self) -> dict[str, tables.Direction]:
        """The declared direction of every feature that has one."""
        return {n: item.expected for n, item in self.definitions.items() if item.expected}

    @property
    def descriptions(self) -> dict[str, str]:
        """What every feature and protected attribute is, in words; may be empty."""
        described = {**self.definitions, **self.protected}
        return {name: item.description for name, item in described.items()}

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
        return (*names, *modelling.attribute_pairs(names)) if self.fairness.intersections else names

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
    def label_delay_days(self) -> int:
        """Days from the end of the horizon, or a column's own time, until a label is known."""
        if self.label.delay_days is not None:
            return self.label.delay_days
        is_column = self.label.kind == "column"
        return 0 if is_column else max(self.sources[n].lateness_days for n in self.label.sources)

    @property
    def label_horizon_days(self) -> int:
        """Days from as_of until an event label is known."""
        return (self.label.horizon_days or 0) + self.label_delay_days

    @property
    def request_columns(self) -> dict[str, tables.ColumnType]:
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
        return "string" if name in self.protected else self.definitions[name].dtype

    def hidden_columns(self, source_name: str) -> frozenset[str]:
        """Return the columns of a source whose values no page, log, error or example may show."""
        source = self.sources[source_name]
        hidden = {name for name in source.columns if source.column(name).personal}
        hidden |= {self.entity.key} & set(source.columns)
        for attribute in self.protected.values():
            if attribute.source == source_name:
                hidden |= attribute.of.columns - {source.happened, source.availability}
        return frozenset(hidden)

    def sensitive_features(self, *, with_counts: bool = False) -> frozenset[str]:
        """Return protected attributes, and the features that carry values of hidden columns.

        They are inputs only where `as_input: true` declares them. A count carries no value of what
        it counts, unless its `where` reads it; `with_counts`: where not even counts are shown.
        """
        found = set(self.protected)
        for view in self.views.values():
            hidden = self.hidden_columns(view.source)
            for name, column in view.columns.items():
                read = column.reads
                if column.is_count and not with_counts:
                    read = column.where.columns if column.where else frozenset()
                if read & hidden:
                    found.add(name)
        return frozenset(self.with_dependents(found))
