"""The methods of mitigation: each makes variants of the chosen model, and fits one of them again.

`reweighing` (Kamiran & Calders 2012), `group_thresholds` (group_thresholds.py), `grid_search`
(grid_search.py). A variant is one deterministic model of text and JSON: its recipe, hyperparameters
and tree count are the base model's. Fitted on the train part, calibrated on the validation part.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.fairness import Method
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.data.splits import Parts
from mlops_pipeline.core.fairness.groups import Floats, Groups, learn_groups, reweigh
from mlops_pipeline.core.mitigation.grid_search import multiplier_grid, search_grid
from mlops_pipeline.core.mitigation.group_thresholds import (
    fit_group_shares,
    limits_by_estimated_group,
    limits_by_group,
)
from mlops_pipeline.core.modelling.calibration import fit_calibration
from mlops_pipeline.core.modelling.fitting import (
    Fitted,
    Rows,
    encode_rows,
    kind_of,
    learn_inputs,
)
from mlops_pipeline.core.modelling.scoring import ScoringModel, group_shares, row_thresholds
from mlops_pipeline.core.modelling.selection import cross_fitted, folds
from mlops_pipeline.core.modelling.train import decide_as, fit_again
from mlops_pipeline.errors import DataError

Flags = npt.NDArray[np.bool_]
Tune = Callable[[Floats, Flags, float], list[float]]  # probability, which rows, how near
AIMS = (0.9, 0.6, 0.3)  # shares of what a disparity has to be within: thresholds for each


@dataclass(frozen=True)
class Recipe:
    """What fits a variant again on other rows."""

    method: Method | Literal["none"]
    groups: Groups
    multipliers: tuple[float, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A variant's model, and what it says of the rows of the validation part.

    Probabilities and thresholds are cross-fitted: what a row gets was learned on other folds.
    """

    name: str
    model: ScoringModel
    recipe: Recipe
    importance: Mapping[str, float]
    probability: Floats
    threshold: Floats


class Bench:
    """The model to be mitigated, its groups, and the rows of the train and validation part."""

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
        self.use_case, self.base, self.threads = use_case, base, threads
        self.costs, self.seed = use_case.training.costs, use_case.training.seed
        self.inputs = learn_inputs(frame.columns, use_case.inputs, parts.train, use_case.directions)
        self.matrix = encode_rows(self.inputs, frame.columns, parts.train)
        self.label = frame.label[parts.train]
        train = frame.take(parts.train).protected
        self.groups = learn_groups(train, attributes, use_case.fairness.min_group_rows)
        self.codes = self.groups.codes(train)
        self.held = frame.take(parts.validation)
        self.held_matrix = encode_rows(self.inputs, frame.columns, parts.validation)
        self.held_codes = self.groups.codes(self.held.protected)

    def fit(self, label: npt.NDArray[np.int8], weight: Floats | None) -> Fitted:
        """Fit the base model's recipe on the train part with these labels and weights."""
        rows = Rows(self.matrix, label, weight, self._prepared)
        return fit_again(self.use_case, self.base, self.inputs, rows, threads=self.threads)

    @cached_property
    def _prepared(self) -> Any:
        """What every fit of these rows has in common, made once."""
        return kind_of(self.base.kind).prepare(self.inputs, self.matrix)

    def calibrated(
        self,
        name: str,
        model: ScoringModel,
        importance: Mapping[str, float],
        recipe: Recipe,
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


def variants_of(method: Method, bench: Bench, base: Candidate, aim: float) -> Iterable[Candidate]:
    """Make the variants of one method; `aim` is what the disparity has to be within."""
    if method == "reweighing":
        fitted = bench.fit(bench.label, reweigh(bench.label, bench.codes))
        recipe = Recipe(method, bench.groups)
        return [bench.calibrated(method, fitted.model, fitted.importance, recipe)]
    if method == "grid_search":
        return _grid_search(bench, base)
    return _group_thresholds(bench, base, aim)


def _grid_search(bench: Bench, base: Candidate) -> Iterable[Candidate]:
    codes, size = range(len(bench.groups)), bench.use_case.fairness.mitigation.grid_size
    selected = base.probability >= base.threshold
    overall = float(np.mean(selected))
    rates = [
        float(np.mean(selected[rows])) if rows.any() else overall
        for rows in (bench.held_codes == code for code in codes)
    ]
    shares = [float(np.mean(bench.codes == code)) for code in codes]
    grid = multiplier_grid(rates, shares, bench.costs, size)
    found = search_grid(bench.label, bench.codes, grid, costs=bench.costs, fit=bench.fit)
    for number, (fitted, vector) in enumerate(zip(found, grid, strict=True), start=1):
        if fitted is not None:
            recipe = Recipe("grid_search", bench.groups, tuple(vector))
            name = f"grid_search {number} of {size}"
            yield bench.calibrated(name, fitted.model, fitted.importance, recipe)


def _threshold_rule(bench: Bench) -> tuple[dict[str, Any], Tune]:
    """Return how thresholds are applied to a row, and how they are found on given rows."""
    if bench.use_case.fairness.attribute_at_decision == "allowed":
        rule: dict[str, Any] = {
            "kind": "by_group",
            "attributes": list(bench.groups.attributes),
            "groups": [[list(each) for each in group] for group in bench.groups.values],
        }
        return rule, lambda probability, rows, within: limits_by_group(
            *(probability, bench.held_codes[rows], len(bench.groups)),
            costs=bench.costs,
            aim=within,
            min_rows=bench.use_case.fairness.min_group_rows,
        )
    rule = fit_group_shares(bench.inputs, bench.matrix, bench.codes, seed=bench.seed)
    shares = group_shares(rule, bench.held_matrix)
    return rule, lambda probability, rows, within: limits_by_estimated_group(
        probability, shares[:, rows], costs=bench.costs, aim=within
    )


def _group_thresholds(bench: Bench, base: Candidate, aim: float) -> Iterable[Candidate]:
    """Yield the base model with thresholds tuned on the validation part, and cross-fitted."""
    rule, tune = _threshold_rule(bench)
    held, document = bench.held, base.model.document
    scores, kind = base.model.raw_scores(bench.held_matrix), document["calibration"]["kind"]
    every = np.ones(len(scores), dtype=np.bool_)
    divisions = [
        (inside, rest, fit_calibration(kind, scores[rest], held.label[rest]).apply(scores[rest]))
        for inside, rest in [(every, every), *folds(held.label, held.entity)]
    ]
    for share in AIMS:
        threshold = np.empty(len(scores))
        decided = []
        for inside, rest, probability in divisions:  # all rows first, then fold by fold
            limits = tune(probability, rest, aim * share)
            decided.append({**document, "thresholds": {**rule, "limits": limits}})
            columns = {name: values[inside] for name, values in held.protected.items()}
            threshold[inside] = row_thresholds(decided[-1], columns, bench.held_matrix[inside])
        yield Candidate(
            name=f"group_thresholds for {aim * share:.3g}",
            model=base.model.revised(**decided[0]),
            recipe=Recipe("group_thresholds", bench.groups),
            importance=base.importance,
            probability=base.probability,
            threshold=threshold,
        )


def refit_variant(
    use_case: UseCase, frame: LabelledFrame, model: ScoringModel, recipe: Recipe, *, threads: int
) -> ScoringModel:
    """Fit a chosen variant on every row given, with the same mitigation.

    Weights, and the probabilities of groups, are learned anew from these rows; multipliers,
    calibration and thresholds stay.
    """
    every = np.arange(len(frame))
    inputs = learn_inputs(frame.columns, use_case.inputs, every, use_case.directions)
    matrix, codes = encode_rows(inputs, frame.columns, every), recipe.groups.codes(frame.protected)

    def fit(label: npt.NDArray[np.int8], weight: Floats | None) -> Fitted:
        return fit_again(use_case, model, inputs, Rows(matrix, label, weight), threads=threads)

    fitted: Fitted | None
    if recipe.method == "grid_search":
        (fitted,) = search_grid(
            *(frame.label, codes, [recipe.multipliers]),
            costs=use_case.training.costs,
            fit=fit,
        )
    else:
        weights = reweigh(frame.label, codes) if recipe.method == "reweighing" else None
        fitted = fit(frame.label, weights)
    if fitted is None:
        raise DataError(
            "the mitigated model cannot be refitted",
            where=f"grid_search with multipliers {recipe.multipliers}",
            found="under them all labels of the rows become the same",
            way_out="set training.refit: none, or take grid_search out of fairness.mitigation",
        )
    again = decide_as(model, fitted.model)
    rule = again.document.get("thresholds", {})
    if rule.get("kind") == "by_estimated_group":
        shares = fit_group_shares(inputs, matrix, codes, seed=use_case.training.seed)
        again = again.revised(thresholds={**rule, **shares})
    return again
