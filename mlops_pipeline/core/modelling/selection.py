"""Choosing among candidates on the validation part, and turning scores into decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.modelling import Costs
from mlops_pipeline.core.metrics.metrics import Estimate, point_metrics
from mlops_pipeline.core.modelling.calibration import Kind, fit_calibration, threshold_from_costs
from mlops_pipeline.core.modelling.fitting import Fitted
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.spec.kinds import KINDS

FOLDS = 5  # of the validation part, when a calibration is judged on rows it did not see

Floats = npt.NDArray[np.float64]


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


@dataclass(frozen=True)
class Choice:
    """Which candidate was chosen, and why."""

    name: str
    reason: str


def calibrate_candidate(
    fitted: Fitted,
    scores: Floats,
    label: npt.NDArray[np.int8],
    entity: npt.NDArray[Any],
    *,
    kind: Kind,
    costs: Costs,
    seconds: float,
    review_band: float = 0.0,
) -> Trained:
    """Calibrate a candidate on the validation part and measure it there.

    The log loss that decides is cross-fitted by entity: each fifth is calibrated by the others,
    so that a flexible calibration is not judged on the rows that shaped it.
    """
    kind = "none" if fitted.model.kind == "dummy" else kind
    crossed = cross_fitted(kind, scores, label, entity)
    model = fitted.model.revised(
        calibration=fit_calibration(kind, scores, label).to_dict(),
        threshold=threshold_from_costs(costs.false_positive, costs.false_negative),
        **({"review_band": review_band} if review_band else {}),
    )
    figures = point_metrics(label, crossed, model.threshold)
    loss = figures["log_loss"].value
    return Trained(fitted, model, np.inf if loss is None else loss, figures, seconds)


def choose(candidates: Sequence[Trained], tolerance: float) -> Choice:
    """Choose the lowest validation log loss; within `tolerance` of it, the simplest kind."""
    best = min(candidates, key=lambda item: item.validation_log_loss)
    close = [
        item
        for item in candidates
        if item.validation_log_loss <= best.validation_log_loss + tolerance
    ]
    simplest = list(KINDS)
    chosen = min(
        close, key=lambda item: (simplest.index(item.model.kind), item.validation_log_loss)
    )
    losses = ", ".join(
        f"{item.name} {item.validation_log_loss:.4f}"
        for item in sorted(candidates, key=lambda item: item.validation_log_loss)
    )
    why = "lowest validation log loss"
    if chosen is not best:
        why = f"within {tolerance:g} of the lowest validation log loss ({best.name}), and simpler"
    return Choice(chosen.name, f"{why}: {losses}")


def decision_cost(
    label: npt.NDArray[np.int8], decision: npt.NDArray[np.bool_], costs: Costs
) -> float:
    """Return the mean cost of the decisions: (c_fp FP + c_fn FN) / rows."""
    wrong = costs.false_positive * np.sum(decision & (label == 0))
    missed = costs.false_negative * np.sum(~decision & (label == 1))
    return float(wrong + missed) / len(label)


def folds(
    label: npt.NDArray[np.int8], entity: npt.NDArray[Any]
) -> list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Return five (inside, rest) divisions of the rows by entity.

    Empty when a rest has one class only: a part of these rows is too few to calibrate by.
    """
    fold = np.unique(entity, return_inverse=True)[1] % FOLDS
    divided = [(fold == number, fold != number) for number in range(FOLDS)]
    divided = [(inside, rest) for inside, rest in divided if inside.any()]
    return divided if all(len(np.unique(label[rest])) == 2 for _, rest in divided) else []


def cross_fitted(
    kind: Kind, scores: Floats, label: npt.NDArray[np.int8], entity: npt.NDArray[Any]
) -> Floats:
    """Return the probability of each row, calibrated by the rows of other folds.

    Without folds no calibration is safe: the scores themselves.
    """
    result = scores.copy()
    for inside, rest in folds(label, entity):
        result[inside] = fit_calibration(kind, scores[rest], label[rest]).apply(scores[inside])
    return result
