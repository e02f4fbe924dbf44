"""The choice among mitigated variants, from figures alone."""

import dataclasses

import pytest

from mlops_pipeline.config.modelling import Mitigation
from mlops_pipeline.core.fairness.variants import (
    Mitigated,
    Variant,
    choose_variant,
    missed_targets,
)
from mlops_pipeline.core.metrics.metrics import Estimate

WITHIN = {"region": 0.035, "gender": 0.035}


def variant(name: str, cost: float | None, region: float | None, gender: float = 0.01) -> Variant:
    figures = {"expected_cost": cost, "roc_auc": None if cost is None else 1 - cost}
    return Variant(name, "reweighing", False, figures, {"region": region, "gender": gender})


BASE = variant("base", 0.20, 0.09)


def choose(*variants: Variant, **rule: object) -> tuple[str | None, str]:
    settings = Mitigation.model_validate(rule)
    judged, chosen, reason = choose_variant([BASE, *variants], WITHIN, ["region"], settings)
    assert [item.name for item in judged if item.chosen] == ([chosen] if chosen else [])
    return chosen, reason


def test_choose_variant_cheapest_within_the_limits() -> None:
    chosen, reason = choose(
        variant("a", 0.201, 0.036), variant("b", 0.207, 0.02), variant("c", 0.206, 0.034)
    )
    assert chosen == "c"
    assert reason == (
        "c is the best of 2 variants within the limits: expected_cost 0.2060 against 0.2000"
    )


def test_choose_variant_of_equal_cost_is_the_least_disparate() -> None:
    assert choose(variant("a", 0.205, 0.03), variant("b", 0.205, 0.02))[0] == "b"


def test_choose_variant_that_breaks_another_attribute_is_out() -> None:
    chosen, reason = choose(variant("a", 0.205, 0.01, gender=0.05))
    assert chosen is None
    assert reason == (
        "none of the variants is within the limits; a comes closest: gender 0.050 above 0.035"
    )


@pytest.mark.parametrize(("cost", "expected"), [(0.22, "a"), (0.2201, None)])
def test_choose_variant_loses_at_most_max_loss(cost: float, expected: str | None) -> None:
    chosen, reason = choose(variant("a", cost, 0.01), max_loss=0.1)
    assert chosen == expected
    if expected is None:
        assert "loses 10.1%, above 10.0%" in reason or "loses 10.0%, above 10.0%" in reason


def test_choose_variant_prefers_a_greater_metric_where_greater_is_better() -> None:
    variants = (variant("a", 0.21, 0.01), variant("b", 0.205, 0.01))
    assert choose(*variants, prefer="roc_auc")[0] == "b"


def test_choose_variant_not_computable_disparity_does_not_pass() -> None:
    chosen, reason = choose(variant("a", 0.2, None))
    assert chosen is None
    assert reason.endswith("a comes closest: region is not computable")


def test_choose_variant_without_variants_says_so() -> None:
    assert choose() == (None, "there is no variant to choose from")


def test_choose_variant_says_of_each_why() -> None:
    judged, _, _ = choose_variant([BASE, variant("a", 0.2, 0.01)], WITHIN, ["region"], Mitigation())
    assert [item.reason for item in judged] == ["region 0.090 above 0.035", "within the limits"]
    assert [item.disparity for item in judged] == [0.09, 0.01]


@pytest.mark.parametrize(
    ("method", "low", "words"),
    [
        ("group_thresholds", 0.05, "; on the test part region is 0.090 (0.050 to 0.130) where its "
         "thresholds aim at 0.035: groups too small for it"),
        ("group_thresholds", 0.03, ""),  # the aim is within the interval
        ("reweighing", 0.05, ""),  # has no thresholds
    ],
)  # fmt: skip
def test_thresholds_whose_aim_the_test_part_excludes_had_too_small_groups(
    method: str, low: float, words: str
) -> None:
    chosen = dataclasses.replace(variant("a", 0.2, 0.01), method=method, chosen=True)
    outcome = Mitigated("", ("region",), 0.05, WITHIN, WITHIN, "log_loss", (chosen,), "a", "")
    found = {"region": Estimate(0.09, low, 0.13), "gender": Estimate(None, reason="few rows")}
    assert missed_targets(outcome, found) == words
