"""Rules that a configuration can name: of a source's data, of the service's inputs, of the gate.

A rule of a source is a class here, named in the union, and a case in core/data/rules.py; one of the
inputs has a case in core/data/inputs.py. A rule of the gate is a class here, named in its union,
and a function in core/evaluation/gates.py.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlops_pipeline.spec.grammar import Expression
from mlops_pipeline.spec.metrics import MetricName
from mlops_pipeline.spec.section import Fraction, Name, Scalar, Section


class NotNull(Section):
    """Rows where a column is missing are quarantined."""

    rule: Literal["not_null"]
    columns: tuple[str, ...]


class Range(Section):
    """Rows where a present value lies outside [min, max] are quarantined."""

    rule: Literal["range"]
    column: str
    min: float | None = None
    max: float | None = None


class InSet(Section):
    """Rows where a present value is not one of `values` are quarantined."""

    rule: Literal["in_set"]
    column: str
    values: tuple[Scalar, ...]


class Check(Section):
    """Rows where the expression is false are quarantined (missing counts as true)."""

    rule: Literal["check"]
    name: Name
    expression: Expression


class Completeness(Section):
    """The source is refused when too few rows have a value in the column."""

    rule: Literal["completeness"]
    column: str
    at_least: Fraction


class MinRows(Section):
    """The source is refused when fewer rows than this are left after quarantine."""

    rule: Literal["min_rows"]
    at_least: int = Field(ge=1)


class Freshness(Section):
    """The source is refused when its newest row became available too long ago."""

    rule: Literal["freshness"]
    at_most_days: float = Field(gt=0)


class ClassBalance(Section):
    """The source is refused when the share of `positive` leaves [min, max]."""

    rule: Literal["class_balance"]
    column: str
    positive: Scalar = 1
    min: Fraction = 0.0
    max: Fraction = 1.0


SourceRule = Annotated[
    NotNull | Range | InSet | Check | Completeness | MinRows | Freshness | ClassBalance,
    Field(discriminator="rule"),
]

InputRule = Annotated[NotNull | Range | InSet, Field(discriminator="rule")]

Effect = Literal["block", "review", "warn"]


class Bounded(Section):
    """A figure with one bound."""

    rule: str
    metric: MetricName
    at_least: float | None = None
    at_most: float | None = None
    effect: Effect = "block"

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give exactly one of at_least and at_most")
        return self


class MetricRule(Bounded):
    """A test metric is at least / at most a value."""

    rule: Literal["metric"]


class GapRule(Section):
    """The training part is better than the test part by at most this much."""

    rule: Literal["train_test_gap"]
    metric: MetricName = "roc_auc"
    at_most: float = 0.05
    effect: Effect = "block"


class NotWorseRule(Section):
    """The challenger is not worse than the champion by more than a margin, with confidence."""

    rule: Literal["not_worse_than_champion"]
    metric: MetricName = "roc_auc"
    by: float = Field(0.01, ge=0)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    effect: Effect = "block"


class BetterRule(Section):
    """The challenger is better than the champion by at least a margin, with confidence."""

    rule: Literal["better_than_champion"]
    metric: MetricName = "roc_auc"
    by: float = Field(0.02, ge=0)
    effect: Effect = "review"


class NaiveRule(Section):
    """The model is better than a naive rule by at least a margin, with confidence."""

    rule: Literal["better_than_naive"]
    metric: MetricName = "roc_auc"
    column: str | None = Field(
        None,
        description="An input: the rule knows it alone. Default: the share of positive rows for "
        "everyone, and the most frequent class as decision.",
    )
    by: float = Field(0.0, ge=0)
    effect: Effect = "block"


class SliceRule(Bounded):
    """No computable slice is worse than a value."""

    rule: Literal["worst_slice"]
    metric: MetricName = "roc_auc"
    effect: Effect = "warn"


class ParityRule(Section):
    """Selection rates differ between groups of a protected attribute by at most this."""

    rule: Literal["demographic_parity"]
    at_most: float = Field(0.05, ge=0, le=1)
    attributes: tuple[str, ...] = Field(
        (), description="Default: every protected attribute; intersections only when named."
    )
    effect: Effect = "warn"


class ConsistencyRule(Section):
    """The challenger weighs the inputs much as the champion does."""

    rule: Literal["attribution_consistency"]
    at_least: float = Field(0.5, ge=-1, le=1)
    effect: Effect = "review"


class DirectionRule(Section):
    """No feature moves the score against its `expected` direction by more than this share."""

    rule: Literal["expected_directions"]
    at_most: float = Field(0.2, ge=0, le=1)
    effect: Effect = "review"


MISSING_CHANGE = 0.2  # of the rows: a feature that stops arriving, or begins to


class MissingRule(Section):
    """No input's share of missing values differs between test and train part by more than this."""

    rule: Literal["missing_share"]
    at_most: float = Field(MISSING_CHANGE, ge=0, le=1)
    effect: Effect = "review"


OfMetric = MetricRule | GapRule | NotWorseRule | BetterRule | NaiveRule | SliceRule
OfModel = ParityRule | ConsistencyRule | DirectionRule | MissingRule
GateRule = Annotated[OfMetric | OfModel, Field(discriminator="rule")]
