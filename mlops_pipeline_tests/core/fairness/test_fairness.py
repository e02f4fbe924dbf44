"""Audits of groups: rates, disparities and their intervals, and input that cannot be used."""

import json
from typing import Any

import fairlearn.metrics as oracle
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_pipeline.core.documents.records import from_plain, plain
from mlops_pipeline.core.fairness.audit import GroupAudit, audit_groups
from mlops_pipeline.core.fairness.disparities import DISPARITIES
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.errors import ConfigError, DataError
from mlops_pipeline_tests.core.audit.audit_example import (
    D,
    G,
    Y,
    audit,
    large,
    rates_of,
    scored,
    width,
)


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
    found = audit(y=y, decisions=decisions, groups=pd.Series(groups))
    for name in DISPARITIES:
        estimate = getattr(found, name)
        if estimate.value is not None:
            expected = getattr(oracle, name)(y, decisions, sensitive_features=groups)
            assert estimate.value == pytest.approx(expected)
        else:
            assert estimate.reason


@pytest.mark.parametrize("entities", [None, np.arange(6_000)])
def test_audit_groups_distant_groups_have_the_normal_interval(entities: Any) -> None:
    found = audit(**large(), entities=entities).demographic_parity_difference
    error = np.sqrt(0.3 * 0.7 / 3_000 + 0.4 * 0.6 / 3_000)  # of a difference of two shares
    assert width(found) == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_audit_groups_repeated_entities_widen_the_interval() -> None:
    four: dict[str, Any] = {name: np.tile(column, 4) for name, column in large(1_500).items()}
    four["groups"] = pd.Series(four["groups"])
    by_row = audit(**four)
    by_entity = audit(**four, entities=np.tile(np.arange(1_500), 4))
    narrow, wide = by_row.demographic_parity_difference, by_entity.demographic_parity_difference
    assert width(wide) == pytest.approx(2 * width(narrow), rel=0.2)  # sqrt(4)


def test_audit_groups_parity_has_zero_difference_and_ratio_one() -> None:
    found = audit(y=Y[:4] * 2, decisions=D[:4] * 2)
    assert found.demographic_parity_difference.value == 0.0
    assert found.demographic_parity_ratio.value == 1.0
    assert found.equalized_odds_difference.value == 0.0


def test_audit_groups_total_disparity_is_one() -> None:
    found = audit(decisions=[1] * 4 + [0] * 4)
    assert found.demographic_parity_difference.value == 1.0
    assert found.demographic_parity_difference.high == 1.0
    assert (found.demographic_parity_difference.low or 1.0) < 0.5  # of 4 rows each
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


def test_audit_groups_of_the_same_rows_in_another_order_are_equal() -> None:
    order = np.random.default_rng(1).permutation(6_000)
    shuffled = {name: np.asarray(column)[order] for name, column in large().items()}
    first, second = (
        audit(**inputs).demographic_parity_difference for inputs in (shuffled, large())
    )
    assert (first.low, first.high) == pytest.approx((second.low, second.high))


def test_audit_groups_json_round_trip_is_exact() -> None:
    found = audit(y=[1, 1, 0, 0, 0, 0, 0, 0], scores=[0.5] * 8)
    assert from_plain(GroupAudit, json.loads(json.dumps(plain(found)))) == found


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


def test_audit_groups_setting_out_of_range_raises_config_error() -> None:
    with pytest.raises(ConfigError):
        audit(min_group_rows=0)


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
    rate = rates_of(audit(**large()), "a").selection_rate
    assert rate.low is not None
    assert rate.high is not None
    assert rate.low < 0.3 < rate.high
    assert width(rate) == pytest.approx(2 * 1.96 * np.sqrt(0.3 * 0.7 / 3_000), rel=0.15)


def test_audit_groups_small_group_shows_its_rows_and_no_number() -> None:
    found = audit(min_group_rows=5, scores=[0.5] * 8)
    for rates in found.groups:
        assert '"rows": 4' in json.dumps(plain(found)["groups"][0])
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
    found = audit(**inputs).demographic_parity_difference
    rng, entities = np.random.default_rng(9), inputs["entities"]
    south = (inputs["groups"] == "south").to_numpy()
    drawn = []
    for _ in range(2_000):
        times = np.bincount(rng.integers(0, 300, 300), minlength=300)[entities]
        rates = [
            np.average(inputs["decisions"][mask], weights=times[mask]) for mask in (south, ~south)
        ]
        drawn.append(abs(rates[0] - rates[1]))
    # either sign of the difference could be the largest: half of 2.5 % is left to each
    low, high = np.quantile(drawn, [0.0125, 0.975])
    assert found.low == pytest.approx(low, abs=0.008)
    assert found.high == pytest.approx(high, abs=0.008)
