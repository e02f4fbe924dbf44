"""Training all candidates of a use case on a split, choosing one, and refitting it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlops_pipeline.config.modelling import Training as Settings
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame, Parts, Values
from mlops_pipeline.core.metrics.metrics import point_metrics
from mlops_pipeline.core.modelling.calibration import (
    cross_fitted,
    fit_calibration,
    threshold_from_costs,
)
from mlops_pipeline.core.modelling.fitting import (
    Fitted,
    Fitting,
    Inputs,
    Rows,
    Trained,
    encode_rows,
    learn_inputs,
)
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.errors import DataError
from mlops_pipeline.spec.kinds import KINDS

DECIDING = ("calibration", "threshold", "thresholds", "review_band")  # of a model's document


@dataclass(frozen=True)
class Choice:
    """Which candidate was chosen, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Training:
    """The outcome of one training."""

    inputs: Inputs
    candidates: tuple[Trained, ...]
    choice: Choice

    @property
    def chosen(self) -> Trained:
        """The chosen candidate."""
        return next(item for item in self.candidates if item.name == self.choice.name)


def train(
    use_case: UseCase,
    frame: LabelledFrame,
    parts: Parts,
    *,
    threads: int,
    stopwatch: Callable[[], float],
    report: Callable[[Trained], None] | None = None,
) -> Training:
    """Fit, calibrate and compare every candidate on the train and validation parts."""
    settings = use_case.training
    positives = int(frame.label[parts.train].sum())
    if positives < settings.min_positives:
        raise DataError(
            "the training part has too few positive labels",
            where=f"periods {', '.join(parts.periods['train'])}",
            expected=f"at least {settings.min_positives} (training.min_positives)",
            found=f"{positives} of {len(parts.train)} rows",
        )
    inputs = learn_inputs(frame.columns, use_case.inputs, parts.train, use_case.directions)
    rows, held = (
        Rows(encode_rows(inputs, frame.columns, part), frame.label[part])
        for part in (parts.train, parts.validation)
    )
    candidates = []
    for name, recipe in settings.candidates.items():
        begun = stopwatch()
        fitted = Fitting(name, recipe, inputs, rows, held, **_how(settings, threads)).fit()
        entity, seconds = frame.entity[parts.validation], stopwatch() - begun
        candidates.append(calibrate_candidate(fitted, held, entity, settings, seconds))
        if report:
            report(candidates[-1])
    return Training(inputs, tuple(candidates), choose(candidates, settings.tie_tolerance))


def calibrate_candidate(
    fitted: Fitted, held: Rows, entity: Values, settings: Settings, seconds: float
) -> Trained:
    """Calibrate a candidate on the validation part and measure it there.

    The log loss that decides is cross-fitted by entity: each fifth is calibrated by the others,
    so that a flexible calibration is not judged on the rows that shaped it.
    """
    kind = "none" if fitted.model.kind == "dummy" else settings.calibration
    scores, costs = fitted.model.raw_scores(held.matrix), settings.costs
    crossed = cross_fitted(kind, scores, held.label, entity)
    model = fitted.model.revised(
        calibration=fit_calibration(kind, scores, held.label),
        threshold=threshold_from_costs(costs.false_positive, costs.false_negative),
        **({"review_band": settings.review_band} if settings.review_band else {}),
    )
    figures = point_metrics(held.label, crossed, model.threshold)
    loss = figures["log_loss"].value
    return Trained(fitted, model, np.inf if loss is None else loss, figures, seconds)


def choose(candidates: Sequence[Trained], tolerance: float) -> Choice:
    """Choose the lowest validation log loss; within `tolerance` of it, the simplest kind."""
    best = min(candidates, key=lambda item: item.validation_log_loss)
    limit, simplest = best.validation_log_loss + tolerance, list(KINDS)
    chosen = min(
        (item for item in candidates if item.validation_log_loss <= limit),
        key=lambda item: (simplest.index(item.model.kind), item.validation_log_loss),
    )
    losses = ", ".join(
        f"{item.name} {item.validation_log_loss:.4f}"
        for item in sorted(candidates, key=lambda item: item.validation_log_loss)
    )
    why = "lowest validation log loss"
    if chosen is not best:
        why = f"within {tolerance:g} of the lowest validation log loss ({best.name}), and simpler"
    return Choice(chosen.name, f"{why}: {losses}")


def refit(
    use_case: UseCase, frame: LabelledFrame, model: ScoringModel, *, threads: int
) -> ScoringModel:
    """Fit the chosen recipe on every row; trees, hyperparameters, calibration, threshold stay."""
    every = np.arange(len(frame))
    inputs = learn_inputs(frame.columns, use_case.inputs, every, use_case.directions)
    rows = Rows(encode_rows(inputs, frame.columns, every), frame.label)
    return decide_as(model, fit_again(use_case, model, inputs, rows, threads=threads).model)


def fit_again(
    use_case: UseCase, model: ScoringModel, inputs: Inputs, rows: Rows, *, threads: int
) -> Fitted:
    """Fit a model's recipe on other rows or weights; its tree count stays."""
    name = str(model.document["candidate"])
    recipe = use_case.training.candidates[name].fixed(model.document.get("trees"))
    return Fitting(name, recipe, inputs, rows, None, **_how(use_case.training, threads)).fit()


def _how(settings: Settings, threads: int) -> dict[str, Any]:
    balanced = settings.class_weight == "balanced"
    return {"balanced": balanced, "seed": settings.seed, "threads": threads}


def decide_as(model: ScoringModel, fitted: ScoringModel) -> ScoringModel:
    """Return the fitted model with the calibration and thresholds of another."""
    kept = {key: value for key, value in model.document.items() if key in DECIDING}
    return fitted.revised(**kept)
