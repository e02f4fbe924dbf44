"""Configuration of fairness: what is audited and how a disparity is mitigated."""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

from pydantic import Field

from mlops_pipeline.spec.metrics import MetricName
from mlops_pipeline.spec.mitigation import MethodName
from mlops_pipeline.spec.section import Fraction, Section

CROSSED = " x "  # "gender x region": no name of an attribute holds a space


class Mitigation(Section):
    """What is tried when a gate fails on blocking parity rules only, and how one is chosen."""

    methods: tuple[MethodName, ...] = Field(
        ("reweighing", "group_thresholds", "grid_search"),
        description="`[]`: a refusal stands, nothing is tried.",
    )
    grid_size: int = Field(4, ge=1, le=50, description="Models that `grid_search` fits.")
    margin: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="On the validation part a disparity is at most this share below its limit.",
    )
    prefer: Literal["expected_cost"] | MetricName = Field(
        "expected_cost", description="The validation figure by which one of the fair is chosen."
    )
    max_loss: float = Field(
        0.1, ge=0, description="Largest loss of `prefer` against the base model, as a share of it."
    )


class Fairness(Section):
    """How decisions are audited by protected attribute, and how a disparity is mitigated."""

    intersections: bool = Field(
        True, description="Audit pairs of attributes too, as `gender x region`."
    )
    min_group_rows: int = Field(
        100, ge=1, description="Of a smaller group no figure is computed, and none shown."
    )
    demographic_parity_at_most: Fraction = Field(
        0.05, description="Live decisions that differ by more between groups raise an alert."
    )
    lookback_days: int = Field(
        365, ge=1, le=36_500, description="The live audit reads decisions of this many days."
    )
    audit_day: int = Field(6, ge=1, le=28, description="Day of the monthly live audit.")
    attribute_at_decision: Literal["allowed", "forbidden"] = Field(
        "forbidden",
        description="Whether a decision may know the protected attribute that is mitigated.",
    )
    mitigation: Mitigation = Mitigation()


def attribute_pairs(names: Sequence[str]) -> tuple[str, ...]:
    """Return the intersections of attributes: "gender x region"."""
    return tuple(CROSSED.join(pair) for pair in combinations(names, 2))


def is_intersection(attribute: str) -> bool:
    """Whether an audited attribute is a pair."""
    return CROSSED in attribute
