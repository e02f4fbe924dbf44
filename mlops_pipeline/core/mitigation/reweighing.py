"""Reweighing (Kamiran & Calders 2012): weights under which all groups have the same base rate."""

from collections.abc import Iterable

import numpy as np

from mlops_pipeline.core.data.frame import Values
from mlops_pipeline.core.fairness.variants import NO_GROUP, Codes, Limits
from mlops_pipeline.core.metrics.metrics import Floats
from mlops_pipeline.core.mitigation import methods
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.core.modelling.train import decide_as


def variants(
    context: methods.MitigationContext, _base: methods.Candidate, _within: Limits
) -> Iterable[methods.Candidate]:
    """Fit the base model's recipe with the weights."""
    rows = context.train
    fitted = rows.fit(rows.label, reweigh(rows.label, rows.codes))
    recipe = methods.MitigationRecipe("reweighing", context.groups)
    yield context.calibrated("reweighing", fitted.model, fitted.importance, recipe)


def refit(rows: methods.GroupedRows, _recipe: methods.MitigationRecipe) -> ScoringModel:
    """Learn the weights anew from these rows."""
    return decide_as(rows.base, rows.fit(rows.label, reweigh(rows.label, rows.codes)).model)


def reweigh(label: Values, codes: Codes) -> Floats:
    """Return a weight for each row that makes group and label independent.

    w(g, y) = P(g) P(y) / P(g, y): under these weights every group has the same base rate, and
    each group and each label its own total. Rows without a group keep the weight 1 and count
    nowhere; a group that has one label only keeps its base rate: no weight can change it.
    """
    weights: Floats = np.ones(len(label), dtype=np.float64)
    known = codes != NO_GROUP
    for group in np.unique(codes[known]):
        for value in (0, 1):
            cell = (codes == group) & (label == value)
            if cell.any():
                of_group, of_label = np.sum(codes == group), np.sum(known & (label == value))
                weights[cell] = of_group * of_label / (np.sum(known) * np.sum(cell))
    return weights
