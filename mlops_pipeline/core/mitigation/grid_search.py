"""A grid of cost-sensitive fits over demographic parity, as fairlearn's GridSearch makes it.

Belongs here: the reduction (Agarwal et al. 2018, section 3.4): for each vector of multipliers the
training rows get another label or weight, and one deterministic model is fitted on them. The
paper's randomised reductions cannot be deployed as one model.
"""

from collections.abc import Callable, Sequence

import numpy as np

from mlops_pipeline.config.modelling import Costs
from mlops_pipeline.core.fairness.groups import NO_GROUP, Codes
from mlops_pipeline.core.modelling.fitting import Fitted, Labels, Weights

# The largest shift of cost between the groups of highest and lowest rate, in the smaller of the
# two costs. Far beyond it labels flip by group, and the model loses its order.
REACH = 1.5

Fit = Callable[[Labels, Weights], Fitted]


def multiplier_grid(
    rates: Sequence[float], shares: Sequence[float], costs: Costs, size: int
) -> list[list[float]]:
    """Return `size` vectors of multipliers, one number for each group, from mild to strong.

    All have one direction: a group's rate above the mean of all, in units of the largest
    difference. Under a vector of strength s a positive decision costs s times that more.

    Parameters
    ----------
    rates, shares : sequences of float
        Selection rate of each group under the base model, and its share of the rows.
    """
    rate, part = np.asarray(rates), np.asarray(shares)
    direction = (rate - np.average(rate, weights=part)) / max(float(np.ptp(rate)), 1e-12)
    strengths = np.linspace(0, REACH, size + 1)[1:] * min(
        costs.false_positive, costs.false_negative
    )
    return [[float(f"{value:.10g}") for value in s * direction * part] for s in strengths]


def search_grid(
    label: Labels,
    codes: Codes,
    grid: Sequence[Sequence[float]],
    *,
    costs: Costs,
    fit: Fit,
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
