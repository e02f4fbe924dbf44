"""Configuration of the fairness audit: which groups, how large, what raises an alert, when."""

from collections.abc import Sequence
from itertools import combinations

from pydantic import Field

from mlops_pipeline.config.base import Fraction, Section

CROSSED = " x "  # "gender x region": no name of an attribute holds a space


class Fairness(Section):
    """How decisions are audited by protected attribute, at evaluation and on live decisions."""

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


def attribute_pairs(names: Sequence[str]) -> tuple[str, ...]:
    """Return the intersections of attributes: "gender x region"."""
    return tuple(CROSSED.join(pair) for pair in combinations(names, 2))


def is_intersection(attribute: str) -> bool:
    """Whether an audited attribute is a pair."""
    return CROSSED in attribute
