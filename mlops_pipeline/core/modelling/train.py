"""Training all candidates of a use case on a split, choosing one, and refitting it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame, Parts
from mlops_pipeline.core.modelling.fitting import (
    Fitted,
    Inputs,
    Rows,
    encode_rows,
    fit_candidate,
    learn_inputs,
)
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.core.modelling.selection import Choice, Trained, calibrate_candidate, choose
from mlops_pipeline.errors import DataError

DECIDING = ("calibration", "threshold", "thresholds", "review_band")  # of a model's document


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
    _check_positives(use_case, frame, parts)
    inputs = learn_inputs(frame.columns, use_case.inputs, parts.train, use_case.directions)
    candidates = []
    for candidate in _fitted(use_case, frame, parts, inputs, threads, stopwatch):
        candidates.append(candidate)
        if report:
            report(candidate)
    choice = choose(candidates, use_case.training.tie_tolerance)
    return Training(inputs, tuple(candidates), choice)


def refit(
    use_case: UseCase, frame: LabelledFrame, model: ScoringModel, *, threads: int
) -> ScoringModel:
    """Fit the chosen recipe on every row given: hyperparameters, tree count, calibration fixed.

    The calibration and threshold stay those learned on the validation part: there are no rows left
    that the refitted model has not seen.
    """
    every = np.arange(len(frame))
    inputs = learn_inputs(frame.columns, use_case.inputs, every, use_case.directions)
    rows = Rows(encode_rows(inputs, frame.columns, every), frame.label)
    return decide_as(model, fit_again(use_case, model, inputs, rows, threads=threads).model)


def fit_again(
    use_case: UseCase, model: ScoringModel, inputs: Inputs, rows: Rows, *, threads: int
) -> Fitted:
    """Fit a model's recipe on other rows or weights; its tree count stays."""
    name = str(model.document["candidate"])
    return fit_candidate(
        name,
        use_case.training.candidates[name].fixed(model.document.get("trees")),
        inputs,
        rows,
        None,
        balanced=use_case.training.class_weight == "balanced",
        seed=use_case.training.seed,
        threads=threads,
    )


def decide_as(model: ScoringModel, fitted: ScoringModel) -> ScoringModel:
    """Return the fitted model with the calibration and thresholds of another."""
    kept = {key: value for key, value in model.document.items() if key in DECIDING}
    return fitted.revised(**kept)


def train_maxima(model: ScoringModel, frame: LabelledFrame, parts: Parts) -> Mapping[str, float]:
    """Return the largest absolute training value of each numeric input."""
    return {
        item["name"]: float(np.nanmax(np.abs(frame.columns[item["name"]][parts.train])))
        for item in model.document["inputs"]
        if item["type"] == "number"
    }


def _fitted(  # noqa: PLR0917 # private, one caller
    use_case: UseCase,
    frame: LabelledFrame,
    parts: Parts,
    inputs: Inputs,
    threads: int,
    stopwatch: Callable[[], float],
) -> Iterator[Trained]:
    settings = use_case.training
    train_rows = Rows(encode_rows(inputs, frame.columns, parts.train), frame.label[parts.train])
    held_rows = Rows(
        encode_rows(inputs, frame.columns, parts.validation),
        frame.label[parts.validation],
    )
    for name, recipe in settings.candidates.items():
        begun = stopwatch()
        fitted = fit_candidate(
            name,
            recipe,
            inputs,
            train_rows,
            held_rows,
            balanced=settings.class_weight == "balanced",
            seed=settings.seed,
            threads=threads,
        )
        yield calibrate_candidate(
            fitted,
            fitted.model.raw_scores(held_rows.matrix),
            held_rows.label,
            frame.entity[parts.validation],
            kind=settings.calibration,
            costs=settings.costs,
            seconds=stopwatch() - begun,
            review_band=settings.review_band,
        )


def _check_positives(use_case: UseCase, frame: LabelledFrame, parts: Parts) -> None:
    positives = int(frame.label[parts.train].sum())
    if positives < use_case.training.min_positives:
        raise DataError(
            "the training part has too few positive labels",
            where=f"periods {', '.join(parts.periods['train'])}",
            expected=f"at least {use_case.training.min_positives} (training.min_positives)",
            found=f"{positives} of {len(parts.train)} rows",
        )
