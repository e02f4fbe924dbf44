import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.core.evaluation.evaluation import Evaluation
from mlops_pipeline.core.evaluation.gates import evaluate_gate
from mlops_pipeline.core.modelling.explanations import Explanation, explain, explain_model
from mlops_pipeline.core.modelling.scoring import ScoringModel, logit
from mlops_pipeline_tests.core.evaluation import example_evaluation as example
from mlops_pipeline_tests.core.modelling.example_models import (
    NAMES,
    RECIPES,
    VIEW_COLUMNS,
    fitted,
    frame,
)

SINGLE_PRECISION = 1e-5  # XGBoost's contributions are float32


@cache
def measured() -> Evaluation:
    return example.evaluation()


def use_case(**changes: Any) -> UseCase:
    view = {"source": "bills", "columns": VIEW_COLUMNS}
    evaluation = {"slices": ["region", "plan", "amount"]}
    return example.use_case(**{"views": {"billing": view}, "evaluation": evaluation, **changes})


def explained(
    model: ScoringModel, champion: ScoringModel | None = None, **changes: Any
) -> Explanation:
    pair = None if champion is None else (4, champion)
    return explain_model(use_case(**changes), model, frame(), champion=pair)


# contributions


@pytest.mark.parametrize("kind", RECIPES)
def test_explain_contributions_and_base_add_up_to_the_log_odds_of_the_score(kind: str) -> None:
    model = fitted(kind)
    found = explain(model, frame().columns)
    scores = model.raw_scores(model.encode(frame().columns))
    assert found.values.shape == (len(frame()), len(NAMES))
    nearness = SINGLE_PRECISION if kind == "xgboost" else 1e-9
    np.testing.assert_allclose(found.base + found.values.sum(axis=1), logit(scores), atol=nearness)


@pytest.mark.parametrize("kind", RECIPES)
def test_log_odds_are_those_of_the_score(kind: str) -> None:
    model = fitted(kind)
    matrix = model.encode(frame().columns)
    np.testing.assert_allclose(model.log_odds(matrix), logit(model.raw_scores(matrix)), atol=1e-9)


@pytest.mark.parametrize("kind", RECIPES)
def test_explain_one_row_is_that_row_of_many(kind: str) -> None:
    model = fitted(kind)
    many = explain(model, frame().columns).values
    one = explain(model, {name: values[7:8] for name, values in frame().columns.items()})
    np.testing.assert_array_equal(one.values[0], many[7])
    assert (kind == "dummy") == (np.abs(one.values).sum() == 0)


@pytest.mark.parametrize("kind", ["lightgbm", "xgboost", "logistic"])
def test_explain_no_row_gives_no_row(kind: str) -> None:
    empty = {name: values[:0] for name, values in frame().columns.items()}
    assert explain(fitted(kind), empty).values.shape == (0, len(NAMES))


# the test part


def test_explain_model_ranks_what_moves_the_score() -> None:
    found = explained(fitted("lightgbm"))
    assert list(found.shap) == sorted(NAMES, key=lambda name: -found.shap[name])
    assert list(found.shap)[-1] == "noise"
    assert found.champion is None


def test_explain_model_of_the_dummy_has_no_importance() -> None:
    assert set(explained(fitted("dummy")).shap.values()) == {0.0}


def test_explain_model_groups_are_the_means_of_their_rows() -> None:
    model = fitted("lightgbm")
    found = explained(model).by_slice
    sizes = np.abs(explain(model, frame().columns).values)
    south = next(item for item in found if (item.column, item.group) == ("region", "south"))
    inside = frame().protected["region"] == "south"
    assert south.rows == inside.sum()
    for name, value in south.shap.items():
        assert value == pytest.approx(sizes[inside, NAMES.index(name)].mean())
    columns = {item.column for item in found}
    assert columns == {"region", "plan", "amount"}
    assert any(item.group == "(missing)" for item in found)


def test_explain_model_group_names_the_largest_difference_first() -> None:
    found = explained(fitted("lightgbm"))
    plus = next(item for item in found.by_slice if item.group == "plus")
    assert next(iter(plus.shap)) == "plan"
    gaps = [abs(value - found.shap[name]) for name, value in plus.shap.items()]
    assert gaps == sorted(gaps, reverse=True)


def test_explain_model_small_group_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlops_pipeline.core.modelling.explanations.GROUP_ROWS", len(frame()))
    assert explained(fitted("logistic")).by_slice == ()


# against the champion


def test_compare_same_model_agrees_wholly() -> None:
    model = fitted("lightgbm")
    found = explained(model, model).champion
    assert found is not None
    assert (found.version, found.rows, found.reason) == (4, len(frame()), None)
    assert found.rank_correlation == pytest.approx(1.0)
    assert found.top_overlap == 1.0


def test_compare_counts_inputs_that_one_lacks_as_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlops_pipeline.core.modelling.explanations.TOP_INPUTS", 2)
    ours, theirs = fitted("logistic"), fitted("logistic", ("tickets", "noise", "plan"))
    found = explained(ours, theirs)
    assert found.champion is not None
    champion = explained(theirs).shap
    ranks = [
        {name: rank for rank, name in enumerate(sorted(NAMES, key=lambda n: side.get(n, 0.0)))}
        for side in (found.shap, champion)
    ]
    squares = sum((ranks[0][name] - ranks[1][name]) ** 2 for name in NAMES)
    by_hand = 1 - 6 * squares / (4 * (16 - 1))  # Spearman's formula without ties
    assert found.champion.rank_correlation == pytest.approx(by_hand)
    assert found.champion.top_overlap == 0.5  # amount and plan against tickets and plan


@pytest.mark.parametrize(
    ("champion", "reason"),
    [
        (fitted("dummy"), "one of the two weighs all its inputs alike"),
        (
            ScoringModel(
                {
                    **fitted("dummy").document,
                    "inputs": [{"name": "fax_count", "type": "number"}],
                },
                None,
            ),
            "the champion needs features that no longer exist: fax_count",
        ),
    ],
)
def test_compare_not_computable_says_why(champion: ScoringModel, reason: str) -> None:
    found = explained(fitted("lightgbm"), champion).champion
    assert found is not None
    assert (found.rank_correlation, found.top_overlap) == (None, None)
    assert found.reason == reason


def test_compare_two_inputs_are_too_few_to_rank() -> None:
    model = fitted("logistic", ("amount", "plan"))
    found = explained(model, model).champion
    assert found is not None
    assert found.reason == "only 2 inputs (at least 3)"


@pytest.mark.parametrize(
    ("champion", "at_least", "outcome", "asks"),
    [
        (None, 0.9, "passed", False),
        (fitted("lightgbm"), 0.9, "passed", False),
        (fitted("lightgbm", label=1 - frame().columns["noise"].round() % 2), 0.9, "failed", True),
        (fitted("dummy"), 0.9, "not computable", True),
    ],
)
def test_consistency_rule(
    champion: ScoringModel | None, at_least: float, outcome: str, asks: bool
) -> None:
    case = use_case(gates=[{"rule": "attribution_consistency", "at_least": at_least}])
    explanations = explained(fitted("lightgbm"), champion)
    judged = dataclasses.replace(measured(), explanations=explanations)
    gate = evaluate_gate(case.gates, judged)
    assert (gate.rules[0].outcome, gate.needs_review, gate.passed) == (outcome, asks, True)
