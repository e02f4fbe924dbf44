"""The model card: it says what the version is, how good, and what its gate said."""

from dataclasses import replace

import pytest

from mlops_pipeline.config import UseCase, load_use_case
from mlops_pipeline.governance.model_card import CardFacts, render_card
from mlops_pipeline.stores.settings import PACKAGE_PARENT
from mlops_pipeline.training.gates import Gate, RuleResult
from mlops_pipeline.training.metrics import Estimate

FACTS = CardFacts(
    version=3,
    kind="lightgbm",
    as_of="2025-01-01T00:00:00+00:00",
    parts={
        "train": {"periods": ["2023-04-01", "2023-12-01"], "rows": 12_345, "positive_rate": 0.081},
        "test": {"periods": ["2024-09-01"], "rows": 1_000, "positive_rate": 0.08},
    },
    data={"accounts": {"version": 2, "rows": 20_000, "quarantined": 3}},
    metrics={
        "roc_auc": Estimate(0.81234, low=0.8, high=0.82),
        "recall": Estimate(None, reason="no positive decision"),
    },
    gate=Gate(
        True,
        True,
        (
            RuleResult("auc at least 0.7", 0.81, 0.7, True, "block", "0.81 >= 0.7"),
            RuleResult("better by 0.02", None, 0.02, None, "review", "too few rows"),
            RuleResult("parity", 0.2, 0.05, False, "warn", "region differs"),
        ),
    ),
    decision="A score of at least 0.2000 is a positive decision (from the costs).",
    limitations=("usage missing: ROC AUC 0.650 instead of 0.812",),
    refit_rows=20_000,
    git_commit="0123abc",
    fingerprint="feedbeef",
)


@pytest.fixture(scope="module")
def churn() -> UseCase:
    return load_use_case(PACKAGE_PARENT / "configs" / "churn.yaml")


def test_card_tells_origin_use_data_figures_gate_and_limits(churn: UseCase) -> None:
    card = render_card(churn, FACTS)
    for text in [
        "# churn, version 3",
        churn.owner,
        churn.intended_use,
        f"- {churn.out_of_scope[0]}",
        "| accounts | 2 | 20,000 | 3 |",
        "| train | 2023-04-01 to 2023-12-01 | 12,345 | 8.1% |",
        "| test | 2024-09-01 | 1,000 | 8.0% |",
        "refitted on 20,000 labelled rows.",
        "| roc_auc | 0.8123 | 0.8000 to 0.8200 |",
        "| recall | not computable: no positive decision |  |",
        "A score of at least 0.2000 is a positive decision",
        "| auc at least 0.7 | block | passed | 0.81 >= 0.7 |",
        "| better by 0.02 | review | not computable | too few rows |",
        "| parity | warn | failed | region differs |",
        "- usage missing: ROC AUC 0.650 instead of 0.812",
        "Commit `0123abc`, run fingerprint `feedbeef`.",
    ]:
        assert text in card, text


def test_card_of_the_evaluated_model_says_nothing_of_a_refit(churn: UseCase) -> None:
    assert "refitted" not in render_card(churn, replace(FACTS, refit_rows=None))


def test_card_without_limitations_has_no_empty_section(churn: UseCase) -> None:
    assert "Limitations" not in render_card(churn, replace(FACTS, limitations=()))


def test_text_with_a_bar_does_not_break_the_table(churn: UseCase) -> None:
    rules = (RuleResult("a|b", 1.0, 1.0, True, "warn", "x | y"),)
    card = render_card(churn, replace(FACTS, gate=Gate(True, False, rules)))
    assert r"| a\|b | warn | passed | x \| y |" in card
