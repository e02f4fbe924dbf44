"""Configuration of features: views over sources, derived features, protected attributes."""

from typing import Literal

from pydantic import Field

from mlops_pipeline.config.base import Days, Expression, Section

Aggregate = Literal[
    "sum",
    "mean",
    "min",
    "max",
    "std",
    "count",
    "count_distinct",
    "last",
    "days_since_last",
    "days_since_first",
]
FeatureType = Literal["float64", "int64", "string", "boolean"]
NEEDS_NO_COLUMN = frozenset({"count", "days_since_last", "days_since_first"})
COUNTS = frozenset({"count", "count_distinct"})


class FeatureColumn(Section):
    """One feature of a view."""

    aggregate: Aggregate | None = Field(
        None, description="Not given for a `request_time` view: the value of the row itself."
    )
    of: Expression | None = Field(None, description="Expression over the source's columns.")
    window_days: Days | None = Field(
        None, description="Rows with event time in [as_of - offset - window, as_of - offset)."
    )
    offset_days: Days = Field(0, description="Shifts the window into the past.")
    where: Expression | None = Field(None, description="Only rows that satisfy this count.")
    dtype: FeatureType = "float64"
    precision: int = Field(
        4, ge=0, le=6, description="Decimal places kept; inputs of sums are rounded to it."
    )
    description: str = ""
    unseen: float | int | None = Field(
        None, description="For an entity without rows; counts default to 0, others to missing."
    )


class FeatureView(Section):
    """Features computed from one source."""

    source: str
    owner: str = ""
    description: str = ""
    freshness_days: Days | None = Field(None, description="Older values count as stale online.")
    request_time: bool = Field(
        False, description="The columns come from the row itself at as_of (a snapshot table)."
    )
    columns: dict[str, FeatureColumn] = Field(min_length=1)


class DerivedFeature(Section):
    """A scalar expression over features of the same row."""

    expression: Expression
    description: str = ""
    dtype: FeatureType = "float64"
    precision: int = Field(6, ge=0, le=12)


class ProtectedAttribute(Section):
    """An attribute that is audited; a model input only when declared."""

    source: str
    of: Expression = Field(description="Latest value before as_of (request-time row: its own).")
    description: str = ""
    as_input: bool = False
