"""Small fitted models of every kind, on rows with categories and missing values."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from mlops_pipeline.config.modelling import Candidate
from mlops_pipeline.config.tables import Direction
from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.modelling.fitting import Fitting, Rows, encode_rows, learn_inputs
from mlops_pipeline.core.modelling.scoring import ScoringModel

ROWS = 1_500
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "lightgbm": {"trees": 25, "leaves": 8, "min_leaf_rows": 20, "learning_rate": 0.2},
    "random_forest": {"trees": 12, "leaves": 16, "min_leaf_rows": 20},
    "xgboost": {"trees": 25, "depth": 3, "min_child_weight": 2, "learning_rate": 0.2},
    "logistic": {},
    "dummy": {},
}
NAMES = ("amount", "tickets", "plan", "noise")
VIEW_COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "amount": {"aggregate": "mean", "of": "amount", "precision": 2, "description": "Bill (EUR)."},
    "tickets": {"aggregate": "count", "dtype": "int64", "expected": "increasing"},
    "plan": {"aggregate": "last", "of": "plan", "dtype": "string", "description": "The plan."},
    "noise": {"aggregate": "max", "of": "amount"},
}


@cache
def frame() -> LabelledFrame:
    """Rows whose label falls with the amount, dips and rises with tickets, depends on the plan."""
    rng = np.random.default_rng(5)
    amount = rng.gamma(2.0, 20.0, ROWS).astype(np.float32)
    amount[rng.random(ROWS) < 0.1] = np.nan
    tickets = rng.poisson(1.5, ROWS).astype(np.float32)
    plan = rng.choice(np.array(["basic", "plus", "premium", None], dtype=object), ROWS)
    score = -np.nan_to_num(amount, nan=80.0) / 25 + 0.6 * tickets + 1.5 * (plan == "plus")
    score -= 2.0 * (tickets == 2)
    label = (rng.random(ROWS) < 1 / (1 + np.exp(-score))).astype(np.int8)
    days = np.full(ROWS, np.datetime64("2025-01-01T00:00"))
    return LabelledFrame(
        columns={
            "amount": amount,
            "tickets": tickets,
            "plan": plan,
            "noise": rng.normal(size=ROWS).astype(np.float32),
        },
        protected={"region": rng.choice(np.array(["north", "south"], dtype=object), ROWS)},
        entity=np.arange(ROWS),
        as_of=days,
        known_at=days,
        label=label,
    )


def fitted(
    kind: str,
    names: tuple[str, ...] = NAMES,
    *,
    directions: Mapping[str, Direction] | None = None,
    label: Any = None,
    **options: Any,
) -> ScoringModel:
    """Fit one candidate on the first 1,000 rows, without calibration."""
    rows = np.arange(1_000)
    data = frame()
    inputs = learn_inputs(data.columns, names, rows, directions)
    recipe: Any = TypeAdapter(Candidate).validate_python({"kind": kind, **RECIPES[kind], **options})
    truth = data.label if label is None else label
    part = Rows(encode_rows(inputs, data.columns, rows), truth[rows])
    return Fitting(kind, recipe, inputs, part, None, balanced=False, seed=3, threads=1).fit().model
