"""Logistic regression: standardised numbers, missing flags and categories as terms of a matrix.

Its linear algebra runs on one thread, so that any number gives the same bytes. One term of given
rows, as a stored model computes it, is scoring.py's.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlops_pipeline.core.modelling.fitting import Contributions, Fitted, Fitting, Inputs
from mlops_pipeline.core.modelling.scoring import Floats, Matrix, ScoringModel, linear_term

FRAMEWORK = "sklearn"
REQUIREMENTS = ()
SKEWED = 2.0  # sample skewness from which the logarithm is taken, where that mends it
SKEWNESS_ROWS = 200_000  # enough to tell whether the logarithm mends a skew
BLOCK_ROWS = 8_192  # of the design matrix, filled at once
COEFFICIENT_DIGITS = 10  # significant digits kept: beyond them is the optimiser's noise


class Design(NamedTuple):
    """The terms of a linear model, their values `(n_rows, n_terms)`, means and deviations."""

    terms: Sequence[Mapping[str, Any]]
    values: Floats
    means: Floats
    spreads: Floats


def prepare(inputs: Inputs, matrix: Matrix) -> Design:
    """Learn the terms of a linear model; return them with the rows' values, by blocks."""
    terms = _learn_terms(inputs, matrix)
    values = np.empty((len(matrix), len(terms)))
    total, squares = np.zeros(len(terms)), np.zeros(len(terms))
    for start in range(0, len(matrix), BLOCK_ROWS):
        block, rows = values[start : start + BLOCK_ROWS], matrix[start : start + BLOCK_ROWS]
        for index, term in enumerate(terms):
            block[:, index] = linear_term(term, rows)
        total += block.sum(axis=0)
        squares += np.einsum("ij,ij->j", block, block)
    mean = total / len(matrix)
    spread = np.sqrt(np.maximum(squares / len(matrix) - mean**2, 0.0))
    return Design(terms, values, mean, spread)


def _learn_terms(inputs: Inputs, matrix: Matrix) -> list[dict[str, Any]]:
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
        some = present[:: max(1, len(present) // SKEWNESS_ROWS)]
        is_mended = abs(_skewness(some)) > SKEWED >= abs(_skewness(_log(some)))
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


def _log(values: Floats) -> Floats:
    logs: Floats = np.sign(values) * np.log1p(np.abs(values))
    return logs


def _skewness(values: Floats) -> float:
    deviation = values - values.mean()
    spread = float(np.sqrt(np.mean(deviation**2)))
    return float(np.mean(deviation**3)) / spread**3 if spread > 0 else 0.0


def rounded(value: float) -> float:
    """Return a coefficient without the optimiser's noise."""
    return float(f"{float(value):.{COEFFICIENT_DIGITS}g}")


def fit(fitting: Fitting) -> Fitted:
    """Fit the terms' coefficients by lbfgs."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    chosen, train, items = fitting.parameters, fitting.train, fitting.inputs.items
    terms, values, means, spreads = train.prepared or prepare(fitting.inputs, train.matrix)
    estimator = LogisticRegression(
        C=chosen.c,
        max_iter=chosen.max_iterations,
        class_weight="balanced" if fitting.balanced else None,
        solver="lbfgs",
    )
    with threadpool_limits(limits=1):
        estimator.fit(values, train.label, sample_weight=train.weight)
    weights = [rounded(value) for value in estimator.coef_[0]]
    model = fitting.model(
        terms=[{**term, "average": rounded(mean)} for term, mean in zip(terms, means, strict=True)],
        coefficients=weights,
        intercept=rounded(estimator.intercept_[0]),
    )
    importance: dict[str, float] = {}
    for term, weight, spread in zip(terms, weights, spreads, strict=True):
        feature = str(items[term["input"]]["name"])
        importance[feature] = importance.get(feature, 0.0) + abs(weight) * float(spread)
    return Fitted(fitting.name, model, importance=importance)


def explain(model: ScoringModel, matrix: Matrix) -> Contributions:
    """Return weight x (term - its mean in the training part), summed per input."""
    values, document = np.zeros(matrix.shape), model.document
    base = float(document["intercept"])
    for term, weight in zip(document["terms"], document["coefficients"], strict=True):
        values[:, term["input"]] += weight * (linear_term(term, matrix) - term["average"])
        base += weight * term["average"]
    return Contributions(values, base)
