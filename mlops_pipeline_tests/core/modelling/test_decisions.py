"""Decisions row by row: per-row thresholds in metrics and intervals, and the review band."""

from typing import Any

import numpy as np
import pytest
import sklearn.metrics as oracle

from mlops_pipeline.core.evaluation.evaluation import review_band
from mlops_pipeline.core.metrics.intervals import bootstrap_metrics, paired_difference
from mlops_pipeline.core.metrics.metrics import point_metrics
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.errors import DataError

OF_DECISIONS = ("precision", "recall", "f1", "selection_rate")
DICE = np.random.default_rng(3)
ROWS = 500
LABEL = (DICE.random(ROWS) < 0.3).astype(np.int8)
P = np.clip(0.25 * LABEL + DICE.random(ROWS) * 0.7, 0, 1)
LIMITS = np.where(np.arange(ROWS) % 2 == 0, 0.3, 0.6)
ENTITY = np.arange(ROWS) // 2
DOCUMENT: dict[str, Any] = {
    "kind": "logistic",
    "inputs": [
        {"name": "amount", "type": "number"},
        {"name": "plan", "type": "category", "categories": ["a", "b"]},
    ],
    "terms": [
        {"kind": "number", "input": 0, "log": False, "mean": 0.0, "scale": 1.0, "average": 0.0}
    ],
    "coefficients": [1.0],
    "intercept": 0.0,
    "calibration": {"kind": "none"},
    "threshold": 0.5,
}
BY_GROUP = {
    "kind": "by_group",
    "attributes": ["region"],
    "groups": [[["north"]], [["south"]]],
    "limits": [0.4, 0.7],
}
AMOUNT = np.log([0.45 / 0.55, 0.45 / 0.55, 0.45 / 0.55, 0.75 / 0.25]).astype(np.float32)
COLUMNS = {
    "amount": AMOUNT,
    "plan": np.array(["a", "b", None, "a"], dtype=object),
    "region": np.array(["north", "south", None, "south"], dtype=object),
}


def test_point_metrics_with_a_threshold_for_each_row_equal_sklearn() -> None:
    found = point_metrics(LABEL, P, LIMITS, metrics=OF_DECISIONS)
    decision = P >= LIMITS
    expected = {
        "precision": oracle.precision_score(LABEL, decision),
        "recall": oracle.recall_score(LABEL, decision),
        "f1": oracle.f1_score(LABEL, decision),
        "selection_rate": decision.mean(),
    }
    assert {name: item.value for name, item in found.items()} == pytest.approx(expected)


def test_metrics_with_equal_thresholds_are_those_of_one() -> None:
    one = bootstrap_metrics(LABEL, P, 0.4, entities=ENTITY, replicates=30, seed=1)
    each = bootstrap_metrics(LABEL, P, np.full(ROWS, 0.4), entities=ENTITY, replicates=30, seed=1)
    assert one == each


def test_bootstrap_with_a_threshold_for_each_row_resamples_its_decisions() -> None:
    # scores that are the decisions, at one threshold, resample to the same decisions
    decision = (P >= LIMITS).astype(float)
    options: dict[str, Any] = {
        "metrics": OF_DECISIONS,
        "entities": ENTITY,
        "replicates": 40,
        "seed": 1,
        "max_rows": 300,
    }
    found = bootstrap_metrics(LABEL, P, LIMITS, **options)
    expected = bootstrap_metrics(LABEL, decision, 0.5, **options)
    for name in OF_DECISIONS:
        assert found[name].value == pytest.approx(expected[name].value)
        assert found[name].low == pytest.approx(expected[name].low)
        assert found[name].high == pytest.approx(expected[name].high)


def test_paired_difference_takes_each_model_at_its_own_thresholds() -> None:
    found = paired_difference(
        *(LABEL, P, P), metric="recall", threshold_a=LIMITS, threshold_b=0.5, replicates=30, seed=1
    )
    expected = oracle.recall_score(LABEL, P >= LIMITS) - oracle.recall_score(LABEL, P >= 0.5)
    assert found.value == pytest.approx(expected)


def test_thresholds_of_another_length_are_refused() -> None:
    with pytest.raises(DataError, match="Thresholds and scores differ in length"):
        point_metrics(LABEL, P, LIMITS[:-1])


# the review band


def test_decide_rows_near_their_own_threshold_need_review() -> None:
    model = ScoringModel({**DOCUMENT, "thresholds": BY_GROUP, "review_band": 0.12}, None)
    said = model.decide(COLUMNS)
    assert said.threshold.tolist() == [0.4, 0.7, 0.5, 0.7]
    assert said.decision.tolist() == [True, False, False, True]
    assert said.needs_review.tolist() == [True, False, True, True]  # 0.05, 0.25, 0.05, 0.05 away


def test_decide_without_a_band_asks_nobody() -> None:
    said = ScoringModel(DOCUMENT, None).decide({**COLUMNS, "amount": np.zeros(4, np.float32)})
    assert said.probability.tolist() == said.threshold.tolist() == [0.5] * 4
    assert not said.needs_review.any()


def test_review_band_hand_computed() -> None:
    model = ScoringModel({**DOCUMENT, "review_band": 0.2}, None)
    odds = np.array([0.1, 0.3, 0.45, 0.55, 0.58, 0.9, 0.95])
    columns = {"amount": np.log(odds / (1 - odds)).astype(np.float32), "plan": np.full(7, None)}
    label = np.array([0, 1, 0, 0, 1, 1, 0], dtype=np.int8)
    found = review_band(model, label, model.decide(columns))
    assert found is not None
    assert (found.low, found.high) == (0.4, 0.6)
    assert found.share == pytest.approx(3 / 7)
    values = {name: item.value for name, item in found.automatic.items()}
    assert values == {"error_rate": 0.5, "precision": 0.5, "recall": 0.5}
    values = {name: item.value for name, item in found.inside.items()}
    assert values == pytest.approx({"error_rate": 1 / 3, "precision": 0.5, "recall": 1.0})
    assert review_band(ScoringModel(DOCUMENT, None), label, model.decide(columns)) is None
