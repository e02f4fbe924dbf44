"""The terms of a linear model: standardised numbers, missing flags and categories, in a matrix.

Belongs here: learning the terms from rows, and their values. One term of given rows, as a stored
model computes it, is scoring.py's.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlops_pipeline.core.modelling.inputs import Inputs, Matrix
from mlops_pipeline.core.modelling.scoring import linear_term

SKEWED = 2.0  # sample skewness from which the logarithm is taken, where that mends it
SKEWNESS_ROWS = 200_000  # enough to tell whether the logarithm mends a skew
BLOCK_ROWS = 8_192  # of the design matrix, filled at once
COEFFICIENT_DIGITS = 10  # significant digits kept: beyond them is the optimiser's noise


class Design(NamedTuple):
    """The terms of a linear model, their values `(n_rows, n_terms)`, means and deviations."""

    terms: Sequence[Mapping[str, Any]]
    values: npt.NDArray[np.float64]
    means: npt.NDArray[np.float64]
    spreads: npt.NDArray[np.float64]


def learn_design(inputs: Inputs, matrix: Matrix) -> Design:
    """Learn the terms of a linear model from rows, and return them with their values."""
    terms = learn_terms(inputs, matrix)
    return Design(terms, *design(terms, matrix))


def design(
    terms: Sequence[Mapping[str, Any]], matrix: Matrix
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the terms of every row `(n_rows, n_terms)`, their means and standard deviations.

    Row-major, or scikit-learn would copy it; filled in blocks of rows that fit the cache.
    """
    values = np.empty((len(matrix), len(terms)))
    total, squares = np.zeros(len(terms)), np.zeros(len(terms))
    for start in range(0, len(matrix), BLOCK_ROWS):
        block, rows = values[start : start + BLOCK_ROWS], matrix[start : start + BLOCK_ROWS]
        for index, term in enumerate(terms):
            block[:, index] = linear_term(term, rows)
        total += block.sum(axis=0)
        squares += np.einsum("ij,ij->j", block, block)
    mean = total / len(matrix)
    return values, mean, np.sqrt(np.maximum(squares / len(matrix) - mean**2, 0.0))


def learn_terms(inputs: Inputs, matrix: Matrix) -> list[dict[str, Any]]:
    """Return the terms of a linear model: standardised numbers, missing flags, categories."""
    terms: list[dict[str, Any]] = []
    for index, item in enumerate(inputs.items):
        if item["type"] == "category":
            terms += [
                {"kind": "category", "input": index, "code": code}
                for code in range(len(item["categories"]))
            ]
            continue
        values = matrix[:, index]
        present = values[~np.isnan(values)].astype(np.float64)
        step = max(1, len(present) // SKEWNESS_ROWS)
        is_mended = (
            abs(_skewness(present[::step])) > SKEWED >= abs(_skewness(_log(present[::step])))
        )
        present = _log(present) if is_mended else present
        scale = float(present.std())
        terms.append(
            {
                "kind": "number",
                "input": index,
                "log": is_mended,
                "mean": rounded(present.mean()),
                "scale": rounded(scale) if scale > 0 else 1.0,
            }
        )
        if len(present) < len(values):
            terms.append({"kind": "missing", "input": index})
    return terms


def _log(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    logs: npt.NDArray[np.float64] = np.sign(values) * np.log1p(np.abs(values))
    return logs


def _skewness(values: npt.NDArray[np.float64]) -> float:
    deviation = values - values.mean()
    spread = float(np.sqrt(np.mean(deviation**2)))
    return float(np.mean(deviation**3)) / spread**3 if spread > 0 else 0.0


def rounded(value: float) -> float:
    """Return a coefficient without the optimiser's noise."""
    return float(f"{float(value):.{COEFFICIENT_DIGITS}g}")
