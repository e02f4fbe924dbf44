"""The base rate for everyone."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlops_pipeline.core.modelling.scoring import Floats, Matrix, logit


class Constant:
    """One score for every row."""

    def __init__(self, base_rate: float) -> None:
        self.base_rate = base_rate

    def scores(self, matrix: Matrix) -> Floats:
        """Return the base rate of every row."""
        return np.full(len(matrix), self.base_rate, dtype=np.float64)

    def log_odds(self, matrix: Matrix) -> Floats:
        """Return its log-odds."""
        return logit(self.scores(matrix))

    def row(self, _: Matrix) -> Callable[[], float]:
        """Return a function that scores what lies in a buffer of one row."""
        return lambda: self.base_rate


def load(document: Mapping[str, Any], _: Mapping[str, str]) -> Constant:
    """Return the scorer of a stored model."""
    return Constant(float(document["base_rate"]))
