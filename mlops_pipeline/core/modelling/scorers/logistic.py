"""A linear model of the terms in its document: numbers, missing flags, categories."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlops_pipeline.core.modelling.scoring import (
    STANDARD_SCORE_LIMIT,
    Floats,
    Matrix,
    linear_term,
    sigmoid,
)


class Linear:
    """Intercept plus weighted terms, added in their order: the same bits however it is called."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.terms, self.weights = document["terms"], document["coefficients"]
        self.intercept = float(document["intercept"])

    def scores(self, matrix: Matrix) -> Floats:
        """Return the probabilities before calibration."""
        return sigmoid(self.log_odds(matrix))

    def log_odds(self, matrix: Matrix) -> Floats:
        """Return the log-odds."""
        # term by term: the same bits on any number of threads, and no matrix of terms in memory
        scores: Floats = np.full(len(matrix), self.intercept, dtype=np.float64)
        for term, weight in zip(self.terms, self.weights, strict=True):
            scores += weight * linear_term(term, matrix)
        return scores

    def row(self, buffer: Matrix) -> Callable[[], float]:
        """Return a function that scores what lies in a buffer of one row: all terms at once."""
        position = np.array([term["input"] for term in self.terms], dtype=np.intp)
        is_number, is_flag, is_log = (
            np.array([bool(said) for said in column])
            for column in zip(
                *(
                    (term["kind"] == "number", term["kind"] == "missing", term.get("log"))
                    for term in self.terms
                ),
                strict=True,
            )
        )
        mean, scale, code = (
            np.array([term.get(name, default) for term in self.terms], dtype=np.float64)
            for name, default in (("mean", 0.0), ("scale", 1.0), ("code", np.nan))
        )
        summed = np.empty(len(self.terms) + 1)
        summed[0] = self.intercept

        def score() -> float:
            values = buffer[0, position].astype(np.float64)
            flags = np.where(is_flag, np.isnan(values), values == code)
            logged = values[is_log]
            values[is_log] = np.sign(logged) * np.log1p(np.abs(logged))
            values = np.clip((values - mean) / scale, -STANDARD_SCORE_LIMIT, STANDARD_SCORE_LIMIT)
            values = np.where(is_number, np.nan_to_num(values, nan=0.0), flags)
            np.multiply(self.weights, values, out=summed[1:])
            return float(sigmoid(np.add.accumulate(summed)[-1:])[0])

        return score


def load(document: Mapping[str, Any], _: Mapping[str, str]) -> Linear:
    """Return the scorer of a stored model."""
    return Linear(document)
