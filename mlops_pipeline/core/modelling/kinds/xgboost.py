"""XGBoost: boosted trees of limited depth.

Fitted on one thread: its sums of gradients are in the threads' order, so only one thread promises
the same bytes everywhere, and on small sets it is the fastest too.
"""

from typing import Any

import numpy as np

from mlops_pipeline.core.modelling.fitting import Contributions, Fitted, Fitting, Inputs, Rows
from mlops_pipeline.core.modelling.scorers.xgboost import BOOSTER_JSON
from mlops_pipeline.core.modelling.scoring import Matrix, ScoringModel
from mlops_pipeline.errors import ConfigError

FRAMEWORK = "xgboost"
REQUIREMENTS = ("xgboost",)
CURVE_ROWS = 20_000  # of the training part, watched for its learning curve


def prepare(_inputs: Inputs, _matrix: Matrix) -> None:
    """Nothing is prepared: the bins of the inputs depend on the rows' weights."""


def fit(fitting: Fitting) -> Fitted:
    """Fit trees; with a validation part, boosting stops early on its log loss."""
    xgboost, chosen, train = _xgboost(), fitting.parameters, fitting.train
    data = _data(xgboost, fitting, train)
    curves: dict[str, dict[str, list[float]]] = {}
    watched: dict[str, Any] = {}
    if fitting.validation is not None:
        step = max(1, len(train.label) // CURVE_ROWS)
        seen = _data(xgboost, fitting, Rows(train.matrix[::step], train.label[::step]))
        held = _data(xgboost, fitting, fitting.validation)
        # early stopping goes by the last part
        watched = {"evals": [(seen, "train"), (held, "validation")], "evals_result": curves}
        watched["early_stopping_rounds"] = chosen.early_stopping_rounds or None
    parameters = _parameters(fitting)
    booster = xgboost.train(parameters, data, chosen.trees, verbose_eval=False, **watched)
    stopped = watched.get("early_stopping_rounds") is not None
    trees = booster.best_iteration + 1 if stopped else booster.num_boosted_rounds()
    booster = booster[:trees]
    booster.set_attr(best_iteration=None, best_score=None)
    gain = booster.get_score(importance_type="total_gain")
    text = bytes(booster.save_raw("json")).decode()
    return Fitted(
        name=fitting.name,
        model=fitting.model({BOOSTER_JSON: text}, trees=trees),
        trees=trees,
        curves={part: values["logloss"] for part, values in curves.items()},
        importance={
            item["name"]: float(gain.get(f"f{index}", 0.0))
            for index, item in enumerate(fitting.inputs.items)
        },
    )


def explain(model: ScoringModel, matrix: Matrix) -> Contributions:
    """Return XGBoost's exact tree SHAP (Lundberg et al. 2020, path-dependent)."""
    return Contributions.of_trees(model.scorer.contributions(matrix))


def _xgboost() -> Any:
    try:
        import xgboost
    except ModuleNotFoundError as error:
        raise ConfigError(
            "a candidate of kind xgboost needs XGBoost, which is not installed",
            where="training.candidates",
            way_out="install the extra: pip install 'mlops-pipeline[xgboost]'",
        ) from error
    return xgboost


def _data(xgboost: Any, fitting: Fitting, rows: Rows) -> Any:
    kinds = ["c" if item["type"] == "category" else "q" for item in fitting.inputs.items]
    return xgboost.DMatrix(
        rows.matrix,
        rows.label,
        weight=rows.weight,
        feature_types=kinds,
        enable_categorical=True,
        nthread=1,
    )


def _parameters(fitting: Fitting) -> dict[str, Any]:
    chosen, train = fitting.parameters, fitting.train
    parameters: dict[str, Any] = {
        "objective": "binary:logistic",
        "eval_metric": "logloss",
        "tree_method": "hist",
        "max_depth": chosen.depth,
        "eta": chosen.learning_rate,
        "min_child_weight": chosen.min_child_weight,
        "subsample": chosen.row_fraction,
        "colsample_bytree": chosen.column_fraction,
        "lambda": chosen.l2,
        "seed": fitting.seed,
        "nthread": 1,
        "verbosity": 0,
    }
    if fitting.balanced:
        weight = np.ones(len(train.label)) if train.weight is None else train.weight
        positive = float(weight[train.label == 1].sum())
        parameters["scale_pos_weight"] = (float(weight.sum()) - positive) / positive
    if chosen.monotone:
        parameters["monotone_constraints"] = tuple(fitting.signs())
    return parameters
