"""Audits of groups: calibration, labels that are not known, attributes together, and parity."""

import dataclasses

import fairlearn.metrics as oracle
import numpy as np
import pandas as pd
import pytest

from mlops_pipeline.config.modelling import Fairness
from mlops_pipeline.core.fairness.audit import GroupAudit, audit_attributes
from mlops_pipeline.core.fairness.parity import evaluate_parity
from mlops_pipeline.core.metrics.metrics import Estimate, point_metrics
from mlops_pipeline_tests.core.audit.audit_example import D, G, Y, audit, rates_of, scored, width


def test_audit_groups_calibration_matches_hand_computed() -> None:
    found = audit(scores=[0.9, 0.5, 0.5, 0.1, 0.2, 0.2, 0.2, 0.2]).groups[0].calibration
    assert found is not None
    assert found.mean_score.value == 0.5
    assert found.observed_rate.value == 0.5
    assert found.difference.value == pytest.approx(0.0)
    assert found.ece.value == 0.0  # one bin of so few rows, whose gaps cancel


def test_audit_groups_ece_is_that_of_the_metrics_module() -> None:
    inputs = scored()
    found = audit(**inputs)
    for rates in found.groups:
        mine = (inputs["groups"] == rates.group).to_numpy()
        ece = point_metrics(inputs["y"][mine], inputs["scores"][mine], metrics=["ece"])["ece"]
        assert rates.calibration is not None
        assert ece.value is not None
        assert rates.calibration.ece.value == pytest.approx(ece.value, abs=1e-12)


def test_audit_groups_scores_too_low_in_one_group_are_found_there_only() -> None:
    found = audit(**scored())
    north, south = (rates_of(found, name).calibration for name in ("north", "south"))
    assert north is not None
    assert south is not None
    assert north.difference.low is not None
    assert north.difference.high is not None
    assert north.difference.low < 0 < north.difference.high
    assert south.difference.low is not None
    assert south.difference.low > 0.05
    normal = 2 * 1.96 * np.sqrt(0.22 / 2_000)  # sd of y - p is about sqrt(0.22)
    assert width(south.difference) == pytest.approx(normal, rel=0.25)


def test_audit_groups_without_scores_has_no_calibration() -> None:
    assert audit().groups[0].calibration is None


def test_audit_groups_unknown_labels_count_for_selection_only() -> None:
    inputs = scored()
    known = np.arange(4_000) < 3_000
    part = {name: column[known] for name, column in inputs.items()}
    found = audit(**{**inputs, "y": np.where(known, inputs["y"], 7)}, known=known)
    of_known, of_all = audit(**part), audit(**inputs)
    for mine, labelled, every in zip(found.groups, of_known.groups, of_all.groups, strict=True):
        assert (mine.rows, mine.labelled) == (every.rows, labelled.rows)
        assert mine.positives == labelled.positives
        assert mine.selection_rate.value == every.selection_rate.value
        for name in ("tpr", "fpr", "precision"):
            assert getattr(mine, name).value == getattr(labelled, name).value
        assert mine.calibration == labelled.calibration
    selected = found.demographic_parity_difference.value
    assert selected == of_all.demographic_parity_difference.value
    odds = found.equalized_odds_difference.value
    assert odds == pytest.approx(of_known.equalized_odds_difference.value)


def test_audit_groups_no_label_known_gives_selection_rates_and_reasons() -> None:
    found = audit(known=[False] * 8, scores=[0.5] * 8)
    assert found.demographic_parity_difference.value == 0.5
    lacking = "0 groups with enough labelled rows, a disparity needs 2"
    assert found.equalized_odds_difference == Estimate(None, reason=lacking)
    rates = rates_of(found, "a")
    assert rates.tpr == Estimate(None, reason="0 labelled rows, fewer than 1")
    assert rates.positives is None
    assert rates.calibration is not None
    assert rates.calibration.ece.value is None


def test_audit_attributes_intersections_are_audits_of_the_pair() -> None:
    inputs = scored()
    gender = np.where(np.arange(4_000) % 3 == 0, "female", "male").astype(object)
    gender[:5] = None
    protected = {"gender": gender, "region": inputs["groups"].to_numpy(object)}
    audits = audit_attributes(
        Fairness(), protected, inputs["y"], inputs["decisions"], scores=inputs["scores"]
    )
    assert [item.attribute for item in audits] == ["gender", "region", "gender x region"]
    both = pd.DataFrame(protected).dropna()
    expected = oracle.demographic_parity_difference(
        inputs["y"][5:], inputs["decisions"][5:].astype(int), sensitive_features=both
    )
    assert audits[2].demographic_parity_difference.value == pytest.approx(expected)
    names = [f"{one} x {two}" for one in ("female", "male") for two in ("north", "south")]
    assert [rates.group for rates in audits[2].groups] == ["(missing)", *names]
    least, most = audits[2].extremes or (None, None)
    assert least is not None
    assert most is not None
    spread = (most.selection_rate.value or 0) - (least.selection_rate.value or 0)
    assert spread == pytest.approx(expected)


def test_audit_attributes_without_intersections_audits_each_attribute() -> None:
    audits = audit_attributes(
        Fairness(intersections=False, min_group_rows=1), {"a": G, "b": G}, Y, D
    )
    assert [item.attribute for item in audits] == ["a", "b"]


def parity(**differences: float | None) -> list[GroupAudit]:
    found = audit()
    return [
        dataclasses.replace(
            found,
            attribute=name.replace("_x_", " x "),
            demographic_parity_difference=(
                Estimate(value, lower=value - 0.005, upper=value + 0.005)
                if value
                else Estimate(None, reason="few rows")
            ),
        )
        for name, value in differences.items()
    ]


def test_evaluate_parity_names_every_attribute_above_the_limit() -> None:
    found = evaluate_parity(parity(age=0.06, region=0.2, gender=0.05), 0.05)
    assert (found.outcome, found.value, found.above) == ("failed", 0.2, ("region", "age"))
    assert found.reason == (
        "region 0.200 (bounds 0.195 and 0.205), age 0.060 (bounds 0.055 and 0.065), "
        "gender 0.050 (bounds 0.045 and 0.055), which so few rows cannot tell"
    )


def test_one_of_several_attributes_fails_by_a_bound_that_holds_for_all_of_them() -> None:
    alone = parity(age=0.0555)  # 0.0505 is above 0.05
    assert evaluate_parity(alone, 0.05).outcome == "failed"
    three = parity(age=0.0555, region=0.01, gender=0.01)  # 0.0555 - 0.005 * 2.128 / 1.645
    assert evaluate_parity(three, 0.05).outcome == "uncertain"


def test_evaluate_parity_intersection_counts_only_when_named() -> None:
    audits = parity(gender=0.01, gender_x_region=0.3)
    assert evaluate_parity(audits, 0.05).outcome == "passed"
    assert evaluate_parity(audits, 0.05, ["gender x region"]).above == ("gender x region",)


def test_evaluate_parity_not_computable_is_said_beside_what_is() -> None:
    found = evaluate_parity(parity(gender=0.01, region=None), 0.05)
    assert found.outcome == "not computable"  # nobody knows of the region
    assert found.value == 0.01
    assert found.reason == "gender 0.010 (bounds 0.005 and 0.015), region not computable (few rows)"
    assert evaluate_parity(parity(gender=0.1, region=None), 0.05).outcome == "failed"
    assert evaluate_parity(parity(region=None), 0.05).outcome == "not computable"
    assert evaluate_parity([], 0.05).reason == "there is no protected attribute"
