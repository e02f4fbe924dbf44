"""LightGBM: boosted trees, and its random-forest mode.

Deterministic and column-wise, so that any number of threads gives the same bytes.
"""

import re
from typing import Any

from mlops_pipeline.core.modelling.fitting import Contributions, Fitted, Fitting, Inputs
from mlops_pipeline.core.modelling.scorers.lightgbm import MODEL_TEXT
from mlops_pipeline.core.modelling.scoring import Matrix, ScoringModel
from mlops_pipeline.spec.kinds import LightGBM

FRAMEWORK = "lightgbm"
REQUIREMENTS = ("lightgbm",)
CURVE_ROWS = 20_000  # of the training part, watched for its learning curve
THREADS = r"\[num_threads: -?\d+\]\n"  # the one line of the text that tells how many made it
FEW_ROWS = 64  # explained on one thread: waking others takes longer


def prepare(_inputs: Inputs, _matrix: Matrix) -> None:
    """Nothing is prepared: a fit that frees its raw data takes less memory."""


def fit(fitting: Fitting) -> Fitted:
    """Fit trees; with a validation part, boosting stops early on its log loss."""
    import lightgbm

    items, train = fitting.inputs.items, fitting.train
    names = [item["name"] for item in items]
    parameters = _parameters(fitting)
    data = lightgbm.Dataset(
        train.matrix,
        train.label,
        weight=train.weight,
        params=parameters,
        feature_name=names,
        categorical_feature=[i for i, item in enumerate(items) if item["type"] == "category"],
        free_raw_data=True,
    )
    curves: dict[str, dict[str, list[float]]] = {}
    watched = _watched(fitting, data, parameters, curves)
    booster = lightgbm.train(parameters, data, fitting.parameters.trees, **watched)
    trees = booster.best_iteration if booster.best_iteration > 0 else booster.num_trees()
    text = re.sub(THREADS, "", booster.model_to_string(num_iteration=trees))
    gain = booster.feature_importance("gain", iteration=trees)
    return Fitted(
        name=fitting.name,
        model=fitting.model({MODEL_TEXT: text}, trees=trees),
        trees=int(trees),
        curves={part: values["binary_logloss"] for part, values in curves.items()},
        importance={key: float(value) for key, value in zip(names, gain, strict=True)},
    )


def explain(model: ScoringModel, matrix: Matrix) -> Contributions:
    """Return LightGBM's exact tree SHAP (Lundberg et al. 2020, path-dependent)."""
    threads = 1 if len(matrix) <= FEW_ROWS else 0
    return Contributions.of_trees(model.scorer.contributions(matrix, threads=threads))


def _watched(
    fitting: Fitting, data: Any, parameters: dict[str, Any], curves: dict[str, Any]
) -> dict[str, Any]:
    import lightgbm

    train, validation = fitting.train, fitting.validation
    if validation is None:
        return {}
    step = max(1, len(train.label) // CURVE_ROWS)
    parts = ((validation.matrix, validation.label), (train.matrix[::step], train.label[::step]))
    sets = [lightgbm.Dataset(*part, reference=data, params=parameters) for part in parts]
    callbacks = [lightgbm.record_evaluation(curves)]
    rounds = getattr(fitting.parameters, "early_stopping_rounds", 0)
    if rounds:  # goes by the first set, the validation part
        callbacks.append(lightgbm.early_stopping(rounds, first_metric_only=True, verbose=False))
    return {"valid_sets": sets, "valid_names": ["validation", "train"], "callbacks": callbacks}


def _parameters(fitting: Fitting) -> dict[str, Any]:
    chosen = fitting.parameters
    parameters = {
        "objective": "binary",
        "metric": "binary_logloss",
        "num_leaves": chosen.leaves,
        "min_data_in_leaf": chosen.min_leaf_rows,
        "feature_fraction": chosen.column_fraction,
        "bagging_fraction": chosen.row_fraction,
        "bagging_freq": 1,
        "seed": fitting.seed,
        "is_unbalance": fitting.balanced,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": fitting.threads,
        "max_cat_to_onehot": 8,
        "verbosity": -1,
    }
    if isinstance(chosen, LightGBM):
        parameters |= {"learning_rate": chosen.learning_rate, "lambda_l2": chosen.l2}
    else:
        parameters["boosting"] = "rf"
    if chosen.monotone:
        parameters["monotone_constraints"] = fitting.signs()
    return parameters
