"""Reason codes: the inputs that pushed one score towards its decision, in plain words.

An input that holds a protected attribute or a personal column is never named, nor is one that the
configuration does not describe: `word_inputs` lists what may be said.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.modelling.explanations import explain
from mlops_pipeline.core.modelling.scoring import ScoringModel

CONTRIBUTION_DIGITS = 6  # decimals of a log-odds; a tie beyond them goes by the order of inputs
VALUE_DIGITS = 6  # significant ones of a number: a float32 holds no more
UNKNOWN = "not known"


@dataclass(frozen=True)
class Wording:
    """How an input is called and how its values read."""

    text: str
    dtype: str
    precision: int


@dataclass(frozen=True)
class Reason:
    """One input's push: above 0 it raises the score, below it lowers it (log-odds, uncalibrated).

    `text` reads as "Tickets in twelve weeks: 3 (raises the score)".
    """

    feature: str
    text: str
    contribution: float


def word_inputs(use_case: UseCase) -> dict[str, Wording]:
    """Return the wording of every feature that a reason may name."""
    withheld = use_case.sensitive_features(with_counts=True)
    return {
        name: Wording(_called(name, item.description), item.dtype, item.precision)
        for name, item in use_case.definitions.items()
        if name not in withheld
    }


def give_reasons(
    model: ScoringModel,
    columns: Mapping[str, npt.NDArray[Any]],
    decisions: npt.NDArray[np.bool_],
    wording: Mapping[str, Wording],
    count: int,
) -> list[list[Reason]]:
    """Return for every row up to `count` reasons, the strongest first.

    Of a positive decision those that raise the score, of a negative one those that lower it; fewer
    where fewer do. Callers with many rows give them in blocks.
    """
    names = model.input_names
    values = np.round(explain(model, columns).values, CONTRIBUTION_DIGITS)
    push = np.where(np.asarray(decisions, dtype=bool)[:, None], values, -values)
    push[:, [name not in wording for name in names]] = 0.0
    order = np.argsort(-push, axis=1, kind="stable")[:, :count]
    return [
        [
            _reason(names[index], columns[names[index]][row], wording, float(values[row, index]))
            for index in strongest
            if push[row, index] > 0
        ]
        for row, strongest in enumerate(order)
    ]


def _reason(name: str, value: Any, wording: Mapping[str, Wording], contribution: float) -> Reason:
    words = wording[name]
    verb = "raises" if contribution > 0 else "lowers"
    return Reason(name, f"{words.text}: {_said(value, words)} ({verb} the score)", contribution)


def _said(value: Any, words: Wording) -> str:
    if value is None or (words.dtype != "string" and np.isnan(value)):
        return UNKNOWN
    if words.dtype == "string":
        return str(value)
    if words.dtype == "boolean":
        return "yes" if value else "no"
    whole = len(str(int(abs(value))))
    text = f"{float(value):,.{max(0, min(words.precision, VALUE_DIGITS - whole))}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _called(name: str, description: str) -> str:
    text = description.strip().removesuffix(".") or name.replace("_", " ")
    return f"{text[0].upper()}{text[1:]}"
