"""Naive rules: learned on rows that can be counted by hand, and held against a model."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.documents.records import from_plain, plain
from mlops_pipeline.core.evaluation.gates import evaluate_gate
from mlops_pipeline.core.evaluation.naive import (
    NaiveComparison,
    NaiveScores,
    compare_naive,
    learn_naive,
)
from mlops_pipeline.core.evaluation.outcomes import RuleResult
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.core.modelling.scoring import Decisions
from mlops_pipeline_tests.core.evaluation import example_evaluation as example

LABEL = np.array([1, 1, 0, 0, 0, 1, 0, 0, 0, 0], np.int8)
PLAN = np.array(["a", "a", "a", "b", "b", "b", "b", "b", None, None], object)
LATE = np.array([1, 1, 1, 0, 0, 0, 0, 0, np.nan, np.nan], np.float32)


def rows(columns: dict[str, NDArray[Any]], label: NDArray[np.int8]) -> LabelledFrame:
    times = np.zeros(len(label), "datetime64[us]")
    return LabelledFrame(columns, {}, np.arange(len(label)), times, times, label)


def decided(probability: NDArray[np.float64], threshold: float) -> Decisions:
    limits = np.full(len(probability), threshold)
    none = np.zeros(len(probability), bool)
    return Decisions(probability, limits, probability >= limits, none)


def test_rule_without_a_column_is_the_share_of_positive_rows() -> None:
    found = learn_naive(None, {}, LABEL)
    assert found == NaiveScores(None, 0.3)
    assert found.score({}, 2).tolist() == [0.3, 0.3]


@pytest.mark.parametrize(
    ("column", "new"), [("plan", ["a", "b", None, "c"]), ("late", [1, 0, np.nan, 7])]
)
def test_rule_of_a_column_is_the_share_by_its_value(column: str, new: list[Any]) -> None:
    columns = {"plan": PLAN, "late": LATE}
    found = learn_naive(column, columns, LABEL)
    again = from_plain(NaiveScores, json.loads(json.dumps(plain(found))))
    # 2 of 3, 1 of 5 and 0 of 2, each with one row more of the base rate 0.3
    expected = [2.3 / 4, 1.3 / 6, 0.3 / 3, 0.3 if column == "plan" else 2.3 / 4]
    values = np.array(new, dtype=columns[column].dtype)
    assert again.score({column: values}, 4) == pytest.approx(expected)


def test_rule_of_a_column_of_numbers_cuts_it_where_rows_are_equally_many() -> None:
    values = np.arange(4_000, dtype=np.float32)
    label = (values >= 3_000).astype(np.int8)
    found = learn_naive("amount", {"amount": values}, label)
    assert len(found.edges or ()) == 19
    scores = found.score({"amount": np.array([10.0, 2_900.0, 3_100.0])}, 3)
    assert scores == pytest.approx([0.25 / 201, 0.25 / 201, 200.25 / 201], rel=0.01)


def test_comparison_is_the_models_figure_less_the_rules_on_the_same_rows() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat([1, 0], 200).astype(np.int8)
    late = np.where(rng.random(400) < np.where(label == 1, 0.5, 0.2), 1, 0).astype(np.float32)
    probability = np.where(label == 1, 0.9, 0.1)
    probability[-10:] = 0.95  # ten negative rows above every positive one
    rules = [
        {"rule": "better_than_naive", "metric": metric, "column": column}
        for metric, column in (
            ("accuracy", None),
            ("roc_auc", None),
            ("roc_auc", "amount_mean_90d"),
        )
    ]
    columns = {"amount_mean_90d": late}
    naive = [learn_naive(column, columns, label) for column in (None, "amount_mean_90d")]
    found = compare_naive(
        example.use_case(rules), naive, rows(columns, label), decided(probability, 0.5)
    )
    hits, false_hits = late[label == 1].mean(), late[label == 0].mean()
    alone = 0.5 + (hits - false_hits) / 2  # of a score with two values
    assert [item.difference.value for item in found] == pytest.approx([0.475, 0.45, 0.95 - alone])
    assert all((item.difference.lower or 0) > 0 for item in found)


def held(difference: Estimate, **rule: Any) -> RuleResult:
    rule = {"rule": "better_than_naive", "metric": "roc_auc", **rule}
    found = NaiveComparison(rule.get("column"), rule["metric"], difference)
    gates = example.use_case((rule,)).gates
    return evaluate_gate(gates, replace(example.evaluation(), naive=(found,))).rules[0]


@pytest.mark.parametrize(
    ("lower", "upper", "outcome"),
    [(0.01, 0.09, "passed"), (-0.01, 0.09, "uncertain"), (-0.2, -0.1, "failed")],
)
def test_rule_passes_where_the_lower_bound_of_the_gain_clears_the_margin(
    lower: float, upper: float, outcome: str
) -> None:
    value = (lower + upper) / 2
    assert held(Estimate(value, lower - 1, upper + 1, lower=lower, upper=upper)).outcome == outcome


def test_rule_about_a_loss_counts_less_as_better_and_says_what_it_is_compared_with() -> None:
    less = Estimate(-0.05, -0.07, -0.03, lower=-0.06, upper=-0.04)
    found = held(less, metric="log_loss", column="plan", by=0.02)
    assert (found.outcome, found.value) == ("passed", 0.05)
    assert found.name == "log_loss better than plan alone by 0.02"
    assert (
        found.reason
        == "a gain of +0.0500 (bounds 0.0400 and 0.0600) over plan alone on 4,000 test rows"
    )
    worse = Estimate(0.05, 0.03, 0.07, lower=0.04, upper=0.06)
    found = held(worse, metric="log_loss")
    assert (found.outcome, found.blocks) == ("failed", True)
    assert (
        found.reason
        == "a gain of -0.0500 (bounds -0.0600 and -0.0400) over the base rate on 4,000 test rows"
    )


def test_figure_that_a_rule_does_not_have_is_not_computable() -> None:
    found = held(
        Estimate(None, reason="naive rule: no row reaches the threshold"), metric="precision"
    )
    assert found.outcome == "not computable"
    assert found.reason.endswith("naive rule: no row reaches the threshold")


def test_column_that_is_no_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gates.0.column.*regoin"):
        example.use_case(({"rule": "better_than_naive", "column": "regoin"},))
