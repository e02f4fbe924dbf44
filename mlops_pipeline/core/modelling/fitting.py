"""Fitting: what is learned of the inputs, rows as a matrix, and one candidate in, a model out.

How each kind is fitted and explained is kinds/<module>.py's; same input, same bytes there, on any
number of threads. Choosing among candidates is train.py's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from mlops_pipeline.config.tables import Direction
from mlops_pipeline.core.data.frame import Columns, Indices, Labels
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.core.modelling import kinds
from mlops_pipeline.core.modelling.scoring import Floats, Matrix, ScoringModel, encode
from mlops_pipeline.errors import DataError
from mlops_pipeline.spec.kinds import KINDS

MAX_CATEGORIES = 1_000  # more distinct texts are an identifier, not a category
SIGNS = {"increasing": 1, "decreasing": -1}

Weights = Floats


@dataclass(frozen=True)
class Inputs:
    """The inputs as learned from the training part, what was left out, and declared directions."""

    items: tuple[Mapping[str, Any], ...]
    dropped: Mapping[str, str] = field(default_factory=dict)
    directions: Mapping[str, Direction] = field(default_factory=dict)


def learn_inputs(
    columns: Columns,
    names: Sequence[str],
    rows: Indices,
    directions: Mapping[str, Direction] | None = None,
) -> Inputs:
    """Learn categories from the training rows; leave out inputs that say nothing."""
    items: list[Mapping[str, Any]] = []
    dropped: dict[str, str] = {}
    for name in names:
        values = columns[name][rows]
        found: Any  # the values that are not missing
        if values.dtype == object:
            found = sorted({value for value in values if value is not None})
            if len(found) > MAX_CATEGORIES:
                raise DataError(
                    "a text feature has too many distinct values",
                    where=f"feature {name}",
                    expected=f"at most {MAX_CATEGORIES:,}",
                    found=f"{len(found):,}",
                    way_out="group the values with a case expression, count them, or leave it out",
                )
            item = {"name": name, "type": "category", "categories": found}
            varies = len(found) + (None in values) > 1
        else:
            found = values[~np.isnan(values)]
            item = {"name": name, "type": "number"}
            varies = 0 < len(found) < len(values) or (len(found) > 0 and np.ptp(found) > 0)
        if varies:
            items.append(item)
        else:
            dropped[name] = "constant" if len(found) else "all missing"
    if not items:
        raise DataError(
            "no feature varies in the training part",
            found=", ".join(f"{name}: {reason}" for name, reason in dropped.items()),
        )
    return Inputs(tuple(items), dropped, directions or {})


def encode_rows(inputs: Inputs, columns: Columns, rows: Indices) -> Matrix:
    """Encode the given rows as a float32 matrix `(len(rows), n_inputs)`."""
    return encode(inputs.items, columns, rows)


class Rows(NamedTuple):
    """Encoded rows, labels, weights (None: 1); `prepared` is what the kind's `prepare` made."""

    matrix: Matrix
    label: Labels
    weight: Weights | None = None
    prepared: Any = None


@dataclass(frozen=True)
class Fitting:
    """A candidate and what it is fitted on."""

    name: str
    parameters: Any  # of its kind
    inputs: Inputs
    train: Rows
    validation: Rows | None
    balanced: bool
    seed: int
    threads: int

    def fit(self) -> "Fitted":
        """Fit the candidate; with a validation part, boosting stops early on its log loss."""
        return kind_of(self.parameters.kind).fit(self)

    def model(self, texts: Mapping[str, str] | None = None, **learned: Any) -> ScoringModel:
        """Return the fitted model, not calibrated."""
        document = {
            "format": 1,
            "candidate": self.name,
            "kind": self.parameters.kind,
            "recipe": self.parameters.model_dump(mode="json"),
            "inputs": [dict(item) for item in self.inputs.items],
            "dropped_inputs": dict(self.inputs.dropped),
            "calibration": {"kind": "none"},
            "threshold": 0.5,
            **learned,
        }
        return ScoringModel(document, texts)

    def signs(self) -> list[int]:
        """Return the declared direction of each input: 1, -1, or 0 for none."""
        directions = self.inputs.directions
        return [SIGNS.get(directions.get(item["name"], ""), 0) for item in self.inputs.items]


@dataclass(frozen=True)
class Fitted:
    """A fitted candidate before calibration."""

    name: str
    model: ScoringModel
    trees: int | None = None
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """A candidate with its validation figures; the model is calibrated and has a threshold."""

    fitted: Fitted
    model: ScoringModel
    validation_log_loss: float
    validation: Mapping[str, Estimate]
    seconds: float

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.fitted.name


class Contributions(NamedTuple):
    """What each input adds to the log-odds of each row: float64 `(n_rows, n_inputs)`."""

    values: Floats
    base: float  # plus a row's values: the log-odds of its uncalibrated score

    @classmethod
    def of_trees(cls, found: Floats) -> Self:
        """Return what a tree library gives of each row, the base in the last column."""
        return cls(found[:, :-1], float(found[0, -1]) if len(found) else 0.0)


class Kind(Protocol):
    """What a module of kinds/ has."""

    FRAMEWORK: str  # the package that fits
    REQUIREMENTS: tuple[str, ...]  # packages that score, beside NumPy

    def prepare(self, inputs: Inputs, matrix: Matrix) -> Any:
        """Return what every fit of the same rows has in common, or None."""

    def fit(self, fitting: Fitting) -> Fitted:
        """Fit; with a validation part, boosting stops early on its log loss."""

    def explain(self, model: ScoringModel, matrix: Matrix) -> Contributions:
        """Return the exact contributions to every row's log-odds."""


def kind_of(name: str) -> Kind:
    """Return how a kind is fitted and explained."""
    module: Any = import_module(f"{kinds.__name__}.{KINDS[name].module}")
    return module  # type: ignore[no-any-return]
