"""One row scored by itself has the bits of that row among many: every kind, every way to decide."""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_pipeline.core.modelling.calibration import fit_calibration
from mlops_pipeline.core.modelling.fitting import Inputs
from mlops_pipeline.core.modelling.kinds.logistic import prepare
from mlops_pipeline.core.modelling.row_scorer import RowScorer
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.errors import DataError
from mlops_pipeline_tests.core.modelling.example_models import RECIPES, fitted, frame

GROUPS = 9  # NumPy sums fewer than eight numbers in another order than more
NUMBER = st.none() | st.just(math.nan) | st.floats(width=32) | st.floats() | st.integers(-9, 9)
PLAN = st.sampled_from([None, "basic", "plus", "premium", "unknown", ""])
REGION = st.sampled_from([None, "north", "south", "nowhere"])
ROW = st.fixed_dictionaries(
    {"amount": NUMBER, "tickets": NUMBER, "plan": PLAN, "noise": NUMBER, "region": REGION}
)


@cache
def decided(kind: str, calibration: Any, rule: str) -> ScoringModel:
    """A model with a calibration, a review band, and thresholds of one rule."""
    model = fitted(kind)
    matrix = model.encode(frame().columns)
    scores = model.raw_scores(matrix)
    thresholds: dict[str, Any] = {
        "one": {},
        "by_group": {
            "kind": "by_group",
            "attributes": ["region"],
            "groups": [[["north"]], [["south"]]],
            "limits": [0.31, 0.62],
        },
        "by_estimated_group": {
            "kind": "by_estimated_group",
            "intercepts": np.linspace(-1, 1, GROUPS).tolist(),
            "terms": prepare(Inputs(tuple(model.document["inputs"])), matrix).terms,
            "coefficients": [
                np.sin(np.arange(GROUPS) + number).tolist()
                for number, _ in enumerate(
                    prepare(Inputs(tuple(model.document["inputs"])), matrix).terms
                )
            ],
            "limits": np.linspace(0.2, 0.7, GROUPS).tolist(),
        },
    }[rule]
    return model.revised(
        calibration=fit_calibration(calibration, scores, frame().label),
        threshold=0.4,
        review_band=0.1,
        **({"thresholds": thresholds} if thresholds else {}),
    )


def columns_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows as columns, as batch scoring reads them."""
    return {
        name: np.array([row[name] for row in rows], dtype=object)
        if name in ("plan", "region")
        else np.array([row[name] for row in rows], dtype=np.float64)
        for name in rows[0]
    }


@pytest.mark.parametrize("rule", ["one", "by_group", "by_estimated_group"])
@pytest.mark.parametrize("calibration", ["isotonic", "sigmoid", "none"])
@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast", "ignore:invalid value")
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, min_size=1, max_size=9))
def test_row_is_scored_as_among_many(
    kind: str, calibration: str, rule: str, rows: list[dict[str, Any]]
) -> None:
    model = decided(kind, calibration, rule)
    scorer, many = RowScorer(model), model.decide(columns_of(rows))
    for index, row in enumerate(rows):
        said = scorer(row)
        assert said.probability == many.probability[index]
        assert said.threshold == many.threshold[index]
        assert said.decision == many.decision[index]
        assert said.needs_review == many.needs_review[index]


@pytest.mark.parametrize("kind", RECIPES)
def test_row_scorers_of_one_model_do_not_disturb_each_other(kind: str) -> None:
    model = fitted(kind)
    first, second = RowScorer(model), RowScorer(model)
    here: dict[str, Any] = {"amount": 3.0, "tickets": 0, "plan": "plus", "noise": 0.5}
    there = {**here, "amount": 90.0, "plan": None, "tickets": True}
    before = first(here)
    assert second(there) == RowScorer(model)(there)
    assert first(here) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [({"amount": "much"}, "of another type"), ({"plan": ["plus"]}, "of another type")],
)
def test_row_with_a_value_of_another_type_is_refused(change: dict[str, Any], message: str) -> None:
    row = {"amount": 3.0, "tickets": 0, "plan": "plus", "noise": 0.5, **change}
    with pytest.raises(DataError, match=message):
        RowScorer(fitted("lightgbm"))(row)


def test_row_without_a_feature_names_it() -> None:
    with pytest.raises(DataError, match=r"features of the model are missing\n  found: tickets"):
        RowScorer(fitted("dummy"))({"amount": 3.0, "plan": "plus", "noise": 0.5})
