import dataclasses
import json
from typing import Any

import fairlearn.metrics as oracle
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_pipeline.config.fairness import Fairness
from mlops_pipeline.errors import ConfigError, DataError
from mlops_pipeline.governance.fairness import (
    DISPARITIES,
    GroupAudit,
    GroupRates,
    audit_attributes,
    audit_groups,
)
from mlops_pipeline.governance.group_audit import judge_parity
from mlops_pipeline.training.metrics import Estimate, point_metrics

# group a: 4 rows, 2 positives, 3 selected (2 hits); group b: 4 rows, 2 positives, 1 selected (hit)
Y = [1, 1, 0, 0, 1, 1, 0, 0]
D = [1, 1, 1, 0, 1, 0, 0, 0]
G = pd.Series(list("aaaabbbb"))


def audit(**changes: Any) -> GroupAudit:
    inputs: dict[str, Any] = {"y": Y, "decisions": D, "groups": G, "attribute": "sex"}
    return audit_groups(**(inputs | {"min_group_rows": 1, "replicates": 50} | changes))


def rates_of(found: GroupAudit, group: str) -> GroupRates:
    return next(rates for rates in found.groups if rates.group == group)


def large(rows: int = 6_000, seed: int = 0) -> dict[str, Any]:
    """Two groups selected at 0.3 and 0.4, independent of the label."""
    rng = np.random.default_rng(seed)
    groups = pd.Series(rng.choice(["a", "b"], rows))
    decisions = rng.random(rows) < np.where(groups == "a", 0.3, 0.4)
    return {"y": rng.random(rows) < 0.5, "decisions": decisions, "groups": groups}


def test_audit_groups_rates_match_hand_computed() -> None:
    first = rates_of(audit(), "a")
    assert (first.rows, first.positives) == (4, 2)
    assert first.selection_rate.value == 3 / 4
    assert first.tpr.value == 1.0
    assert first.fpr.value == 1 / 2
    assert first.precision.value == 2 / 3


def test_audit_groups_disparities_match_hand_computed() -> None:
    found = audit()
    assert found.demographic_parity_difference.value == 3 / 4 - 1 / 4
    assert found.demographic_parity_ratio.value == pytest.approx(1 / 3)
    assert found.equalized_odds_difference.value == 0.5
    assert found.equal_opportunity_difference.value == 0.5


ROW = st.tuples(st.sampled_from([0, 1]), st.sampled_from([0, 1]), st.sampled_from("abc"))


@settings(deadline=None, max_examples=15)
@given(st.lists(ROW, min_size=1, max_size=40))
def test_audit_groups_computable_disparities_match_fairlearn(
    rows: list[tuple[int, int, str]],
) -> None:
    y, decisions, groups = (list(column) for column in zip(*rows, strict=True))
    found = audit(y=y, decisions=decisions, groups=pd.Series(groups), replicates=2)
    for name in DISPARITIES:
        estimate = getattr(found, name)
        if estimate.value is not None:
            expected = getattr(oracle, name)(y, decisions, sensitive_features=groups)
            assert estimate.value == pytest.approx(expected)
        else:
            assert estimate.reason


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


@pytest.mark.parametrize("entities", [None, np.arange(6_000)])
def test_audit_groups_distant_groups_have_the_normal_interval(entities: Any) -> None:
    found = audit(**large(), replicates=400, entities=entities).demographic_parity_difference
    error = np.sqrt(0.3 * 0.7 / 3_000 + 0.4 * 0.6 / 3_000)  # of a difference of two shares
    assert width(found) == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_audit_groups_repeated_entities_widen_the_interval() -> None:
    four: dict[str, Any] = {name: np.tile(column, 4) for name, column in large(1_500).items()}
    four["groups"] = pd.Series(four["groups"])
    by_row = audit(**four, replicates=400)
    by_entity = audit(**four, replicates=400, entities=np.tile(np.arange(1_500), 4))
    narrow, wide = by_row.demographic_parity_difference, by_entity.demographic_parity_difference
    assert width(wide) == pytest.approx(2 * width(narrow), rel=0.2)  # sqrt(4)


def test_audit_groups_parity_has_zero_difference_and_ratio_one() -> None:
    found = audit(y=Y[:4] * 2, decisions=D[:4] * 2)
    assert found.demographic_parity_difference.value == 0.0
    assert found.demographic_parity_ratio.value == 1.0
    assert found.equalized_odds_difference.value == 0.0


def test_audit_groups_total_disparity_is_one() -> None:
    found = audit(decisions=[1] * 4 + [0] * 4)
    assert found.demographic_parity_difference == Estimate(1.0, 1.0, 1.0)
    assert found.demographic_parity_ratio.value == 0.0


def test_audit_groups_small_group_is_named_and_left_out() -> None:
    groups = pd.Series([*"aaaabbbb", *"cc"])
    found = audit(y=[*Y, 1, 0], decisions=[*D, 1, 1], groups=groups, min_group_rows=3)
    assert rates_of(found, "c").excluded == "not computable: 2 rows, fewer than 3"
    assert rates_of(found, "c").selection_rate == Estimate(None, reason="2 rows, fewer than 3")
    assert found.demographic_parity_difference.value == 0.5


def test_audit_groups_missing_group_is_shown_and_left_out() -> None:
    groups = pd.Series([*"aaaabbbb", None, None])
    found = audit(y=[*Y, 1, 0], decisions=[*D, 1, 1], groups=groups)
    assert rates_of(found, "(missing)").rows == 2
    assert "not known" in str(rates_of(found, "(missing)").excluded)
    assert found.demographic_parity_difference.value == 0.5


def test_audit_groups_one_group_left_gives_reason() -> None:
    found = audit(groups=pd.Series(["a"] * 8))
    reasons = {getattr(found, name).reason for name in DISPARITIES}
    assert reasons == {
        "1 groups with enough rows, a disparity needs 2",
        "1 groups with enough labelled rows, a disparity needs 2",
    }


def test_audit_groups_default_minimum_excludes_all_of_a_small_sample() -> None:
    found = audit_groups(Y, D, G, attribute="sex")
    assert found.demographic_parity_difference.value is None
    assert all(rates.excluded for rates in found.groups)


def test_audit_groups_group_without_positives_gives_reason_for_odds_only() -> None:
    found = audit(y=[1, 1, 0, 0, 0, 0, 0, 0])
    assert found.equal_opportunity_difference.reason == "group b: no positive row"
    assert found.equalized_odds_difference.reason == "group b: no positive row"
    assert found.demographic_parity_difference.value == 0.5
    assert rates_of(found, "b").tpr == Estimate(None, reason="no positive row")


def test_audit_groups_nothing_selected_has_no_ratio() -> None:
    found = audit(decisions=[0] * 8)
    assert found.demographic_parity_ratio.reason == "no row is selected in any group"
    assert found.demographic_parity_difference.value == 0.0
    assert rates_of(found, "a").precision.reason == "no selected row"


def test_audit_groups_empty_input_gives_reason() -> None:
    found = audit(y=[], decisions=[], groups=pd.Series([], dtype=object))
    assert found.groups == ()
    assert found.demographic_parity_difference.value is None


def test_audit_groups_categorical_and_index_are_taken_by_position() -> None:
    groups = pd.Series(pd.Categorical(list("aaaabbbb"), categories=["b", "a", "z"]))
    groups.index = pd.Index(range(100, 108))
    assert audit(groups=groups) == audit()


def test_audit_groups_same_seed_gives_same_audit() -> None:
    assert audit(**large(), seed=3) == audit(**large(), seed=3) != audit(**large(), seed=4)


def test_audit_groups_json_round_trip_is_exact() -> None:
    found = audit(y=[1, 1, 0, 0, 0, 0, 0, 0], scores=[0.5] * 8)
    assert GroupAudit.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    "changes",
    [
        {"y": [*Y[:7], np.nan]},
        {"decisions": [0.5] * 8},
        {"decisions": D[:7]},
        {"groups": G[:7]},
        {"entities": [1, 2]},
        {"entities": [1.0] * 7 + [np.nan]},
        {"scores": [1.5] * 8},
        {"scores": [0.5] * 7},
        {"known": [True] * 7},
    ],
)
def test_audit_groups_unusable_input_raises_data_error(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        audit(**changes)


@pytest.mark.parametrize("changes", [{"min_group_rows": 0}, {"replicates": 1}])
def test_audit_groups_setting_out_of_range_raises_config_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        audit(**changes)


# intervals, calibration, labels that are not known, intersections


def scored(rows: int = 4_000, seed: int = 1) -> dict[str, Any]:
    """Scores of two regions and two genders; in the south more happens than is predicted."""
    rng = np.random.default_rng(seed)
    region = rng.choice(["north", "south"], rows)
    p = rng.beta(2, 6, rows)
    truth = np.clip(p + 0.1 * (region == "south"), 0, 1)
    return {
        "y": (rng.random(rows) < truth).astype(int),
        "decisions": p >= 0.3,
        "scores": p,
        "groups": pd.Series(region),
        "entities": np.arange(rows) // 2,
    }


def test_audit_groups_every_rate_is_that_of_metric_frame() -> None:
    inputs = scored()
    found = audit(**inputs)
    functions = {
        "selection_rate": oracle.selection_rate,
        "tpr": oracle.true_positive_rate,
        "fpr": oracle.false_positive_rate,
        "precision": sklearn.metrics.precision_score,
    }
    frame = oracle.MetricFrame(
        metrics=functions,
        y_true=inputs["y"],
        y_pred=inputs["decisions"].astype(int),
        sensitive_features=inputs["groups"],
    )
    for rates in found.groups:
        for name in functions:
            expected = pytest.approx(frame.by_group.loc[rates.group, name], abs=1e-12)
            assert getattr(rates, name).value == expected


def test_audit_groups_rates_have_the_interval_of_a_share() -> None:
    rate = rates_of(audit(**large(), replicates=400), "a").selection_rate
    assert rate.low is not None
    assert rate.high is not None
    assert rate.low < 0.3 < rate.high
    assert width(rate) == pytest.approx(2 * 1.96 * np.sqrt(0.3 * 0.7 / 3_000), rel=0.15)


def test_audit_groups_calibration_matches_hand_computed() -> None:
    found = audit(scores=[0.9, 0.5, 0.5, 0.1, 0.2, 0.2, 0.2, 0.2]).groups[0].calibration
    assert found is not None
    assert found.mean_score.value == 0.5
    assert found.observed_rate.value == 0.5
    assert found.difference.value == pytest.approx(0.0)
    # bins of 1/15: {0.9: y 1}, {0.5, 0.5: y 1 and 0}, {0.1: y 0}
    assert found.ece.value == pytest.approx((0.1 + 0.0 + 0.1) / 4)


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
    found = audit(**scored(), replicates=200)
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


def test_audit_groups_small_group_shows_its_rows_and_no_number() -> None:
    found = audit(min_group_rows=5, scores=[0.5] * 8)
    for rates in found.groups:
        plain = json.dumps(GroupAudit.to_dict(found)["groups"][0])
        assert '"rows": 4' in plain
        assert rates.positives is None
        for name in ("selection_rate", "tpr", "fpr", "precision"):
            assert getattr(rates, name) == Estimate(None, reason="4 rows, fewer than 5")
        assert rates.calibration is not None
        assert rates.calibration.mean_score == Estimate(None, reason="4 rows, fewer than 5")


def test_audit_groups_group_of_one_entity_has_values_without_interval() -> None:
    found = audit(entities=[1, 1, 1, 1, 2, 3, 4, 5])
    rate = rates_of(found, "a").selection_rate
    assert (rate.value, rate.low) == (0.75, None)
    assert "fewer than 2 entities" in str(rate.reason)
    assert found.demographic_parity_difference.low is None
    assert rates_of(found, "b").selection_rate.low is not None


def test_audit_groups_entity_resampling_equals_resampling_of_rows_by_hand() -> None:
    inputs = scored(600)
    found = audit(**inputs, replicates=2_000).demographic_parity_difference
    rng, entities = np.random.default_rng(9), inputs["entities"]
    south = (inputs["groups"] == "south").to_numpy()
    drawn = []
    for _ in range(2_000):
        times = np.bincount(rng.integers(0, 300, 300), minlength=300)[entities]
        rates = [
            np.average(inputs["decisions"][mask], weights=times[mask]) for mask in (south, ~south)
        ]
        drawn.append(abs(rates[0] - rates[1]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.006)
    assert found.high == pytest.approx(high, abs=0.006)


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
            demographic_parity_difference=Estimate(value, reason=None if value else "few rows"),
        )
        for name, value in differences.items()
    ]


def test_judge_parity_names_every_attribute_above_the_limit() -> None:
    found = judge_parity(parity(age=0.06, region=0.2, gender=0.05), 0.05)
    assert (found.passed, found.value, found.above) == (False, 0.2, ("region", "age"))
    assert found.reason == "region 0.200, age 0.060, gender 0.050"


def test_judge_parity_intersection_counts_only_when_named() -> None:
    audits = parity(gender=0.01, gender_x_region=0.3)
    assert judge_parity(audits, 0.05).passed is True
    assert judge_parity(audits, 0.05, ["gender x region"]).above == ("gender x region",)


def test_judge_parity_not_computable_is_said_beside_what_is() -> None:
    found = judge_parity(parity(gender=0.01, region=None), 0.05)
    assert found.passed is True
    assert found.reason == "gender 0.010, region not computable (few rows)"
    assert judge_parity(parity(region=None), 0.05).passed is None
    assert judge_parity([], 0.05).reason == "there is no protected attribute"
