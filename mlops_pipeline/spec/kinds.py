"""What a configuration can name: KINDS of models, simplest first, MITIGATIONS, AGGREGATES.

A kind is a line here with its parameters, core/modelling/kinds/<module>.py (fit, explain) and
core/modelling/scorers/<module>.py (load, score). A method of mitigation is a line here and
core/mitigation/<name>.py; an aggregate a line here and one in core/features/aggregates.py.
The unions of the configuration and the JSON Schema are built from these tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import Field

from mlops_pipeline.spec.section import OneOf, Section

MONOTONE = "Keeps to the `expected` directions of the features, in every tree."
ROUNDS = "On validation log loss; 0 = off. The best tree count is kept."


class Parameters(Section):
    """What every kind has."""

    kind: str

    def fixed(self, _trees: int | None) -> Self:
        """Return what fits the same model on other rows, with the tree count that was found."""
        return self


class Dummy(Parameters):
    """The base rate for everyone: the floor that a model has to beat."""

    kind: Literal["dummy"]


class Logistic(Parameters):
    """Logistic regression on standardised numbers and one-hot categories."""

    kind: Literal["logistic"]
    c: float = Field(0.05, gt=0, description="Inverse strength of the L2 penalty.")
    max_iterations: int = Field(300, ge=1)


class RandomForest(Parameters):
    """LightGBM's random-forest mode (bagged, unboosted trees)."""

    kind: Literal["random_forest"]
    trees: int = Field(150, ge=1, le=5_000)
    leaves: int = Field(127, ge=2, le=4_096)
    min_leaf_rows: int = Field(50, ge=1)
    row_fraction: float = Field(0.6, gt=0, lt=1)
    column_fraction: float = Field(0.5, gt=0, le=1)
    monotone: bool = Field(False, description=MONOTONE)


class Boosted(Parameters):
    """What all boosted trees have: the tree count is found by stopping early."""

    # `trees` and `early_stopping_rounds` stand in each kind: the order of keys is part of the hash

    def fixed(self, trees: int | None) -> Self:
        """Return the parameters with the tree count that was found, and no stopping."""
        found = {"trees": trees, "early_stopping_rounds": 0}
        return self.model_copy(update=found) if trees else self


class LightGBM(Boosted):
    """Gradient-boosted trees. The defaults are regularised: wide trees overfit small sets."""

    kind: Literal["lightgbm"]
    trees: int = Field(400, ge=1, le=5_000)
    leaves: int = Field(15, ge=2, le=1_024)
    learning_rate: float = Field(0.05, gt=0, le=1)
    min_leaf_rows: int = Field(100, ge=1)
    row_fraction: float = Field(0.8, gt=0, le=1)
    column_fraction: float = Field(0.7, gt=0, le=1)
    l2: float = Field(5.0, ge=0)
    early_stopping_rounds: int = Field(30, ge=0, description=ROUNDS)
    monotone: bool = Field(False, description=MONOTONE)


class XGBoost(Boosted):
    """XGBoost's trees of limited depth; needs the extra `xgboost`."""

    kind: Literal["xgboost"]
    trees: int = Field(400, ge=1, le=5_000)
    depth: int = Field(4, ge=1, le=16)
    learning_rate: float = Field(0.05, gt=0, le=1)
    min_child_weight: float = Field(
        10.0, ge=0, description="Least sum of p (1 - p) over the rows of a leaf."
    )
    row_fraction: float = Field(0.8, gt=0, le=1)
    column_fraction: float = Field(0.7, gt=0, le=1)
    l2: float = Field(5.0, ge=0)
    early_stopping_rounds: int = Field(30, ge=0, description=ROUNDS)
    monotone: bool = Field(False, description=MONOTONE)


@dataclass(frozen=True)
class Kind:
    """A line of the table; `module` is the file's name in kinds/ and scorers/."""

    parameters: type[Parameters]
    module: str
    described: str  # as a model card puts it


KINDS: Mapping[str, Kind] = {
    "dummy": Kind(Dummy, "dummy", "the base rate for everyone"),
    "logistic": Kind(Logistic, "logistic", "logistic regression"),
    "random_forest": Kind(RandomForest, "lightgbm", "a random forest (LightGBM)"),
    "lightgbm": Kind(LightGBM, "lightgbm", "gradient-boosted decision trees (LightGBM)"),
    "xgboost": Kind(XGBoost, "xgboost", "gradient-boosted decision trees (XGBoost)"),
}

MITIGATIONS: Mapping[str, str] = MappingProxyType(  # where each comes from
    {
        "reweighing": "Kamiran & Calders 2012",
        "group_thresholds": "Hardt, Price & Srebro 2016; Chzhen et al. 2020; Denis et al. 2021",
        "grid_search": "Agarwal et al. 2018, section 3.4",
    }
)
MethodName = Annotated[str, OneOf(tuple(MITIGATIONS))]


@dataclass(frozen=True)
class Aggregate:
    """What a feature column can be of the rows that count.

    `is_count`: it says how many, so it is 0 for an entity without rows, and carries no value of the
    column that it counts.
    """

    needs_column: bool = True
    is_count: bool = False


AGGREGATES: Mapping[str, Aggregate] = MappingProxyType(
    {
        **dict.fromkeys(("sum", "mean", "min", "max", "std"), Aggregate()),
        "count": Aggregate(needs_column=False, is_count=True),
        "count_distinct": Aggregate(is_count=True),
        "last": Aggregate(),
        "days_since_last": Aggregate(needs_column=False),
        "days_since_first": Aggregate(needs_column=False),
    }
)
