"""Gate rules: what each can be told.

A rule is a class here, named in the union, and a function in core/evaluation/gates.py.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlops_pipeline.spec.metrics import MetricName
from mlops_pipeline.spec.section import Section

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
    """The challenger is better than the champion by at least a margin (point estimate)."""

    rule: Literal["better_than_champion"]
    metric: MetricName = "roc_auc"
    by: float = Field(0.02, ge=0)
    effect: Effect = "review"


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


GateRule = Annotated[
    MetricRule
    | GapRule
    | NotWorseRule
    | BetterRule
    | SliceRule
    | ParityRule
    | ConsistencyRule
    | DirectionRule,
    Field(discriminator="rule"),
]
