"""The floor of benchmark (a), part two: the candidates of configs/churn.yaml, fitted by hand.

The same rows (time split, one horizon purged), the same hyperparameters and early stopping, the
libraries as they are: no calibration, metrics, plots, tracking or refit.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.floor_features import ACCOUNT, PROTECTED
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.spec.kinds import LightGBM, Logistic, RandomForest

NOT_INPUTS = ("customer_id", "as_of", "label", *PROTECTED)


@dataclass(frozen=True)
class Rows:
    """One part of the data, categories as codes."""

    names: tuple[str, ...]
    matrix: npt.NDArray[np.float32]
    label: npt.NDArray[np.int8]


def read_rows(folder: Path, points: Sequence[datetime], *, threads: int) -> Rows:
    """Read the given months into one float32 matrix, column by column."""
    import duckdb

    files = ", ".join(f"'{folder / f'{point.date()}.parquet'}'" for point in points)
    scan = f"read_parquet([{files}])"
    with duckdb.connect(config={"threads": threads}) as engine:
        table: Any = engine.sql(f"DESCRIBE SELECT * FROM {scan}").fetchall()
        names = [row[0] for row in table if row[0] not in NOT_INPUTS]
        coded = {name: _code(engine, scan, name) for name in names if name in ACCOUNT}
        fields = [f"CAST({coded.get(name, name)} AS FLOAT) AS {name}" for name in names]
        rows = engine.sql(f"SELECT {', '.join(fields)}, label FROM {scan}").to_arrow_table()
    matrix = np.empty((len(rows), len(names)), dtype=np.float32, order="F")
    for index, name in enumerate(names):
        matrix[:, index] = rows.column(name).to_numpy()
    return Rows(tuple(names), matrix, rows.column("label").to_numpy().astype(np.int8))


def fit_all(use_case: UseCase, train: Rows, held: Rows, *, threads: int) -> dict[str, float]:
    """Fit every candidate; return the seconds of each, construction of its data included."""
    seconds = {}
    for name, recipe in use_case.training.candidates.items():
        if isinstance(recipe, LightGBM | RandomForest):
            fit: Callable[[], object] = _trees(recipe, use_case.training.seed, train, held, threads)
        elif isinstance(recipe, Logistic):
            fit = _logistic(recipe, train)
        else:
            fit = _dummy(train)
        begun = time.perf_counter()
        fit()
        seconds[name] = time.perf_counter() - begun
    return seconds


def _code(engine: Any, scan: str, name: str) -> str:
    texts = engine.sql(f"SELECT DISTINCT {name} FROM {scan} ORDER BY 1").fetchall()
    return f"list_position({[text[0] for text in texts]}, {name}) - 1"


def _trees(
    recipe: LightGBM | RandomForest, seed: int, train: Rows, held: Rows, threads: int
) -> Callable[[], object]:
    import lightgbm

    parameters: dict[str, Any] = {
        "objective": "binary",
        "num_leaves": recipe.leaves,
        "min_data_in_leaf": recipe.min_leaf_rows,
        "feature_fraction": recipe.column_fraction,
        "bagging_fraction": recipe.row_fraction,
        "bagging_freq": 1,
        "seed": seed,
        "num_threads": threads,
        "verbosity": -1,
    }
    callbacks = []
    if isinstance(recipe, LightGBM):
        parameters |= {"learning_rate": recipe.learning_rate, "lambda_l2": recipe.l2}
        callbacks.append(lightgbm.early_stopping(recipe.early_stopping_rounds, verbose=False))
    else:
        parameters["boosting"] = "rf"
    categories = [index for index, name in enumerate(train.names) if name in ACCOUNT]

    def fit() -> None:
        data = lightgbm.Dataset(
            train.matrix, train.label, params=parameters, categorical_feature=categories
        )
        seen = lightgbm.Dataset(held.matrix, held.label, reference=data, params=parameters)
        lightgbm.train(parameters, data, recipe.trees, valid_sets=[seen], callbacks=callbacks)

    return fit


def _logistic(recipe: Logistic, train: Rows) -> Callable[[], object]:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    coded = [index for index, name in enumerate(train.names) if name in ACCOUNT]
    numbers = [index for index, name in enumerate(train.names) if name not in ACCOUNT]
    model = make_pipeline(
        make_column_transformer(
            (make_pipeline(StandardScaler(), SimpleImputer()), numbers),
            (OneHotEncoder(sparse_output=False), coded),
        ),
        LogisticRegression(C=recipe.c, max_iter=recipe.max_iterations),
    )
    return lambda: model.fit(train.matrix, train.label)


def _dummy(train: Rows) -> Callable[[], object]:
    return lambda: float(np.mean(train.label))


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return seconds with two decimal places."""
    return {name: round(value, 2) for name, value in seconds.items()}
