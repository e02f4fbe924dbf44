"""What the gate says of a first model on 1,000 rows with 20 features, figures left out."""

import dataclasses
import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.core import recipe
from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.documents.pages import headline
from mlops_pipeline_tests.core.evaluation import example_evaluation as example

ROWS, FEATURES = 1_000, 20
NOW = datetime(2025, 6, 1, tzinfo=UTC)
NAMES = [f"x{number:02d}" for number in range(FEATURES)]
RULES: list[dict[str, Any]] = [
    {"rule": "metric", "metric": "roc_auc", "at_least": 0.6},
    {"rule": "metric", "metric": "roc_auc", "at_least": 0.7},
    {"rule": "metric", "metric": "ece", "at_most": 0.05},
    {"rule": "train_test_gap"},
    {"rule": "better_than_naive", "metric": "roc_auc"},
    {"rule": "better_than_naive", "metric": "roc_auc", "column": "x00", "by": 0.05},
    {"rule": "not_worse_than_champion"},
    {"rule": "worst_slice", "at_least": 0.6},
    {"rule": "demographic_parity", "at_most": 0.15, "effect": "block"},
]
UNCERTAIN = (
    "; so few rows cannot tell: a truth better than the limit by # would pass in 80 of 100 such "
    "samples"
)
FIRST = "; the figure clears it, which is enough for a first model"


def use_case() -> UseCase:
    columns = {
        name: {"aggregate": "mean", "of": "amount", "window_days": 30 + number}
        for number, name in enumerate(NAMES)
    }
    return example.use_case(
        RULES,
        views={"billing": {"source": "bills", "columns": columns}},
        split={"method": "random"},
        training={"candidates": {"linear": {"kind": "logistic"}}, "calibration": "sigmoid"},
        evaluation={"slices": ["x01"], "min_slice_rows": 30},
        fairness={"min_group_rows": 30, "mitigation": {"methods": []}},
    )


def frame() -> LabelledFrame:
    dice = np.random.default_rng(5)
    values = dice.normal(size=(ROWS, FEATURES)).astype(np.float32)
    logit = -1.4 + values[:, :4] @ [0.8, 0.5, -0.4, 0.3]
    label = (dice.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(np.int8)
    times = np.zeros(ROWS, "datetime64[us]")
    return LabelledFrame(
        columns={name: values[:, number] for number, name in enumerate(NAMES)},
        protected={
            "region": dice.choice(["north", "south"], ROWS).astype(object),
            "gender": dice.choice(["female", "male"], ROWS).astype(object),
        },
        entity=np.arange(ROWS),
        as_of=times,
        known_at=times,
        label=label,
    )


def examined(has_champion: bool) -> recipe.Examined:
    case, rows = use_case(), frame()
    parts, training = recipe.train_candidates(
        case, rows, threads=1, stopwatch=lambda: 0.0, report=lambda _: None
    )
    facts = recipe.training_facts(case, rows, parts, training, fingerprint="0", as_of=NOW)
    model, test = training.chosen.model, rows.take(parts.test)
    champion = None
    if has_champion:  # the same model, trained before any label was known
        test = dataclasses.replace(test, known_at=test.known_at + np.timedelta64(40_000, "D"))
        champion = recipe.Champion(1, datetime(2025, 1, 1, tzinfo=UTC), model)
    return recipe.evaluate(case, facts, model, recipe.Examination(test, champion, (), NOW))


@pytest.fixture(scope="module")
def first() -> recipe.Examined:
    return examined(has_champion=False)


def without_figures(text: str) -> str:
    return re.sub(r"[+-]?\d+\.\d+", "#", text)


def test_first_model_passes_with_notes_where_150_rows_cannot_tell(first: recipe.Examined) -> None:
    assert first.evaluation.rows == 150
    said = [(rule.outcome, rule.effect, without_figures(rule.reason)) for rule in first.gate.rules]
    bounds = "(bounds # and #)"
    assert said == [
        ("passed", "block", f"roc_auc is # {bounds} on 150 test rows"),
        ("uncertain", "warn", f"roc_auc is # {bounds} on 150 test rows{UNCERTAIN}{FIRST}"),
        (
            "uncertain",
            "warn",
            f"ece is # {bounds} on 150 test rows, where calibrated scores give up to # by chance"
            + UNCERTAIN
            + FIRST,
        ),
        (
            "uncertain",
            "warn",
            f"# on train, # on 150 test rows: a gap of # {bounds}{UNCERTAIN}{FIRST}",
        ),
        ("passed", "block", f"a gain of # {bounds} over the base rate on 150 test rows"),
        ("uncertain", "block", f"a gain of # {bounds} over x00 alone on 150 test rows{UNCERTAIN}"),
        ("passed", "block", "there is no champion yet"),
        (
            "uncertain",
            "warn",
            f"roc_auc of the worst slice is # {bounds} in x01 = (#, #] (37 rows), one of 4 "
            f"slices{UNCERTAIN}{FIRST}",
        ),
        (
            "uncertain",
            "warn",
            f"region # {bounds}, which so few rows cannot tell (groups that are alike differ by up "
            f"to # in them), gender # {bounds}{FIRST}",
        ),
    ]


def test_what_nobody_can_tell_and_the_figure_does_not_clear_goes_to_a_person(
    first: recipe.Examined,
) -> None:
    assert (first.gate.passed, first.gate.needs_review) == (True, True)
    sentence = headline(first.gate, use_case()).sentence
    assert sentence.endswith("“roc_auc better than x00 alone by 0.05” did not pass.")


def test_comparison_with_a_champion_on_150_rows_is_not_computable() -> None:
    rule = examined(has_champion=True).gate.rules[6]
    assert (rule.outcome, rule.asks) == ("not computable", True)
    assert rule.reason == (
        "not computable: only 150 test rows with both classes are unknown to the champion "
        "(at least 200)"
    )
