import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy.stats import foldnorm

from mlops_pipeline.core.documents.records import from_plain, plain
from mlops_pipeline.core.metrics import metrics as formulas
from mlops_pipeline.core.metrics.metrics import Estimate, evaluate, point_metrics, rank_scores
from mlops_pipeline.errors import ConfigError, DataError
from mlops_pipeline.spec.metrics import METRICS, TOP_SHARE

Y = [1, 0, 1, 0]
P = [0.9, 0.8, 0.4, 0.1]


def value(name: str, y: ArrayLike, p: ArrayLike, threshold: float | None = 0.5) -> float:
    found = point_metrics(y, p, threshold, metrics=[name])[name].value
    assert found is not None
    return found


def reason(name: str, y: ArrayLike, p: ArrayLike, threshold: float | None = 0.5) -> str | None:
    return point_metrics(y, p, threshold, metrics=[name])[name].reason


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("roc_auc", 3 / 4),  # of 4 pairs only (0.4, 0.8) is in the wrong order
        ("pr_auc", 0.5 * 1 + 0.5 * 2 / 3),
        ("log_loss", -np.log([0.9, 0.2, 0.4, 0.9]).mean()),
        ("brier", (0.01 + 0.64 + 0.36 + 0.01) / 4),
        ("precision", 1 / 2),
        ("recall", 1 / 2),
        ("f1", 1 / 2),
        ("accuracy", 1 / 2),
        ("balanced_accuracy", 1 / 2),
        ("mcc", 0.0),
        ("selection_rate", 1 / 2),
        ("lift_top_decile", 2.0),  # the tenth is part of the row of 0.9: all positive, of half
    ],
)
def test_point_metrics_four_rows_match_hand_computed(name: str, expected: float) -> None:
    assert value(name, Y, P) == pytest.approx(expected)


def test_point_metrics_score_at_threshold_is_selected() -> None:
    assert value("selection_rate", Y, P, 0.8) == 0.5


def test_roc_auc_all_scores_tied_is_half() -> None:
    assert value("roc_auc", Y, [0.3] * 4) == 0.5


def test_pr_auc_all_scores_tied_is_prevalence() -> None:
    assert value("pr_auc", [1, 0, 0, 0], [0.3] * 4) == 0.25


def test_ece_gap_far_above_noise_is_the_gap() -> None:
    assert value("ece", [1] * 400, [0.4] * 400) == pytest.approx(0.6)
    assert value("ece", [1, 0] * 200, [0.9, 0.4] * 200) == pytest.approx((0.1 + 0.4) / 2)


def test_ece_bins_hold_equal_numbers_and_no_gap_cancels_between_them() -> None:
    p = np.linspace(0.3, 0.7, 1_500)
    assert np.bincount(formulas.ece_bins(p)).tolist() == [100] * 15
    assert np.bincount(formulas.ece_bins(p[:200])).tolist() == [50] * 4
    y = (p > 0.5).astype(float)
    of_bins = [np.mean(part) for part in np.split(y - p, 15)]  # the one in the middle cancels
    assert value("ece", y, p) == pytest.approx(np.mean(np.abs(of_bins)), abs=0.003)


def test_ece_perfectly_calibrated_scores_come_near_zero() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.6, 4_000)
    found = [value("ece", (rng.random(4_000) < p).astype(float), p) for _ in range(40)]
    assert np.mean(found) < 0.015  # without the correction 0.023


def test_log_loss_certain_and_wrong_is_finite() -> None:
    assert value("log_loss", [1], [0.0]) == pytest.approx(-np.log(np.finfo(float).eps))


DECIDED = [1, 1, 1, 0, 0, 0, 0, 0, 0, 1]  # at 0.5: 3 TP, 1 FP, 1 FN, 5 TN
DECIDED_P = [0.9, 0.8, 0.7, 0.6, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 8 / 10),
        ("balanced_accuracy", (3 / 4 + 5 / 6) / 2),
        ("mcc", (3 * 5 - 1 * 1) / np.sqrt(4 * 4 * 6 * 6)),
        ("lift_top_decile", 1 / 0.4),  # the first row is positive, as 4 of 10 are
    ],
)
def test_metrics_of_decisions_ten_rows_match_hand_computed(name: str, expected: float) -> None:
    assert value(name, DECIDED, DECIDED_P) == pytest.approx(expected)


def test_mcc_perfect_and_inverted_decisions_are_one_and_minus_one() -> None:
    assert value("mcc", [1, 0, 1], [0.9, 0.1, 0.8]) == 1.0
    assert value("mcc", [0, 1, 0], [0.9, 0.1, 0.8]) == -1.0


@pytest.mark.parametrize("p", [[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4]])
def test_mcc_every_row_decided_alike_gives_reason(p: list[float]) -> None:
    assert reason("mcc", Y, p) == "one class only, or every row decided alike"


@pytest.mark.parametrize("name", ["balanced_accuracy", "lift_top_decile"])
def test_metrics_of_both_classes_one_class_give_reason(name: str) -> None:
    assert reason(name, [1, 1], [0.2, 0.7]) == "one class only"


def test_lift_all_scores_tied_is_one() -> None:
    assert value("lift_top_decile", [1, 0, 0, 1, 0], [0.3] * 5) == pytest.approx(1.0)


def test_lift_ties_at_the_cut_count_in_part() -> None:
    # the highest 2 of 20 are the single 0.9 and one of the four 0.5, half of them positive
    y = [1] + [1, 1, 0, 0] + [0] * 15
    p = [0.9] + [0.5] * 4 + [0.1] * 15
    assert value("lift_top_decile", y, p) == pytest.approx((1 + 0.5) / 2 / (3 / 20))


def test_lift_no_positive_in_the_top_tenth_is_zero() -> None:
    assert value("lift_top_decile", [0] + [1] * 9, np.linspace(0.9, 0.1, 10)) == 0.0


def test_every_metric_of_the_table_has_one_formula() -> None:
    assert list(formulas.FORMULAS) == list(METRICS)


def _direct_lift(y: Any, p: Any, *, sample_weight: Any) -> float:
    left = TOP_SHARE * sample_weight.sum()
    positives = 0.0
    for score in np.unique(p)[::-1]:
        tied = p == score
        part = min(1.0, left / sample_weight[tied].sum()) if sample_weight[tied].sum() else 0.0
        positives += part * (sample_weight * y)[tied].sum()
        left -= part * sample_weight[tied].sum()
    return float(positives / (TOP_SHARE * (sample_weight * y).sum()))


def _direct_ece(y: Any, p: Any, *, sample_weight: Any) -> float:
    gap = abs((sample_weight * (y - p)).sum())  # one bin holds so few rows
    noise = np.sqrt((sample_weight**2 * p * (1 - p)).sum())
    mean = foldnorm.mean(gap / noise, scale=noise) if noise else gap
    return max(0.0, float(2 * gap - mean) / float(sample_weight.sum()))


def _selection_rate(_y: Any, decisions: Any, *, sample_weight: Any) -> float:
    return float(np.average(decisions, weights=sample_weight))


OF_SCORES: dict[str, Callable[..., float]] = {
    "roc_auc": oracle.roc_auc_score,
    "pr_auc": oracle.average_precision_score,
    "log_loss": partial(oracle.log_loss, labels=[0, 1]),
    "brier": oracle.brier_score_loss,
    "ece": _direct_ece,
    "lift_top_decile": _direct_lift,
}
OF_DECISIONS: dict[str, Callable[..., float]] = {
    "precision": oracle.precision_score,
    "recall": oracle.recall_score,
    "f1": oracle.f1_score,
    "accuracy": oracle.accuracy_score,
    "balanced_accuracy": oracle.balanced_accuracy_score,
    "mcc": oracle.matthews_corrcoef,
    "selection_rate": _selection_rate,
}

WEIGHTED_ROW = st.tuples(
    st.sampled_from([0, 1]),
    st.integers(0, 15).map(lambda k: k / 15),  # few values: many ties, and scores on bin edges
    st.one_of(st.integers(0, 3).map(float), st.floats(0.01, 10)),
)


@settings(deadline=None)
@given(rows=st.lists(WEIGHTED_ROW, min_size=1, max_size=40), threshold=st.sampled_from([0.2, 0.6]))
def test_evaluate_any_weights_and_ties_match_sklearn(
    rows: list[tuple[int, float, float]], threshold: float
) -> None:
    y, p, weights = (np.array(column) for column in zip(*rows, strict=True))
    for name, found in evaluate(rank_scores(y, p, threshold), weights).items():
        if np.isnan(found):
            continue
        if name in OF_SCORES:
            expected = OF_SCORES[name](y, p, sample_weight=weights)
        else:
            expected = OF_DECISIONS[name](y, p >= threshold, sample_weight=weights)
        assert found == pytest.approx(expected, abs=1e-9), name


@settings(deadline=None)
@given(rows=st.lists(WEIGHTED_ROW, min_size=1, max_size=20))
def test_evaluate_integer_weight_equals_repeated_row(
    rows: list[tuple[int, float, float]],
) -> None:
    y, p, weights = (np.array(column) for column in zip(*rows, strict=True))
    times = weights.astype(int)
    weighted = evaluate(rank_scores(y, p, 0.5), times.astype(float))
    repeated = point_metrics(np.repeat(y, times), np.repeat(p, times), 0.5)
    for name, found in weighted.items():
        if name == "ece":  # the noise of a row that counts twice is that of one row
            continue
        expected = repeated[name].value
        assert np.isnan(found) if expected is None else found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["roc_auc", "pr_auc"])
@pytest.mark.parametrize("label", [0, 1])
def test_ranking_metrics_one_class_give_reason(name: str, label: int) -> None:
    assert reason(name, [label, label], [0.2, 0.7]) == "one class only"


def test_recall_without_positive_row_gives_reason() -> None:
    assert reason("recall", [0, 0], [0.2, 0.7]) == "no positive row"


def test_precision_nothing_selected_gives_reason() -> None:
    assert reason("precision", Y, P, 0.95) == "no row reaches the threshold"


def test_f1_positive_rows_none_selected_is_zero() -> None:
    assert value("f1", Y, P, 0.95) == 0.0


def test_f1_no_positive_none_selected_gives_reason() -> None:
    assert reason("f1", [0, 0], [0.1, 0.2]) == "no positive row and none selected"


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].needs_threshold])
def test_decision_metrics_without_threshold_give_reason(name: str) -> None:
    assert reason(name, Y, P, None) == "no decision threshold"


@pytest.mark.parametrize("name", list(METRICS))
def test_point_metrics_empty_input_gives_reason(name: str) -> None:
    assert reason(name, [], []) == "no rows"


def test_evaluate_zero_weights_is_not_computable() -> None:
    found = evaluate(rank_scores(Y, P, 0.5), np.zeros(4))
    assert np.isnan(list(found.values())).all()


@pytest.mark.parametrize(
    ("y", "p"),
    [
        ([0, 2], [0.1, 0.2]),
        ([0, np.nan], [0.1, 0.2]),
        (["no", "yes"], [0.1, 0.2]),
        ([0, 1], [0.1, np.nan]),
        ([0, 1], [0.1, 1.2]),
        ([0, 1], [0.1, -0.2]),
        ([0, 1], [0.1]),
        ([[0, 1]], [[0.1, 0.2]]),
    ],
)
def test_point_metrics_unusable_input_raises_data_error(y: ArrayLike, p: ArrayLike) -> None:
    with pytest.raises(DataError):
        point_metrics(y, p)


def test_point_metrics_unknown_name_raises_config_error() -> None:
    with pytest.raises(ConfigError, match="acuracy"):
        point_metrics(Y, P, metrics=["acuracy"])


def test_metrics_directions_are_those_of_the_literature() -> None:
    less = {name for name, metric in METRICS.items() if metric.greater_is_better is False}
    neither = {name for name, metric in METRICS.items() if metric.greater_is_better is None}
    assert (less, neither) == ({"log_loss", "brier", "ece"}, {"selection_rate"})


@pytest.mark.parametrize(
    "estimate", [Estimate(0.1, 0.05, 1 / 3), Estimate(None, reason="one class only")]
)
def test_estimate_json_round_trip_is_exact(estimate: Estimate) -> None:
    assert from_plain(Estimate, json.loads(json.dumps(plain(estimate)))) == estimate


def test_estimate_without_value_and_reason_raises_data_error() -> None:
    with pytest.raises(DataError, match="reason"):
        Estimate(None)


def test_estimate_nan_raises_data_error() -> None:
    with pytest.raises(DataError, match="finite"):
        Estimate(float("nan"))
