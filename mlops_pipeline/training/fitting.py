"""Fitting one candidate: a recipe and encoded rows in, a ScoringModel out.

Same input, same bytes, on any number of threads: LightGBM runs deterministic and column-wise,
logistic regression runs its linear algebra on one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.features import Direction
from mlops_pipeline.config.modelling import Candidate, Dummy, LightGBM, Logistic, RandomForest
from mlops_pipeline.errors import DataError
from mlops_pipeline.training.scoring import ScoringModel, encode, linear_term

MAX_CATEGORIES = 1_000  # more distinct texts are an identifier, not a category
CURVE_ROWS = 20_000  # of the training part, watched for its learning curve
SKEWED = 2.0  # sample skewness from which the logarithm is taken, where that mends it
SKEWNESS_ROWS = 200_000  # enough to tell whether the logarithm mends a skew
BLOCK_ROWS = 8_192  # of the design matrix, filled at once
COEFFICIENT_DIGITS = 10  # significant digits kept: beyond them is the optimiser's noise
NO_CALIBRATION = {"kind": "none"}
SIGNS = {"increasing": 1, "decreasing": -1}
SIMPLICITY = {"dummy": 0, "logistic": 1, "random_forest": 2, "lightgbm": 3}

Matrix = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int8]
Weights = npt.NDArray[np.float64]


class Design(NamedTuple):
    """The terms of a linear model, their values `(n_rows, n_terms)`, means and deviations."""

    terms: Sequence[Mapping[str, Any]]
    values: npt.NDArray[np.float64]
    means: npt.NDArray[np.float64]
    spreads: npt.NDArray[np.float64]


class Rows(NamedTuple):
    """Encoded rows with their labels; `weight` of each row, None: 1.

    `design` is that of the matrix, for who fits the same rows several times.
    """

    matrix: Matrix
    label: Labels
    weight: Weights | None = None
    design: Design | None = None


@dataclass(frozen=True)
class Inputs:
    """The model inputs as learned from the training part, and what was left out.

    `directions` are the declared ones, which candidates with `monotone: true` keep to.
    """

    items: tuple[Mapping[str, Any], ...]
    dropped: Mapping[str, str] = field(default_factory=dict)
    directions: Mapping[str, Direction] = field(default_factory=dict)


@dataclass(frozen=True)
class Fitted:
    """A fitted candidate before calibration."""

    name: str
    model: ScoringModel
    trees: int | None
    curves: Mapping[str, Sequence[float]]
    importance: Mapping[str, float]


def learn_inputs(
    columns: Mapping[str, npt.NDArray[Any]],
    names: Sequence[str],
    rows: npt.NDArray[np.int64],
    directions: Mapping[str, Direction] | None = None,
) -> Inputs:
    """Learn categories from the training rows; leave out inputs that say nothing.

    Raises
    ------
    DataError
        When a text input has more than 1,000 distinct values, or nothing varies at all.
    """
    items: list[Mapping[str, Any]] = []
    dropped: dict[str, str] = {}
    for name in names:
        values = columns[name][rows]
        if values.dtype == object:
            texts = sorted({value for value in values if value is not None})
            if len(texts) > MAX_CATEGORIES:
                raise DataError(
                    "a text feature has too many distinct values",
                    where=f"feature {name}",
                    expected=f"at most {MAX_CATEGORIES:,}",
                    found=f"{len(texts):,}",
                    way_out="group the values with a case expression, count them, or leave it out",
                )
            if len(texts) + (None in values) < 2:
                dropped[name] = "all missing" if not texts else "constant"
                continue
            items.append({"name": name, "type": "category", "categories": texts})
        else:
            present = values[~np.isnan(values)]
            if len(present) == 0 or (len(present) == len(values) and np.ptp(present) == 0):
                dropped[name] = "all missing" if len(present) == 0 else "constant"
                continue
            items.append({"name": name, "type": "number"})
    if not items:
        raise DataError(
            "no feature varies in the training part",
            found=", ".join(f"{name}: {reason}" for name, reason in dropped.items()),
        )
    return Inputs(tuple(items), dropped, directions or {})


def encode_rows(
    inputs: Inputs, columns: Mapping[str, npt.NDArray[Any]], rows: npt.NDArray[np.int64]
) -> Matrix:
    """Encode the given rows as a float32 matrix `(len(rows), n_inputs)`."""
    return encode([dict(item) for item in inputs.items], columns, rows)


def fit_candidate(
    name: str,
    recipe: Candidate,
    inputs: Inputs,
    train: Rows,
    validation: Rows | None,
    *,
    balanced: bool,
    seed: int,
    threads: int,
) -> Fitted:
    """Fit one recipe; with a validation part, boosting stops early on its log loss."""
    if isinstance(recipe, Dummy):
        base = float(np.average(train.label, weights=train.weight))
        model = _model(name, recipe, inputs, {"base_rate": base}, None)
        return Fitted(name, model, None, {}, {})
    if isinstance(recipe, Logistic):
        return _fit_logistic(name, recipe, inputs, train, balanced=balanced)
    return _fit_trees(
        name, recipe, inputs, train, validation, balanced=balanced, seed=seed, threads=threads
    )


def refit_recipe(recipe: Candidate, trees: int | None) -> Candidate:
    """Return the recipe with what the evaluated fit found fixed: the tree count, no stopping."""
    if isinstance(recipe, LightGBM) and trees:
        return recipe.model_copy(update={"trees": trees, "early_stopping_rounds": 0})
    return recipe


def _model(
    name: str,
    recipe: Candidate,
    inputs: Inputs,
    parameters: Mapping[str, Any],
    booster_text: str | None,
) -> ScoringModel:
    document = {
        "format": 1,
        "candidate": name,
        "kind": recipe.kind,
        "recipe": recipe.model_dump(mode="json"),
        "inputs": [dict(item) for item in inputs.items],
        "dropped_inputs": dict(inputs.dropped),
        "calibration": NO_CALIBRATION,
        "threshold": 0.5,
        **parameters,
    }
    return ScoringModel(document, booster_text)


def _fit_trees(
    name: str,
    recipe: LightGBM | RandomForest,
    inputs: Inputs,
    train: Rows,
    validation: Rows | None,
    *,
    balanced: bool,
    seed: int,
    threads: int,
) -> Fitted:
    import lightgbm

    names = [item["name"] for item in inputs.items]
    categories = [i for i, item in enumerate(inputs.items) if item["type"] == "category"]
    options = {"feature_name": names, "categorical_feature": categories, "free_raw_data": True}
    parameters = _tree_parameters(recipe, balanced=balanced, seed=seed, threads=threads)
    if recipe.monotone:
        known = {name: SIGNS[direction] for name, direction in inputs.directions.items()}
        parameters["monotone_constraints"] = [known.get(name, 0) for name in names]
    data = lightgbm.Dataset(
        train.matrix, train.label, weight=train.weight, params=parameters, **options
    )
    curves: dict[str, dict[str, list[float]]] = {}
    callbacks = []
    watched = {}
    if validation is not None:
        held = lightgbm.Dataset(
            validation.matrix, validation.label, reference=data, params=parameters
        )
        step = max(1, len(train.label) // CURVE_ROWS)
        seen = lightgbm.Dataset(
            train.matrix[::step], train.label[::step], reference=data, params=parameters
        )
        # the validation part first: early stopping goes by the first one
        watched = {"valid_sets": [held, seen], "valid_names": ["validation", "train"]}
        callbacks.append(lightgbm.record_evaluation(curves))
        if isinstance(recipe, LightGBM) and recipe.early_stopping_rounds:
            callbacks.append(_stop_early(recipe.early_stopping_rounds))
    booster = lightgbm.train(parameters, data, recipe.trees, callbacks=callbacks, **watched)
    trees = booster.best_iteration if booster.best_iteration > 0 else booster.num_trees()
    text = booster.model_to_string(num_iteration=trees)
    gain = booster.feature_importance("gain", iteration=trees)
    return Fitted(
        name=name,
        model=_model(name, recipe, inputs, {"trees": trees}, without_threads(text)),
        trees=int(trees),
        curves={part: values["binary_logloss"] for part, values in curves.items()},
        importance={key: float(value) for key, value in zip(names, gain, strict=True)},
    )


def without_threads(text: str) -> str:
    """Return LightGBM's text without the one line that tells how many threads made it."""
    return re.sub(r"\[num_threads: -?\d+\]\n", "", text)


def _stop_early(rounds: int) -> Any:
    import lightgbm

    return lightgbm.early_stopping(rounds, first_metric_only=True, verbose=False)


def _tree_parameters(
    recipe: LightGBM | RandomForest, *, balanced: bool, seed: int, threads: int
) -> dict[str, Any]:
    parameters = {
        "objective": "binary",
        "metric": "binary_logloss",
        "num_leaves": recipe.leaves,
        "min_data_in_leaf": recipe.min_leaf_rows,
        "feature_fraction": recipe.column_fraction,
        "bagging_fraction": recipe.row_fraction,
        "bagging_freq": 1,
        "seed": seed,
        "is_unbalance": balanced,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": threads,
        "max_cat_to_onehot": 8,
        "verbosity": -1,
    }
    if isinstance(recipe, RandomForest):
        return {**parameters, "boosting": "rf"}
    return {**parameters, "learning_rate": recipe.learning_rate, "lambda_l2": recipe.l2}


def _fit_logistic(
    name: str,
    recipe: Logistic,
    inputs: Inputs,
    train: Rows,
    *,
    balanced: bool,
) -> Fitted:
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    terms, values, means, spreads = train.design or learn_design(inputs, train.matrix)
    estimator = LogisticRegression(
        C=recipe.c,
        max_iter=recipe.max_iterations,
        class_weight="balanced" if balanced else None,
        solver="lbfgs",
    )
    with threadpool_limits(limits=1):
        estimator.fit(values, train.label, sample_weight=train.weight)
    weights = [rounded(value) for value in estimator.coef_[0]]
    parameters = {
        "terms": [
            {**term, "average": rounded(mean)} for term, mean in zip(terms, means, strict=True)
        ],
        "coefficients": weights,
        "intercept": rounded(estimator.intercept_[0]),
    }
    importance: dict[str, float] = {}
    for term, weight, spread in zip(terms, weights, spreads, strict=True):
        feature = str(inputs.items[term["input"]]["name"])
        importance[feature] = importance.get(feature, 0.0) + abs(weight) * float(spread)
    return Fitted(name, _model(name, recipe, inputs, parameters, None), None, {}, importance)


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
