"""Contributions held against the shap library, which explains the same models on its own."""

from typing import Any

import lightgbm
import numpy as np
import pytest

from mlops_pipeline.core.modelling.explanations import explain
from mlops_pipeline.core.modelling.scoring import linear_term
from mlops_pipeline_tests.core.modelling.example_models import fitted, frame

pytestmark = [pytest.mark.campaign, pytest.mark.filterwarnings("ignore")]  # shap's own


@pytest.fixture(scope="module")
def shap() -> Any:
    return pytest.importorskip("shap", exc_type=ImportError)


@pytest.mark.parametrize("kind", ["lightgbm", "random_forest"])
def test_explain_trees_equal_the_shap_library(kind: str, shap: Any) -> None:
    model = fitted(kind)
    matrix = model.encode(frame().columns)
    booster = lightgbm.Booster(model_str=model.texts["model.txt"])
    explainer = shap.TreeExplainer(booster)
    found = explain(model, frame().columns)
    trees = booster.num_trees() if kind == "random_forest" else 1  # it sums a forest
    theirs = np.asarray(explainer.shap_values(matrix))
    np.testing.assert_allclose(found.values, theirs / trees, atol=1e-9)
    assert np.isnan(matrix).any(axis=0).tolist() == [True, False, True, False]
    assert np.abs(found.values).mean(axis=0).min() > 0.001


def test_explain_linear_equals_the_shap_library(shap: Any) -> None:
    model = fitted("logistic")
    matrix = model.encode(frame().columns)
    terms = model.document["terms"]
    design = np.column_stack([linear_term(term, matrix) for term in terms])
    parameters = (np.array(model.document["coefficients"]), model.document["intercept"])
    training_part = shap.maskers.Independent(design[:1_000], max_samples=1_000)
    explainer = shap.LinearExplainer(parameters, training_part)
    by_input = np.zeros(matrix.shape)
    for term, values in zip(terms, explainer.shap_values(design).T, strict=True):
        by_input[:, term["input"]] += values
    found = explain(model, frame().columns)
    np.testing.assert_allclose(found.values, by_input, atol=1e-8)
    assert found.base == pytest.approx(explainer.expected_value, abs=1e-8)
