import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from mlops_pipeline.core.modelling.calibration import (
    Calibration,
    Kind,
    calibration_notes,
    fit_calibration,
    folds,
    reliability_curve,
    threshold_from_costs,
)
from mlops_pipeline.core.modelling.scoring import PROBABILITY_FLOOR, apply_calibration
from mlops_pipeline.errors import ConfigError, DataError

Floats = NDArray[np.float64]


def overconfident(rows: int = 3_000) -> tuple[Floats, Floats]:
    """Scores whose logit is twice too large, and labels."""
    rng = np.random.default_rng(7)
    logit = rng.normal(-1, 1, rows)
    y = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(float)
    return 1 / (1 + np.exp(-2 * logit)), y


def applied(calibration: Calibration, scores: ArrayLike) -> Floats:
    return apply_calibration(calibration, np.asarray(scores, dtype=np.float64))


SCORE = st.one_of(st.integers(0, 10).map(lambda k: k / 10), st.floats(0, 1))


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(SCORE, st.sampled_from([0, 1])), min_size=1, max_size=40),
    new=st.lists(SCORE, min_size=1, max_size=20),
)
def test_isotonic_any_scores_match_sklearn(rows: list[tuple[float, int]], new: list[float]) -> None:
    scores = [0.25, 0.75, *(score for score, _ in rows)]
    y = [0, 1, *(label for _, label in rows)]
    expected = IsotonicRegression(out_of_bounds="clip").fit(scores, y).predict(new)
    found = applied(fit_calibration("isotonic", scores, y), new)
    np.testing.assert_allclose(
        found, np.clip(expected, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR), atol=1e-12
    )


def test_isotonic_pure_steps_are_clipped_away_from_0_and_1() -> None:
    found = applied(fit_calibration("isotonic", [0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]), [0.0, 1.0])
    assert found.tolist() == [1e-6, 1 - 1e-6]


def test_isotonic_knots_interpolate_as_computed_by_hand() -> None:
    calibration = {"kind": "isotonic", "x": [0.2, 0.6], "y": [0.1, 0.5]}
    np.testing.assert_allclose(applied(calibration, [0.0, 0.2, 0.4, 0.9]), [0.1, 0.1, 0.3, 0.5])


def test_isotonic_constant_score_gives_prevalence() -> None:
    calibration = fit_calibration("isotonic", [0.3] * 4, [0, 0, 0, 1])
    np.testing.assert_allclose(applied(calibration, [0.0, 0.3, 1.0]), 0.25)


def test_sigmoid_matches_logistic_regression_on_smoothed_targets() -> None:
    scores, y = overconfident()
    positives, negatives = y.sum(), (1 - y).sum()
    targets = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    logits = np.log(scores / (1 - scores))[:, None]
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1_000).fit(
        np.vstack([logits, logits]),
        np.repeat([1, 0], len(y)),
        sample_weight=np.concatenate([targets, 1 - targets]),
    )
    found = fit_calibration("sigmoid", scores, y)
    assert found["a"] == pytest.approx(-reference.coef_[0, 0], rel=1e-4)
    assert found["b"] == pytest.approx(-reference.intercept_[0], rel=1e-4)


def test_sigmoid_overconfident_scores_recovers_the_factor() -> None:
    assert fit_calibration("sigmoid", *overconfident())["a"] == pytest.approx(-0.5, abs=0.05)


def test_sigmoid_apply_matches_hand_computed() -> None:
    # logit(0.8) = log 4; a = -0.5 gives 1 / (1 + exp(-log 2)) = 2/3
    found = applied({"kind": "sigmoid", "a": -0.5, "b": 0.0}, [0.8])
    assert found[0] == pytest.approx(2 / 3)


def test_sigmoid_separable_classes_stay_finite_at_scores_0_and_1() -> None:
    calibration = fit_calibration("sigmoid", [0.0, 0.0, 1.0, 1.0], [0, 0, 1, 1])
    np.testing.assert_allclose(applied(calibration, [0.0, 1.0]), [0.25, 0.75])  # Platt's targets


def test_sigmoid_constant_score_gives_smoothed_prevalence() -> None:
    calibration = fit_calibration("sigmoid", [0.3] * 4, [0, 0, 0, 1])
    assert applied(calibration, [0.3])[0] == pytest.approx((2 / 3 + 3 * 1 / 5) / 4)


@settings(deadline=None)
@given(st.lists(st.tuples(SCORE, st.sampled_from([0, 1])), max_size=40))
def test_sigmoid_any_rows_predict_the_mean_target(rows: list[tuple[float, int]]) -> None:
    scores = np.array([0.25, 0.75, *(score for score, _ in rows)])
    y = np.array([0, 1, *(label for _, label in rows)])
    targets = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))
    found = applied(fit_calibration("sigmoid", scores, y), scores)
    assert found.mean() == pytest.approx(targets.mean(), abs=1e-6)  # first-order condition of b


def test_none_leaves_scores_unchanged() -> None:
    scores = np.array([0.0, 0.3, 1.0])
    assert applied(fit_calibration("none", scores, [0, 0, 0]), scores).tolist() == scores.tolist()


@pytest.mark.parametrize("kind", ["isotonic", "sigmoid", "none"])
def test_calibration_json_round_trip_is_exact(kind: Kind) -> None:
    calibration = fit_calibration(kind, *overconfident(500))
    assert json.loads(json.dumps(calibration)) == calibration


@pytest.mark.parametrize("kind", ["isotonic", "sigmoid"])
def test_calibration_keeps_the_order_of_scores(kind: Kind) -> None:
    found = applied(fit_calibration(kind, *overconfident(500)), np.linspace(0, 1, 101))
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("kind", ["isotonic", "sigmoid"])
@pytest.mark.parametrize("y", [[0, 0], [1, 1]])
def test_fit_calibration_one_class_raises_data_error(kind: Kind, y: list[int]) -> None:
    with pytest.raises(DataError, match="both classes"):
        fit_calibration(kind, [0.1, 0.2], y)


def test_fit_calibration_empty_raises_data_error() -> None:
    with pytest.raises(DataError, match="both classes"):
        fit_calibration("isotonic", [], [])


def test_fit_calibration_unknown_kind_raises_config_error() -> None:
    kind: Any = "beta"
    with pytest.raises(ConfigError, match="beta"):
        fit_calibration(kind, [0.1, 0.2], [0, 1])


@pytest.mark.parametrize("scores", [[np.nan], [1.1]])
def test_fit_calibration_unusable_score_raises_data_error(scores: list[float]) -> None:
    with pytest.raises(DataError):
        fit_calibration("none", scores, [1])


def test_threshold_from_costs_dear_misses_lower_it() -> None:
    assert threshold_from_costs(1, 4) == 0.2


@pytest.mark.parametrize("costs", [(0, 1), (1, -1), (float("nan"), 1), (1, float("inf"))])
def test_threshold_from_costs_wrong_cost_raises_config_error(costs: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="cost"):
        threshold_from_costs(*costs)


def test_reliability_curve_four_rows_two_bins_match_hand_computed() -> None:
    curve = reliability_curve([1, 0, 1, 0], [0.8, 0.1, 0.6, 0.3], bins=2)
    assert curve.mean_score == pytest.approx((0.2, 0.7))
    assert curve.observed_rate == (0.0, 1.0)
    assert curve.rows == (2, 2)


def test_reliability_curve_distinct_scores_have_equal_mass() -> None:
    assert reliability_curve([0, 1] * 50, np.linspace(0, 1, 100)).rows == (10,) * 10


def test_reliability_curve_tied_scores_stay_together() -> None:
    curve = reliability_curve([0] * 8 + [1, 1], [0.1] * 8 + [0.5, 0.9])
    assert curve.rows[0] == 8
    assert sum(curve.rows) == 10


@pytest.mark.parametrize("bins", [1, 10])
def test_reliability_curve_constant_score_is_one_point(bins: int) -> None:
    assert reliability_curve([0, 1], [0.4, 0.4], bins=bins).rows == (2,)


def test_reliability_curve_empty_raises_data_error() -> None:
    with pytest.raises(DataError, match="rows"):
        reliability_curve([], [])


def test_reliability_curve_without_bins_raises_config_error() -> None:
    with pytest.raises(ConfigError, match="bins"):
        reliability_curve([0], [0.1], bins=0)


def test_sigmoid_of_scores_that_go_the_wrong_way_gives_everybody_the_base_rate() -> None:
    scores, y = overconfident()
    fitted = fit_calibration("sigmoid", 1 - scores, y)
    said = applied(fitted, np.linspace(0.01, 0.99, 9))
    assert said == pytest.approx(np.full(9, y.mean()), abs=1e-3)
    assert fit_calibration("sigmoid", scores, y)["a"] < 0  # the usual case: the order is kept


def test_folds_do_not_follow_a_pattern_in_the_keys() -> None:
    entity = np.arange(5_000)
    label = (entity % 5 == 0).astype(np.int8)  # every fifth, as folds by place would be
    shares = [label[inside].mean() for inside, _ in folds(label, entity)]
    assert shares == pytest.approx([0.2] * 5, abs=0.05)


def test_isotonic_calibration_of_few_rows_is_noted_with_their_number_and_the_reason() -> None:
    (note,) = calibration_notes("isotonic", 999, 123)
    assert note.startswith(
        "Isotonic calibration learned from 999 rows of the validation part, 123 of them "
        "positive. Below about 1,000 rows it tends to follow their noise"
    )
    assert calibration_notes("isotonic", 1_000, 123) == []
    assert calibration_notes("sigmoid", 200, 50) == calibration_notes("none", 200, 50) == []
