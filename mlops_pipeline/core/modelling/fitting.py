"""Fitting one candidate: a recipe and encoded rows in, a ScoringModel out.

How rows are encoded is inputs.py's, the terms of a linear model are linear_design.py's.

Same input, same bytes, on any number of threads: LightGBM runs deterministic and column-wise,
logistic regression runs its linear algebra on one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.modelling import Candidate, Dummy, LightGBM, Logistic, RandomForest
from mlops_pipeline.core.modelling.inputs import Inputs, Matrix
from mlops_pipeline.core.modelling.linear_design import Design, learn_design, rounded
from mlops_pipeline.core.modelling.scoring import ScoringModel

CURVE_ROWS = 20_000  # of the training part, watched for its learning curve
NO_CALIBRATION = {"kind": "none"}
SIGNS = {"increasing": 1, "decreasing": -1}
SIMPLICITY = {"dummy": 0, "logistic": 1, "random_forest": 2, "lightgbm": 3}

Labels = npt.NDArray[np.int8]
Weights = npt.NDArray[np.float64]


class Rows(NamedTuple):
    """Encoded rows with their labels; `weight` of each row, None: 1.

    `design` is that of the matrix, for who fits the same rows several times.
    """

    matrix: Matrix
    label: Labels
    weight: Weights | None = None
    design: Design | None = None


@dataclass(frozen=True)
class Fitted:
    """A fitted candidate before calibration."""

    name: str
    model: ScoringModel
    trees: int | None
    curves: Mapping[str, Sequence[float]]
    importance: Mapping[str, float]


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
