"""A grid of cost-sensitive fits over demographic parity, as fairlearn's GridSearch makes it.

Belongs here: the reduction (Agarwal et al. 2018, section 3.4): for each vector of multipliers the
training rows get another label or weight, and one deterministic model is fitted on them. The
paper's randomised reductions cannot be deployed as one model.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from mlops_pipeline.config.modelling import Costs
from mlops_pipeline.core.data.frame import Labels
from mlops_pipeline.core.fairness.variants import NO_GROUP, Codes, Limits
from mlops_pipeline.core.mitigation import methods
from mlops_pipeline.core.modelling.fitting import Fitted, Weights
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.core.modelling.train import decide_as
from mlops_pipeline.errors import DataError

# The largest shift of cost between the groups of highest and lowest rate, in the smaller of the
# two costs. Far beyond it labels flip by group, and the model loses its order.
REACH = 1.5

Fit = Callable[[Labels, Weights], Fitted]


def variants(
    context: methods.MitigationContext, base: methods.Candidate, _within: Limits
) -> Iterable[methods.Candidate]:
    """Fit one model to each of `grid_size` vectors of multipliers."""
    rows, codes = context.train, range(len(context.groups))
    size = context.use_case.fairness.mitigation.grid_size
    selected = base.probability >= base.threshold
    overall = float(np.mean(selected))
    rates = [
        float(np.mean(selected[mine])) if mine.any() else overall
        for mine in (context.held_codes == code for code in codes)
    ]
    shares = [float(np.mean(rows.codes == code)) for code in codes]
    grid = multiplier_grid(rates, shares, context.costs, size)
    found = search_grid(rows.label, rows.codes, grid, costs=context.costs, fit=rows.fit)
    for number, (fitted, vector) in enumerate(zip(found, grid, strict=True), start=1):
        if fitted is not None:
            recipe = methods.MitigationRecipe("grid_search", context.groups, tuple(vector))
            name = f"grid_search {number} of {size}"
            yield context.calibrated(name, fitted.model, fitted.importance, recipe)


def refit(rows: methods.GroupedRows, recipe: methods.MitigationRecipe) -> ScoringModel:
    """Fit with the same multipliers."""
    costs = rows.use_case.training.costs
    (fitted,) = search_grid(rows.label, rows.codes, [recipe.multipliers], costs=costs, fit=rows.fit)
    if fitted is None:
        raise DataError(
            "the mitigated model cannot be refitted",
            where=f"grid_search with multipliers {recipe.multipliers}",
            found="under them all labels of the rows become the same",
            way_out="set training.refit: none, or take grid_search out of fairness.mitigation",
        )
    return decide_as(rows.base, fitted.model)


def multiplier_grid(
    rates: Sequence[float], shares: Sequence[float], costs: Costs, size: int
) -> list[list[float]]:
    """Return `size` vectors of multipliers, one number for each group, from mild to strong.

    All have one direction: a group's rate above the mean of all, in units of the largest
    difference. Under a vector of strength s a positive decision costs s times that more.
    `rates` are the groups' selection rates under the base model, `shares` their shares of the rows.
    """
    rate, part = np.asarray(rates), np.asarray(shares)
    direction = (rate - np.average(rate, weights=part)) / max(float(np.ptp(rate)), 1e-12)
    smaller = min(costs.false_positive, costs.false_negative)
    strengths = np.linspace(0, REACH, size + 1)[1:] * smaller
    return [[float(f"{value:.10g}") for value in s * direction * part] for s in strengths]


def search_grid(
    label: Labels, codes: Codes, grid: Sequence[Sequence[float]], *, costs: Costs, fit: Fit
) -> list[Fitted | None]:
    """Fit one model for each vector of multipliers; None where the labels become all the same.

    A row's signed weight is what selecting it saves: its cost as an error, and what the multipliers
    ask of its group and give to all. Its sign is the row's label, its size the weight.
    """
    groups, position, rows = np.unique(codes, return_inverse=True, return_counts=True)
    own = np.diag(1 / (rows / len(label)))  # 1 / P(group)
    # positive and negative multipliers apart: fairlearn's order of summation, the same last bit
    above = np.hstack([1.0 - own, own - 1.0])
    saved = -costs.false_positive + (costs.false_positive + costs.false_negative) * label
    found: list[Fitted | None] = []
    for vector in grid:
        multipliers = np.array([0.0 if code == NO_GROUP else vector[code] for code in groups])
        signed = (above @ np.append(multipliers, -multipliers).clip(0))[position] + saved
        new_label = (signed > 0).astype(np.int8)
        is_constant = len(np.unique(new_label)) == 1
        found.append(None if is_constant else fit(new_label, np.abs(signed)))
    return found
