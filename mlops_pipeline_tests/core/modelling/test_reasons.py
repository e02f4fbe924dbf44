import copy
from typing import Any

import numpy as np
import pytest

from mlops_pipeline.core.modelling.explanations import Reason, Wording, give_reasons, word_inputs
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline_tests.core.evaluation import example_evaluation as example
from mlops_pipeline_tests.core.modelling.example_models import VIEW_COLUMNS, fitted, frame

WEIGHTS = {"amount": -2.0, "tickets": 1.0, "noise": 1.0}
WORDING = {
    "amount": Wording("Bill (EUR)", "float64", 2),
    "tickets": Wording("Tickets", "int64", 4),
    "noise": Wording("Noise", "float64", 4),
}


def linear(weights: dict[str, float] = WEIGHTS) -> ScoringModel:
    """A linear model whose contribution is weight x value: means 0, scales 1."""
    number = {"kind": "number", "log": False, "mean": 0.0, "scale": 1.0, "average": 0.0}
    document = {
        "kind": "logistic",
        "inputs": [{"name": name, "type": "number"} for name in weights],
        "terms": [{**number, "input": index} for index in range(len(weights))],
        "coefficients": list(weights.values()),
        "intercept": 0.0,
    }
    return ScoringModel(document, None)


def said(decision: bool, count: int = 3, **values: float) -> list[Reason]:
    columns = {name: np.array([values[name]], np.float32) for name in WEIGHTS}
    (found,) = give_reasons(linear(), columns, np.array([decision]), WORDING, count)
    return found


def test_positive_decision_is_told_by_what_raises_the_score() -> None:
    assert said(True, amount=-0.25, tickets=3, noise=-1) == [
        Reason("tickets", "Tickets: 3 (raises the score)", 3.0),
        Reason("amount", "Bill (EUR): -0.25 (raises the score)", 0.5),
    ]


def test_negative_decision_is_told_by_what_lowers_the_score() -> None:
    assert said(False, amount=0.5, tickets=3, noise=-2) == [
        Reason("noise", "Noise: -2 (lowers the score)", -2.0),
        Reason("amount", "Bill (EUR): 0.5 (lowers the score)", -1.0),
    ]


def test_no_more_than_count_are_given_and_ties_go_by_the_order_of_inputs() -> None:
    assert [item.feature for item in said(True, amount=-1, tickets=2, noise=2)] == [
        "amount",
        "tickets",
        "noise",
    ]
    assert [item.feature for item in said(True, 1, amount=-1, tickets=2, noise=2)] == ["amount"]


def test_nothing_that_pushes_is_no_reason() -> None:
    assert said(True, amount=0, tickets=-1, noise=0) == []


@pytest.mark.parametrize(
    ("value", "words", "text"),
    [
        (np.nan, Wording("It", "float64", 2), "not known"),
        (None, Wording("It", "string", 0), "not known"),
        ("plus", Wording("It", "string", 0), "plus"),
        (1.0, Wording("It", "boolean", 0), "yes"),
        (0.0, Wording("It", "boolean", 0), "no"),
        (np.float32(0.1), Wording("It", "float64", 6), "0.1"),
        (np.float32(1234567.0), Wording("It", "int64", 4), "1,234,567"),
        (np.float32(1234.567), Wording("It", "float64", 4), "1,234.57"),
        (np.float32(-0.0001), Wording("It", "float64", 2), "0"),
        (100.0, Wording("It", "float64", 0), "100"),
    ],
)
def test_values_are_worded(value: Any, words: Wording, text: str) -> None:
    model = copy.deepcopy(fitted("logistic", ("plan",)))
    if words.dtype != "string":
        model = linear({"x": 1.0})
        model.document["terms"][0] |= {"kind": "missing", "average": 1.5}  # every row differs
        model.document["coefficients"] = [-1.0]
    name = model.input_names[0]
    columns = {name: np.array([value], object if words.dtype == "string" else np.float32)}
    both = [
        give_reasons(model, columns, np.array([decision]), {name: words}, 1)
        for decision in (True, False)
    ]
    (reason,) = [item for found in both for row in found for item in row]
    verb = "raises" if reason.contribution > 0 else "lowers"
    assert reason.text == f"It: {text} ({verb} the score)"


@pytest.mark.parametrize("kind", ["lightgbm", "random_forest", "logistic", "dummy"])
def test_one_row_alone_has_the_reasons_it_has_among_many(kind: str) -> None:
    model, columns = fitted(kind), frame().columns
    wording = word_inputs(example.use_case(views=_views(VIEW_COLUMNS), evaluation={}))
    decisions = model.predict(columns) >= 0.5
    many = give_reasons(model, columns, decisions, wording, 3)
    for row in (0, 11, 12):
        alone = {name: values[row : row + 1] for name, values in columns.items()}
        assert give_reasons(model, alone, decisions[row : row + 1], wording, 3) == [many[row]]
    signs = {
        (bool(decision), item.contribution > 0)
        for decision, row in zip(decisions, many, strict=True)
        for item in row
    }
    assert signs == (set() if kind == "dummy" else {(True, True), (False, False)})


# what is never said


def test_words_are_the_description_or_the_name() -> None:
    wording = word_inputs(example.use_case(views=_views(VIEW_COLUMNS), evaluation={}))
    assert wording["amount"] == Wording("Bill (EUR)", "float64", 2)
    assert wording["tickets"] == Wording("Tickets", "int64", 4)


def test_protected_and_personal_inputs_are_never_named() -> None:
    columns = {
        **VIEW_COLUMNS,
        "place": {"aggregate": "last", "of": "region", "dtype": "string"},
        "southern_bills": {"aggregate": "count", "where": "region = 'south'"},
        "bills": {"aggregate": "count"},
    }
    case = example.use_case(
        views=_views(columns),
        derived={
            "southern_share": {"expression": "southern_bills / bills"},
            "twice": {"expression": "2 * southern_share"},
            "calm": {"expression": "amount / nullif(bills, 0)"},
        },
        protected={"region": {"source": "bills", "of": "region", "as_input": True}},
        evaluation={},
    )
    named = set(word_inputs(case))
    assert named == {*VIEW_COLUMNS, "bills", "calm"}


def test_strongest_input_that_may_not_be_named_gives_way() -> None:
    model = linear({"region": 5.0, "tickets": 1.0})
    columns = {name: np.array([1.0], np.float32) for name in ("region", "tickets")}
    (found,) = give_reasons(model, columns, np.array([True]), WORDING, 3)
    assert [item.feature for item in found] == ["tickets"]


def _views(columns: Any) -> dict[str, Any]:
    return {"billing": {"source": "bills", "columns": columns}}
