"""Mitigation on a small world where the south is riskier, as an input half shows."""

import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame, Parts, split_frame
from mlops_pipeline.core.evaluation.outcomes import Gate, RuleResult
from mlops_pipeline.core.fairness.variants import Mitigated, selection_difference
from mlops_pipeline.core.metrics.metrics import Outcome
from mlops_pipeline.core.mitigation.methods import (
    Candidate,
    MitigationContext,
    MitigationRecipe,
    MitigationTrigger,
    method_of,
)
from mlops_pipeline.core.mitigation.mitigation import (
    mitigate,
    mitigation_trigger,
    refit_variant,
)
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.core.modelling.train import train
from mlops_pipeline.spec.kinds import MITIGATIONS
from mlops_pipeline.spec.rules import Effect
from mlops_pipeline_tests.core.evaluation.example_evaluation import use_case

ROWS = 16_000
PARITY: dict[str, Any] = {"rule": "demographic_parity", "at_most": 0.10, "effect": "block"}
AUC: dict[str, Any] = {"rule": "metric", "metric": "roc_auc", "at_least": 0.5}
NEED = MitigationTrigger("because", ("region",), {"region": 0.1, "gender": 0.1})
TREES: dict[str, Any] = {
    "kind": "lightgbm",
    "trees": 30,
    "leaves": 4,
    "learning_rate": 0.2,
    "early_stopping_rounds": 0,
}
LOGISTIC: dict[str, Any] = {"kind": "logistic", "c": 1.0}


def biased(candidate: dict[str, Any] = LOGISTIC, **changes: Any) -> UseCase:
    training = {
        "candidates": {"only": candidate},
        "calibration": "sigmoid",
        "costs": {"false_positive": 1.0, "false_negative": 4.0},
    }
    settings = {"training": training, "split": {"method": "random"}, **changes}
    return use_case([AUC, PARITY], **settings)


@cache
def world() -> LabelledFrame:
    dice = np.random.default_rng(11)
    south = dice.random(ROWS) < 0.3
    network, habit = dice.normal(south * 1.5, 1.0), dice.normal(size=ROWS)
    risk = 1 / (1 + np.exp(-(-2.8 + 0.8 * network + 0.9 * habit)))
    moments = np.full(ROWS, np.datetime64("2025-01-01", "us"))
    plan = np.where(network > 1.2, "fast", "basic").astype(object)
    return LabelledFrame(
        columns={"amount_mean_90d": habit.astype(np.float32), "plan": plan},
        protected={
            "region": np.where(south, "south", "north").astype(object),
            "gender": np.array(["female", "male"], dtype=object)[np.arange(ROWS) % 2],
        },
        entity=np.arange(ROWS),
        as_of=moments,
        known_at=moments,
        label=(dice.random(ROWS) < risk).astype(np.int8),
    )


@cache
def base(kind: str = "logistic") -> tuple[ScoringModel, Parts]:
    case = biased(TREES if kind == "lightgbm" else LOGISTIC)
    parts = split_frame(case, world())
    return train(case, world(), parts, threads=1, stopwatch=lambda: 0.0).chosen.model, parts


def mitigated(
    case: UseCase, need: MitigationTrigger = NEED, kind: str = "logistic"
) -> tuple[Mitigated, Candidate | None]:
    model, parts = base(kind)
    context = MitigationContext(case, model, world(), parts, need, threads=1)
    return mitigate(context, importance={})


def fairness(**mitigation: Any) -> dict[str, Any]:
    return {"fairness": {"mitigation": {"grid_size": 2, "max_loss": 1.0, **mitigation}}}


def difference(model: ScoringModel, attribute: str = "region") -> float:
    """On the test part, which no method has seen."""
    test = world().take(base()[1].test)
    found = selection_difference(
        model.decide(test.everything).decision, test.protected[attribute], 100
    )
    assert found is not None
    return found


# when it is needed


def gate(*results: tuple[str, Effect, Outcome], excepted: bool = False) -> Gate:
    rules = [
        RuleResult(
            *(name, 0.1, 0.05, outcome, effect, "why"),
            failing=() if outcome == "passed" else ("region",),
            excepted=excepted,
        )
        for name, effect, outcome in results
    ]
    return Gate(False, False, tuple(rules))


FAILED: tuple[tuple[str, Effect, Outcome], ...] = (
    ("auc", "block", "passed"),
    ("parity", "block", "failed"),
)


def test_need_names_the_attributes_above_and_the_limits_of_all() -> None:
    need = mitigation_trigger(biased(), gate(*FAILED))
    assert need == MitigationTrigger("parity: why", ("region",), {"region": 0.1, "gender": 0.1})
    assert need.attributes == ("region",)


def test_need_of_an_intersection_mitigates_its_parts() -> None:
    need = MitigationTrigger("why", ("gender x region", "region"), {"gender x region": 0.1})
    assert need.attributes == ("gender", "region")


@pytest.mark.parametrize(
    "results",
    [
        (("auc", "block", "failed"), ("parity", "block", "failed")),  # not on fairness only
        (("auc", "block", "passed"), ("parity", "block", "passed")),
        (
            ("auc", "block", "passed"),
            ("parity", "block", "not computable"),
        ),  # not computable: a person looks
        (("auc", "block", "passed"), ("parity", "warn", "failed")),
    ],
)
def test_need_is_none_unless_blocking_parity_rules_alone_failed(results: Any) -> None:
    assert mitigation_trigger(biased(), gate(*results)) is None


def test_need_is_none_without_methods_and_under_an_exception() -> None:
    assert mitigation_trigger(biased(**fairness(methods=[])), gate(*FAILED)) is None
    assert mitigation_trigger(biased(), gate(*FAILED, excepted=True)) is None


# what comes of it


@pytest.mark.parametrize("kind", ["logistic", "lightgbm"])
def test_mitigate_every_method_lowers_the_disparity_and_one_is_chosen(kind: str) -> None:
    case = biased(TREES if kind == "lightgbm" else LOGISTIC, **fairness())
    outcome, chosen = mitigated(case, kind=kind)
    before = outcome.variants[0]
    assert (before.name, before.method, before.passes) == ("base", "none", False)
    by_method = {item.method: item for item in outcome.variants}
    assert set(by_method) == {"none", "reweighing", "group_thresholds", "grid_search"}
    for item in outcome.variants[1:]:
        assert item.disparity is not None
        assert before.disparity is not None
        assert item.disparity < before.disparity, item.name
    assert chosen is not None
    assert chosen.name == outcome.chosen
    picked = next(item for item in outcome.variants if item.chosen)
    fair = [item for item in outcome.variants if item.passes]
    costs = [item.figures["expected_cost"] for item in fair]
    assert picked.figures["expected_cost"] == min(cost for cost in costs if cost is not None)
    assert all((value or 0) <= 0.07 for value in picked.disparities.values())
    assert difference(base(kind)[0]) > 0.2
    assert difference(chosen.model) < 0.1
    assert difference(chosen.model, "gender") < 0.05


@pytest.mark.parametrize("kind", ["logistic", "lightgbm"])
@pytest.mark.parametrize("method", ["reweighing", "group_thresholds", "grid_search"])
def test_variants_have_the_same_bytes_on_three_threads_and_again_on_a_refit(
    kind: str, method: str
) -> None:
    case = biased(TREES if kind == "lightgbm" else LOGISTIC, **fairness(grid_size=1))
    model, parts = base(kind)
    found = []
    for threads in (1, 3):
        context = MitigationContext(case, model, world(), parts, NEED, threads=threads)
        unchanged = context.calibrated("base", model, {}, MitigationRecipe("none", context.groups))
        found.append(next(iter(method_of(method).variants(context, unchanged, {"region": 0.07}))))
    first, again = found
    train_rows = world().take(parts.train)
    refitted = refit_variant(case, train_rows, first.model, first.recipe, threads=3)
    for other in (again.model, refitted):
        assert other.files["model.json"] == first.model.files["model.json"]
        assert other.texts == first.model.texts


@pytest.mark.parametrize("allowed", ["allowed", "forbidden"])
def test_group_thresholds_need_the_attribute_only_where_it_is_allowed(allowed: str) -> None:
    settings = fairness(methods=["group_thresholds"])
    settings["fairness"]["attribute_at_decision"] = allowed
    outcome, chosen = mitigated(biased(**settings))
    assert chosen is not None
    model = ScoringModel(json.loads(chosen.model.files["model.json"]), chosen.model.texts)
    test = world().take(base()[1].test)
    if allowed == "forbidden":
        assert model.attributes == ()
        assert "south" not in model.files["model.json"]
        assert "region" not in model.files["model.json"]
        decided = model.decide(test.columns)
    else:
        assert model.attributes == ("region",)
        assert sorted(set(model.decide(test.everything).threshold)) == sorted(
            model.document["thresholds"]["limits"]
        )
        nobody = {**test.columns, "region": np.full(len(test), None)}
        assert set(model.decide(nobody).threshold) == {0.2}
        decided = model.decide(test.everything)
    assert [item.uses_attribute for item in outcome.variants[1:]] == [allowed == "allowed"] * 3
    assert np.array_equal(decided.probability, base()[0].predict(test.columns))
    assert (decided.decision == (decided.probability >= decided.threshold)).all()


def test_mitigate_two_attributes_are_held_together() -> None:
    need = MitigationTrigger("because", ("region", "gender"), {"region": 0.1, "gender": 0.1})
    outcome, chosen = mitigated(biased(**fairness(methods=["group_thresholds"])), need)
    assert chosen is not None
    assert len(chosen.recipe.groups) == 4
    assert all((value or 0) <= 0.07 for value in outcome.variants[-1].disparities.values())


def test_mitigate_an_intersection_is_held_to_its_limit() -> None:
    need = MitigationTrigger(
        "because", ("gender x region",), {"gender x region": 0.15, "region": 0.1}
    )
    outcome, chosen = mitigated(biased(**fairness(methods=["group_thresholds"])), need)
    assert chosen is not None
    assert len(chosen.recipe.groups) == 4
    assert set(outcome.variants[0].disparities) == {"gender x region", "region"}
    assert outcome.variants[0].disparity == outcome.variants[0].disparities["gender x region"]


def test_mitigate_that_costs_too_much_chooses_none_and_says_which_was_best() -> None:
    outcome, chosen = mitigated(biased(**fairness(methods=["group_thresholds"], max_loss=0.0)))
    assert (chosen, outcome.chosen) == (None, None)
    assert "is the best within the limits, but loses" in outcome.reason


def test_mitigate_with_one_group_has_no_variant() -> None:
    need = MitigationTrigger("because", ("plan_of_nobody",), {"plan_of_nobody": 0.05})
    frame = world()
    alone = replace(frame, protected={"plan_of_nobody": np.full(ROWS, "a", dtype=object)})
    model, parts = base()
    context = MitigationContext(biased(), model, alone, parts, need, threads=1)
    outcome, chosen = mitigate(context, importance={})
    assert chosen is None
    assert outcome.reason == "there is no variant to choose from"


def test_every_method_of_the_configuration_has_its_file() -> None:
    for name in MITIGATIONS:
        method = method_of(name)
        assert callable(method.variants)
        assert callable(method.refit)
