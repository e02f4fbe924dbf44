"""What a method of mitigation is, and what it works with.

A method, one file each here, makes variants of the chosen model and fits one of them again on other
rows. A variant is one deterministic model of text and JSON: hyperparameters and tree count are the
base model's; it is fitted on the train part, and calibrated on the validation part.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.modelling import CROSSED
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame, Labels, Parts
from mlops_pipeline.core.fairness.variants import Groups, Limits, learn_groups
from mlops_pipeline.core.modelling.calibration import cross_fitted, fit_calibration
from mlops_pipeline.core.modelling.fitting import Fitted, Rows, encode_rows, kind_of, learn_inputs
from mlops_pipeline.core.modelling.scoring import Floats, ScoringModel
from mlops_pipeline.core.modelling.train import decide_as, fit_again


@dataclass(frozen=True)
class MitigationTrigger:
    """Attributes (or intersections) above their limits, and the limits of all blocking rules."""

    because: str
    above: tuple[str, ...]
    limits: Limits

    @property
    def attributes(self) -> tuple[str, ...]:
        """The single attributes that those above their limits are made of."""
        parts = (part for name in self.above for part in name.split(CROSSED))
        return tuple(dict.fromkeys(parts))


@dataclass(frozen=True)
class MitigationRecipe:
    """What fits a variant again on other rows."""

    method: str  # "none" of the base model
    groups: Groups
    multipliers: tuple[float, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A variant's model, and what it says of the validation part, cross-fitted."""

    name: str
    model: ScoringModel
    recipe: MitigationRecipe
    importance: Mapping[str, float]
    probability: Floats
    threshold: Floats


class GroupedRows:
    """Rows that the base model's recipe is fitted on, with the group of each."""

    def __init__(
        self,
        use_case: UseCase,
        base: ScoringModel,
        frame: LabelledFrame,
        rows: npt.NDArray[np.intp],
        groups: Groups,
        *,
        threads: int,
    ) -> None:
        self.use_case, self.base, self.threads = use_case, base, threads
        self.inputs = learn_inputs(frame.columns, use_case.inputs, rows, use_case.directions)
        self.matrix = encode_rows(self.inputs, frame.columns, rows)
        self.label = frame.label[rows]
        self.codes = groups.codes({name: frame.protected[name][rows] for name in groups.attributes})

    def fit(self, label: Labels, weight: Floats | None) -> Fitted:
        """Fit the base model's recipe with these labels and weights."""
        rows = Rows(self.matrix, label, weight, self._prepared)
        return fit_again(self.use_case, self.base, self.inputs, rows, threads=self.threads)

    @cached_property
    def _prepared(self) -> Any:
        return kind_of(self.base.kind).prepare(self.inputs, self.matrix)


class MitigationContext:
    """The groups that are made equal, and what is needed of the train and the validation part."""

    def __init__(
        self,
        use_case: UseCase,
        base: ScoringModel,
        frame: LabelledFrame,
        parts: Parts,
        trigger: MitigationTrigger,
        *,
        threads: int,
    ) -> None:
        self.use_case, self.base, self.trigger = use_case, base, trigger
        self.costs, attributes = use_case.training.costs, trigger.attributes
        protected = {name: frame.protected[name][parts.train] for name in attributes}
        self.groups = learn_groups(protected, attributes, use_case.fairness.min_group_rows)
        self.train = GroupedRows(use_case, base, frame, parts.train, self.groups, threads=threads)
        self.held = replace(frame, columns={}).take(parts.validation)
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
        calibration = fit_calibration(kind, scores, label)
        thresholds = np.full(len(crossed), decided.threshold)
        model = decided.revised(calibration=calibration)
        return Candidate(name, model, recipe, importance, crossed, thresholds)


class Method(Protocol):
    """What the file of a method has."""

    def variants(
        self, context: MitigationContext, base: Candidate, within: Limits
    ) -> Iterable[Candidate]:
        """Make variants of the base model; `within` is what each disparity has to be within."""
        ...

    def refit(self, rows: GroupedRows, recipe: MitigationRecipe) -> ScoringModel:
        """Fit a variant again on every row given; calibration and thresholds stay."""
        ...


def method_of(name: str) -> Method:
    """Return the method of a name in spec/kinds.py."""
    return cast("Method", import_module(f"{__package__}.{name}"))
