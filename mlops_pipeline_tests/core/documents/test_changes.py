"""The changelog of a version against the champion that it was compared with."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

from mlops_pipeline.core.documents.pages import MINUS, Recorded, changes
from mlops_pipeline.core.evaluation.evaluation import ChampionComparison
from mlops_pipeline_tests.core.documents.card_example import evaluation, figure, training
from mlops_pipeline_tests.core.evaluation.example_evaluation import mitigated


def recorded(version: int, **changes_of: Any) -> Recorded:
    given: dict[str, Any] = {
        "version": version,
        "config": {"training": {"seed": 7}, "gates": [1, 2]},
        "inputs": frozenset({"plan", "amount"}),
        "training": training(),
        "evaluation": evaluation(),
    }
    return Recorded(**{**given, **changes_of})


def test_first_version_has_nothing_before_it() -> None:
    assert changes(recorded(1), None) == ["This is the first version."]


def test_equal_versions_differ_in_nothing() -> None:
    said = changes(recorded(2), recorded(1))
    assert said[0] == "Compared with version 1."
    assert "Same kind of model: lightgbm." in said
    assert "Fairness: no mitigation, as before." in said
    assert "Same inputs." in said
    assert said[-1] == "Same configuration."


def test_every_difference_is_told() -> None:
    differences = {
        "roc_auc": figure(0.0123),
        "brier": figure(-0.002),
        "log_loss": figure(-1e-6),
    }
    measured = evaluation(
        metrics={"roc_auc": figure(0.825)},
        champion=ChampionComparison(1, 2_480, differences, None),
        mitigation=dataclasses.replace(mitigated(), chosen="group_thresholds 2 of 3"),
    )
    newer = training(as_of=datetime(2025, 2, 1, tzinfo=UTC), chosen="floor")
    config = {
        "training": {"seed": 8, "costs": {"false_positive": 1}},
        "gates": [1, 2],
        "protected": {"region": {"of": "region"}},
        "sources": {"bills": {"columns": {"gender": {"type": "string"}}}},
    }
    new = recorded(
        2,
        config=config,
        inputs=frozenset({"plan", "tenure"}),
        training=newer,
        evaluation=measured,
    )
    said = changes(new, recorded(1))
    for text in [
        "Different kind of model: dummy instead of lightgbm.",
        "Fairness: group_thresholds 2 of 3 instead of no mitigation: the two use different "
        "weights or thresholds.",
        "Data as of 2025-02-01 instead of 2025-01-01.",
        "ROC AUC: 0.825, against 0.812 of version 1; each on its own test part.",
        f"On 2,480 cases that neither had seen, it differs by: ROC AUC +0.0123, log loss 0.0000, "
        f"Brier {MINUS}0.0020.",
        "Added inputs: tenure.",
        "Removed inputs: amount.",
        "Changed configuration keys: protected, sources.bills.columns, "
        "training.costs.false_positive, training.seed.",
    ]:
        assert text in said, text


def test_comparison_that_is_not_computable_says_why() -> None:
    found = ChampionComparison(1, 0, {}, "only 0 test rows")
    said = changes(recorded(2, evaluation=evaluation(champion=found)), recorded(1))
    assert "The two cannot be compared on the same cases: only 0 test rows." in said


def test_comparison_with_another_champion_is_not_shown() -> None:
    found = ChampionComparison(9, 500, {"roc_auc": figure(0.1)}, None)
    said = changes(recorded(2, evaluation=evaluation(champion=found)), recorded(1))
    assert not any("cases" in text for text in said)


def test_many_changed_keys_are_counted() -> None:
    config = {f"key{number:02}": 1 for number in range(25)}
    said = changes(recorded(2, config=config), recorded(1, config={"key00": 2}))
    assert said[-1].endswith("key18, key19 and 5 more.")
