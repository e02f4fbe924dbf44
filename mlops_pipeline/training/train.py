"""Training all candidates of a use case on a split, choosing one, and refitting it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.data.frame import LabelledFrame
from mlops_pipeline.data.splits import Parts
from mlops_pipeline.errors import DataError
from mlops_pipeline.training.fitting import (
    Inputs,
    encode_rows,
    fit_candidate,
    learn_inputs,
    refit_recipe,
)
from mlops_pipeline.training.scoring import ScoringModel
from mlops_pipeline.training.selection import Choice, Trained, calibrate_candidate, choose


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
    """Fit, calibrate and compare every candidate on the train and validation parts.

    Parameters
    ----------
    stopwatch : callable
        A monotonic clock in seconds; it only measures durations.
    report : callable, optional
        Told of each candidate as it is finished.

    Raises
    ------
    DataError
        When the training part has fewer positive labels than `training.min_positives`, or its
        features cannot be encoded.
    """
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
    name = str(model.document["candidate"])
    every = np.arange(len(frame))
    inputs = learn_inputs(frame.columns, use_case.inputs, every, use_case.directions)
    recipe = refit_recipe(use_case.training.candidates[name], model.document.get("trees"))
    fitted = fit_candidate(
        name,
        recipe,
        inputs,
        (encode_rows(inputs, frame.columns, every), frame.label),
        None,
        balanced=use_case.training.class_weight == "balanced",
        seed=use_case.training.seed,
        threads=threads,
    )
    document = {
        **fitted.model.document,
        "calibration": model.document["calibration"],
        "threshold": model.threshold,
    }
    return ScoringModel(document, fitted.model.booster_text)


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
    train_rows = (encode_rows(inputs, frame.columns, parts.train), frame.label[parts.train])
    held_rows = (
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
            fitted.model.raw_scores(held_rows[0]),
            held_rows[1],
            frame.entity[parts.validation],
            kind=settings.calibration,
            costs=settings.costs,
            seconds=stopwatch() - begun,
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
