import dataclasses
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.core.evaluation.evaluation import Evaluation
from mlops_pipeline.core.evaluation.gates import evaluate_gate
from mlops_pipeline.core.evaluation.outcomes import RuleResult
from mlops_pipeline.core.modelling.explanations import (
    DirectionCheck,
    Explanation,
    check_directions,
    local_moves,
)
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline_tests.core.evaluation import example_evaluation as example
from mlops_pipeline_tests.core.modelling.example_models import NAMES, VIEW_COLUMNS, fitted, frame

TICKETS = NAMES.index("tickets")


@cache
def measured() -> Evaluation:
    return example.evaluation()


def use_case(expected: dict[str, str], at_most: float = 0.2) -> UseCase:
    columns = {
        name: {**{key: value for key, value in column.items() if key != "expected"}}
        | ({"expected": expected[name]} if name in expected else {})
        for name, column in VIEW_COLUMNS.items()
    }
    rule = {"rule": "expected_directions", "at_most": at_most}
    views = {"billing": {"source": "bills", "columns": columns}}
    return example.use_case([rule], views=views, evaluation={})


def checked(model: ScoringModel, columns: Any = None, **expected: str) -> DirectionCheck:
    (found,) = check_directions(use_case(expected), model, columns or frame().columns)
    return found


def judge(*checks: DirectionCheck, at_most: float = 0.2) -> tuple[RuleResult, bool]:
    explanations = Explanation({}, (), None, checks)
    judged = dataclasses.replace(measured(), explanations=explanations)
    gate = evaluate_gate(use_case({"tickets": "increasing"}, at_most).gates, judged)
    return gate.rules[0], gate.needs_review


# moves


def test_local_moves_are_the_differences_between_the_ends_of_each_interval() -> None:
    model = fitted("lightgbm")
    matrix = model.encode(frame().columns)
    found = local_moves(model, matrix, TICKETS)
    by_hand = []
    shares = np.quantile(matrix[:, TICKETS], np.linspace(0, 1, 21), method="inverted_cdf")
    cuts = np.unique(shares)
    for low, high in pairwise(cuts):
        values = matrix[:, TICKETS]
        inside = matrix[((values > low) | (low == cuts[0])) & (values <= high)]
        lower, upper = inside.copy(), inside.copy()
        lower[:, TICKETS], upper[:, TICKETS] = low, high
        by_hand.append((model.log_odds(upper) - model.log_odds(lower)).mean())
    np.testing.assert_allclose(found, by_hand)
    assert len(found) >= 3


def test_local_moves_of_a_linear_model_are_its_slope() -> None:
    model = fitted("logistic")
    matrix = model.encode(frame().columns)
    term = next(
        item
        for item in zip(model.document["terms"], model.document["coefficients"], strict=True)
        if item[0]["input"] == TICKETS
    )
    assert not term[0]["log"]
    edges = np.unique(np.quantile(matrix[:, TICKETS], np.linspace(0, 1, 21), method="inverted_cdf"))
    np.testing.assert_allclose(
        local_moves(model, matrix, TICKETS), term[1] * np.diff(edges) / term[0]["scale"]
    )


def test_local_moves_leave_out_rows_that_lack_the_input() -> None:
    model = fitted("lightgbm")
    matrix = model.encode(frame().columns)
    present = matrix[~np.isnan(matrix[:, 0])]
    np.testing.assert_array_equal(local_moves(model, matrix, 0), local_moves(model, present, 0))


# one direction


def test_violation_is_the_share_of_moves_against_the_direction() -> None:
    model = fitted("lightgbm")  # the label dips at two tickets
    moves = local_moves(model, model.encode(frame().columns), TICKETS)
    falls = -moves[moves < 0].sum() / np.abs(moves).sum()
    assert 0 < falls < 1
    rising = checked(model, tickets="increasing")
    falling = checked(model, tickets="decreasing")
    assert rising.violation == pytest.approx(falls)
    assert falling.violation == pytest.approx(1 - falls)
    assert rising.passed == (falls <= 0.2)


@pytest.mark.parametrize(
    ("expected", "violation", "passed"), [("decreasing", 0.0, True), ("increasing", 1.0, False)]
)
def test_linear_model_is_wholly_for_or_against_a_direction(
    expected: str, violation: float, passed: bool
) -> None:
    found = checked(fitted("logistic"), amount=expected)
    assert (found.found, found.violation, found.passed) == ("decreasing", violation, passed)


def test_flat_dependence_passes_with_a_note() -> None:
    found = checked(fitted("dummy"), tickets="increasing")
    assert (found.found, found.violation, found.passed) == ("flat", 0.0, True)
    assert found.reason == "flat: the log-odds move by 0.0000 in all"


def test_input_that_the_model_lacks_passes_with_a_note() -> None:
    found = checked(fitted("logistic", ("amount", "plan")), tickets="increasing")
    assert (found.violation, found.passed, found.reason) == (0.0, True, "no input of this model")


@pytest.mark.parametrize("value", [3.0, np.nan])
def test_one_value_only_is_not_computable(value: float) -> None:
    columns = {**frame().columns, "tickets": np.full(len(frame()), value, np.float32)}
    found = checked(fitted("lightgbm"), columns, tickets="increasing")
    assert (found.found, found.violation, found.passed) == (None, None, None)
    assert found.reason == "fewer than two different values among the rows"


# constraints


@pytest.mark.parametrize("kind", ["lightgbm", "random_forest"])
def test_monotone_model_has_no_violation_where_the_free_one_has(kind: str) -> None:
    kept = fitted(kind, directions={"tickets": "increasing", "amount": "decreasing"}, monotone=True)
    free = fitted(kind, directions={"tickets": "increasing", "amount": "decreasing"})
    assert checked(free, tickets="increasing").violation not in {0.0, None}
    for name, direction in (("tickets", "increasing"), ("amount", "decreasing")):
        found = checked(kept, **{name: direction})
        assert (found.found, found.violation) == (direction, 0.0)
    rows = kept.encode(frame().columns)
    for low, high in ((0, 1), (1, 2), (2, 5)):  # and so in every single row, not on average only
        ends = []
        for value in (low, high):
            rows[:, TICKETS] = value
            ends.append(kept.log_odds(rows))
        assert (ends[1] >= ends[0]).all()


def test_model_without_monotone_does_not_depend_on_the_directions() -> None:
    free = fitted("lightgbm")
    declared = fitted("lightgbm", directions={"tickets": "increasing"})
    assert free.texts == declared.texts


# the rule


def test_direction_rule_goes_by_the_worst_and_names_those_above_the_limit() -> None:
    good = DirectionCheck("amount", "increasing", "increasing", 0.1, True, None)
    bad = DirectionCheck("tickets", "increasing", "decreasing", 0.7, False, None)
    unknown = DirectionCheck("noise", "increasing", None, None, None, "one value")
    rule, asks = judge(good, bad, unknown)
    assert (rule.value, rule.outcome, asks) == (0.7, "failed", True)
    assert rule.reason.startswith("tickets 0.700; judged by the figure itself")
    assert rule.power is None
    rule, asks = judge(good)
    assert (rule.value, rule.outcome, asks) == (0.1, "passed", False)
    rule, asks = judge(good, unknown)
    assert (rule.outcome, asks) == ("not computable", True)
    assert rule.reason == "not computable: noise: one value"
    rule, _ = judge()
    assert rule.reason == "not computable: no feature declares one"
