"""fairlearn's GridSearch over demographic parity, with our own fit and the use case's costs.

Belongs here: the reduction (Agarwal et al. 2018, section 3.4): for each vector of multipliers the
training rows get another label or weight, and one deterministic model is fitted on them. fairlearn
also has randomised reductions; those cannot be deployed as one model.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.modelling import Costs
from mlops_pipeline.core.fairness.groups import NO_GROUP, Codes
from mlops_pipeline.core.modelling.fitting import Fitted, Labels, Weights

# The largest shift of cost between the groups of highest and lowest rate, in the smaller of the
# two costs. Far beyond it labels flip by group, and the model loses its order.
REACH = 1.5

Fit = Callable[[Labels, Weights], Fitted]


class _Recipe:
    """The estimator that fairlearn sees: our fit, which has its rows already."""

    def __init__(self, fit_rows: Fit) -> None:
        self.fit_rows = fit_rows

    def __deepcopy__(self, _: Any) -> "_Recipe":
        # fairlearn copies its estimator for each vector: not the training rows behind `fit_rows`
        return _Recipe(self.fit_rows)

    def fit(self, _: Any, label: Any, sample_weight: Any) -> None:
        """Fit with the labels and weights of one vector of multipliers."""
        weight = np.asarray(sample_weight, dtype=np.float64)
        self.fitted = self.fit_rows(np.asarray(label, dtype=np.int8), weight)

    def predict(self, rows: Any) -> npt.NDArray[np.int64]:
        """Return no decision: fairlearn would choose by it, and its choice is not asked for.

        The validation part chooses; predicting millions of training rows can take as long as a fit.
        """
        return np.zeros(len(rows), dtype=np.int64)


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

    Parameters
    ----------
    fit : callable
        Fits the training rows with other labels and weights.
    """
    import pandas as pd
    from fairlearn.reductions import DemographicParity, ErrorRate, GridSearch

    class Parity(DemographicParity):  # type: ignore[misc] # fairlearn ships no types
        """Demographic parity whose objective are the use case's costs."""

        def default_objective(self) -> Any:
            return ErrorRate(costs={"fp": costs.false_positive, "fn": costs.false_negative})

    index = pd.MultiIndex.from_product(
        [["+", "-"], ["all"], sorted(set(codes.tolist()))], names=["sign", "event", "group_id"]
    )
    columns = {
        number: pd.Series(
            [_part(vector, sign, group) for sign, _, group in index], index=index, dtype=np.float64
        )
        for number, vector in enumerate(grid)
    }
    search = GridSearch(_Recipe(fit), Parity(), grid=pd.DataFrame(columns))
    rows = np.arange(len(label))[:, None]  # fairlearn refuses missing values, our fit knows them
    search.fit(rows, label.astype(np.int64), sensitive_features=codes)
    return [getattr(each, "fitted", None) for each in search.predictors_]


def _part(vector: Sequence[float], sign: str, group: int) -> float:
    """Return the positive or the negative part of a group's multiplier."""
    if group == NO_GROUP:
        return 0.0
    return max(vector[group] if sign == "+" else -vector[group], 0.0)
