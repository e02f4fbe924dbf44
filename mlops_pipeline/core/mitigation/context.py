"""What a method of mitigation is, and what it works with.

A method makes variants of the chosen model on the train and the validation part, and fits one of
them again on other rows. A variant is one deterministic model of text and JSON: hyperparameters and
tree count are the base model's. Fitted on the train part, calibrated on the validation part.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, Protocol, Self, cast

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame, Parts
from mlops_pipeline.core.fairness.variants import Codes, Groups, learn_groups
from mlops_pipeline.core.metrics.metrics import Floats
from mlops_pipeline.core.modelling.calibration import fit_calibration
from mlops_pipeline.core.modelling.fitting import (
    Fitted,
    Inputs,
    Rows,
    encode_rows,
    kind_of,
    learn_inputs,
)
from mlops_pipeline.core.modelling.scoring import Matrix, ScoringModel
from mlops_pipeline.core.modelling.selection import cross_fitted
from mlops_pipeline.core.modelling.train import decide_as, fit_again


@dataclass(frozen=True)
class MitigationRecipe:
    """What fits a variant again on other rows."""

    method: str  # "none" of the base model
    groups: Groups
    multipliers: tuple[float, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A variant's model, and what it says of the rows of the validation part.

    Probabilities and thresholds are cross-fitted: what a row gets was learned on other folds.
    """

    name: str
    model: ScoringModel
    recipe: MitigationRecipe
    importance: Mapping[str, float]
    probability: Floats
    threshold: Floats


@dataclass(frozen=True)
class GroupedRows:
    """Rows that the base model's recipe is fitted on, with the group of each."""

    use_case: UseCase
    base: ScoringModel
    inputs: Inputs
    matrix: Matrix
    label: npt.NDArray[np.int8]
    codes: Codes
    threads: int

    @classmethod
    def of(
        cls,
        use_case: UseCase,
        base: ScoringModel,
        frame: LabelledFrame,
        rows: npt.NDArray[np.intp],
        groups: Groups,
        *,
        threads: int,
    ) -> Self:
        """Return these rows of a frame; inputs are learned on them."""
        inputs = learn_inputs(frame.columns, use_case.inputs, rows, use_case.directions)
        protected = {name: frame.protected[name][rows] for name in groups.attributes}
        return cls(
            *(use_case, base, inputs, encode_rows(inputs, frame.columns, rows)),
            *(frame.label[rows], groups.codes(protected), threads),
        )

    def fit(self, label: npt.NDArray[np.int8], weight: Floats | None) -> Fitted:
        """Fit the base model's recipe with these labels and weights."""
        rows = Rows(self.matrix, label, weight, self._prepared)
        return fit_again(self.use_case, self.base, self.inputs, rows, threads=self.threads)

    @cached_property
    def _prepared(self) -> Any:
        """What every fit of these rows has in common, made once."""
        return kind_of(self.base.kind).prepare(self.inputs, self.matrix)


class MitigationContext:
    """The groups that are made equal, and the rows of the train and the validation part."""

    def __init__(
        self,
        use_case: UseCase,
        base: ScoringModel,
        frame: LabelledFrame,
        parts: Parts,
        *,
        attributes: Sequence[str],
        threads: int,
    ) -> None:
        self.use_case, self.base = use_case, base
        self.costs, self.seed = use_case.training.costs, use_case.training.seed
        protected = {name: frame.protected[name][parts.train] for name in attributes}
        self.groups = learn_groups(protected, attributes, use_case.fairness.min_group_rows)
        self.train = GroupedRows.of(
            use_case, base, frame, parts.train, self.groups, threads=threads
        )
        self.held = frame.take(parts.validation)
        self.held_matrix = encode_rows(self.train.inputs, frame.columns, parts.validation)
        self.held_codes = self.groups.codes(self.held.protected)

    def calibrated(
        self,
        name: str,
        model: ScoringModel,
        importance: Mapping[str, float],
        recipe: MitigationRecipe,
    ) -> Candidate:
        """Calibrate a model on the validation part."""
        kind, label = self.base.document["calibration"]["kind"], self.held.label
        scores = model.raw_scores(self.held_matrix)
        crossed = cross_fitted(kind, scores, label, self.held.entity)
        decided = decide_as(self.base, model)
        calibration = fit_calibration(kind, scores, label).to_dict()
        thresholds = np.full(len(crossed), decided.threshold)
        model = decided.revised(calibration=calibration)
        return Candidate(name, model, recipe, importance, crossed, thresholds)


class Method(Protocol):
    """What a file in methods/ has."""

    def variants(
        self, context: MitigationContext, base: Candidate, aim: float
    ) -> Iterable[Candidate]:
        """Make variants of the base model; `aim` is what the disparity has to be within."""
        ...

    def refit(self, rows: GroupedRows, recipe: MitigationRecipe) -> ScoringModel:
        """Fit a variant again on every row given; calibration and thresholds stay."""
        ...


def method_of(name: str) -> Method:
    """Return the method of a name in spec/kinds.py."""
    return cast("Method", import_module(f"mlops_pipeline.core.mitigation.methods.{name}"))
