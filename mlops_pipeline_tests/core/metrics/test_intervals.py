from typing import Any

import numpy as np
import pytest
import sklearn.metrics as oracle
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import t

from mlops_pipeline.core.metrics.delong import delong_difference
from mlops_pipeline.core.metrics.intervals import (
    bootstrap_metrics,
    paired_difference,
)
from mlops_pipeline.core.metrics.metrics import Estimate, point_metrics
from mlops_pipeline.errors import ConfigError, DataError
from mlops_pipeline.spec.metrics import METRICS

Floats = NDArray[np.float64]


def sample(rows: int, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Calibrated scores, a noisier second model, and labels drawn from the scores."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1, 1.5, rows)
    p = 1 / (1 + np.exp(-logit))
    other = 1 / (1 + np.exp(-logit - rng.normal(0, 1.5, rows)))
    return (rng.random(rows) < p).astype(float), p, other


def ends(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def width(estimate: Estimate) -> float:
    low, high = ends(estimate)
    return high - low


def contains(estimate: Estimate, value: float) -> bool:
    low, high = ends(estimate)
    return low <= value <= high


def on_logits(value: float, resamples: list[float], behind: int) -> tuple[float, float]:
    """Return Student's interval about a share less its bias, on the scale of its logit."""
    drawn = logit(resamples)
    middle = 2 * logit(value) - np.mean(drawn)
    half = t.ppf(0.975, behind - 1) * np.std(drawn)
    return float(expit(middle - half)), float(expit(middle + half))


def test_bootstrap_metrics_replicates_match_sklearn_on_the_same_draws() -> None:
    y, p, _ = sample(120)
    p = np.round(p, 1)
    entities = np.arange(120) // 3
    found = bootstrap_metrics(
        y, p, 0.5, entities=entities, metrics=["roc_auc", "pr_auc"], replicates=40, seed=3
    )
    rng = np.random.default_rng(3)
    aucs, precisions = [], []
    for _ in range(40):
        weights = np.bincount(rng.integers(0, 40, 40), minlength=40)[entities]
        aucs.append(oracle.roc_auc_score(y, p, sample_weight=weights))
        precisions.append(oracle.average_precision_score(y, p, sample_weight=weights))
    behind = min(len(np.unique(entities[y == label])) for label in (0, 1))
    auc = oracle.roc_auc_score(y, p)
    assert ends(found["roc_auc"]) == pytest.approx(on_logits(auc, aucs, behind))
    value = oracle.average_precision_score(y, p)
    assert ends(found["pr_auc"]) == pytest.approx(on_logits(value, precisions, behind))


def test_bootstrap_metrics_values_are_the_point_metrics() -> None:
    y, p, _ = sample(200)
    found = bootstrap_metrics(y, p, 0.5, replicates=5, seed=0, max_rows=50)
    points = point_metrics(y, p, 0.5)
    for name, estimate in points.items():
        assert found[name].value == pytest.approx(estimate.value, abs=1e-12), name


def test_bootstrap_metrics_same_seed_gives_same_interval() -> None:
    y, p, _ = sample(300)
    first, again, other = (
        bootstrap_metrics(y, p, 0.5, replicates=30, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_bootstrap_metrics_row_order_does_not_change_interval_of_entities() -> None:
    y, p, _ = sample(90)
    entities = np.repeat(np.arange(30), 3)
    within = np.arange(90).reshape(30, 3)[:, ::-1].ravel()  # reverses the rows of each entity
    first = bootstrap_metrics(y, p, 0.5, entities=entities, replicates=50, seed=1)
    second = bootstrap_metrics(y[within], p[within], 0.5, entities=entities, replicates=50, seed=1)
    for name in METRICS:
        assert ends(first[name]) == pytest.approx(ends(second[name]))


def test_bootstrap_metrics_brier_interval_covers_its_expectation_at_the_level() -> None:
    truth = np.mean([np.mean(p * (1 - p)) for _, p, _ in (sample(20_000, s) for s in range(10))])
    covered = 0
    for seed in range(300):
        y, p, _ = sample(150, seed + 100)
        found = bootstrap_metrics(y, p, None, metrics=["brier"], replicates=150, seed=seed)
        covered += contains(found["brier"], float(truth))
    assert 0.91 <= covered / 300 <= 0.98


def test_bootstrap_metrics_repeated_entities_widen_as_if_rows_were_not_there() -> None:
    y, p, _ = sample(400)
    once = bootstrap_metrics(y, p, 0.5, metrics=["roc_auc"], replicates=300, seed=5)
    copies = np.tile(np.arange(400), 4)
    repeated = bootstrap_metrics(
        y[copies], p[copies], 0.5, entities=copies, metrics=["roc_auc"], replicates=300, seed=5
    )
    assert ends(repeated["roc_auc"]) == pytest.approx(ends(once["roc_auc"]))


def test_bootstrap_metrics_above_max_rows_keeps_center_and_width() -> None:
    y, p, _ = sample(20_000)
    full = bootstrap_metrics(y, p, 0.5, metrics=["brier"], seed=1)["brier"]
    fast = bootstrap_metrics(y, p, 0.5, metrics=["brier"], seed=1, max_rows=2_000)["brier"]
    assert width(fast) == pytest.approx(width(full), rel=0.15)
    assert fast.value is not None
    assert contains(fast, fast.value)


def test_bootstrap_metrics_string_entities_equal_their_codes() -> None:
    y, p, _ = sample(60)
    codes = np.repeat(np.arange(20), 3)
    names = np.array([f"customer-{code}" for code in codes], dtype=object)
    by_code, by_name = (
        bootstrap_metrics(y, p, 0.5, entities=entities, replicates=20, seed=0)
        for entities in (codes, names)
    )
    assert by_code == by_name


def test_bootstrap_metrics_one_entity_gives_value_and_reason() -> None:
    found = bootstrap_metrics(
        [0, 1], [0.2, 0.7], 0.5, entities=["a", "a"], metrics=["roc_auc"], seed=0
    )
    expected = Estimate(1.0, reason="interval not computable: fewer than 2 entities")
    assert found["roc_auc"] == expected


def test_bootstrap_metrics_one_class_gives_reason_and_other_metrics() -> None:
    found = bootstrap_metrics([0] * 20, np.linspace(0, 0.9, 20), 0.5, replicates=20, seed=0)
    assert found["roc_auc"] == Estimate(None, reason="one class only")
    assert width(found["brier"]) > 0


def test_bootstrap_metrics_empty_input_gives_reason() -> None:
    found = bootstrap_metrics([], [], 0.5, seed=0)
    assert {estimate.reason for estimate in found.values()} == {"no rows"}


def test_bootstrap_metrics_rare_positive_gives_value_without_interval() -> None:
    y = np.zeros(50)
    y[0] = 1
    found = bootstrap_metrics(y, np.linspace(0.1, 0.9, 50), 0.5, metrics=["roc_auc"], seed=0)
    assert found["roc_auc"].value == 0.0
    assert found["roc_auc"].low is None
    assert "of 500 resamples" in str(found["roc_auc"].reason)


@pytest.mark.parametrize("entities", [[1, 2, 3], [1.0, np.nan]])
def test_bootstrap_metrics_unusable_entities_raise_data_error(entities: list[float]) -> None:
    with pytest.raises(DataError, match="Entities"):
        bootstrap_metrics([0, 1], [0.1, 0.2], 0.5, entities=entities, seed=0)


def test_bootstrap_metrics_nan_score_raises_data_error() -> None:
    with pytest.raises(DataError):
        bootstrap_metrics([0, 1], [0.1, np.nan], 0.5, seed=0)


@pytest.mark.parametrize("setting", [{"replicates": 1}, {"max_rows": 0}])
def test_bootstrap_metrics_setting_out_of_range_raises_config_error(setting: Any) -> None:
    with pytest.raises(ConfigError):
        bootstrap_metrics([0, 1], [0.1, 0.2], 0.5, seed=0, **setting)


@pytest.mark.parametrize("metric", list(METRICS))
def test_paired_difference_same_model_is_zero(metric: str) -> None:
    y, p, _ = sample(200)
    found = paired_difference(
        *(y, p, p), metric=metric, threshold_a=0.5, threshold_b=0.5, replicates=50, seed=0
    )
    assert found == Estimate(0.0, 0.0, 0.0, lower=0.0, upper=0.0)


def test_paired_difference_is_challenger_minus_champion() -> None:
    y, p, other = sample(1_000)
    found = paired_difference(y, p, other, metric="brier", replicates=100, seed=0)
    expected = oracle.brier_score_loss(y, p) - oracle.brier_score_loss(y, other)
    assert found.value == pytest.approx(expected)
    assert found.value is not None
    assert found.value < 0


def test_paired_difference_swapped_models_mirror() -> None:
    y, p, other = sample(300)
    forward = paired_difference(y, p, other, metric="pr_auc", replicates=100, seed=4)
    backward = paired_difference(y, other, p, metric="pr_auc", replicates=100, seed=4)
    low, high = ends(backward)
    assert ends(forward) == pytest.approx((-high, -low))


def test_paired_difference_own_thresholds_change_decisions() -> None:
    y, p, _ = sample(300)
    found = paired_difference(
        *(y, p, p), metric="recall", threshold_a=0.2, threshold_b=0.6, replicates=50, seed=0
    )
    assert found.value == pytest.approx(
        oracle.recall_score(y, p >= 0.2) - oracle.recall_score(y, p >= 0.6)
    )


def test_paired_difference_shared_resamples_are_narrower_than_independent() -> None:
    y, p, _ = sample(500)
    near = np.clip(p + 0.01, 0, 1)
    paired = paired_difference(y, p, near, metric="brier", replicates=200, seed=0)
    alone = bootstrap_metrics(y, p, None, metrics=["brier"], replicates=200, seed=0)
    assert width(paired) < 0.3 * width(alone["brier"])


def test_paired_difference_roc_auc_one_row_per_entity_is_delong() -> None:
    y, p, other = sample(200)
    found = paired_difference(
        y, p, other, metric="roc_auc", entities=np.arange(200) * 7, replicates=2, seed=0
    )
    assert found == delong_difference(y, p, other)


def test_paired_difference_roc_auc_repeated_entities_widen_delong() -> None:
    y, p, other = (np.tile(column, 4) for column in sample(200))
    entities = np.tile(np.arange(200), 4)
    found = paired_difference(y, p, other, metric="roc_auc", entities=entities, seed=0)
    narrow = delong_difference(y, p, other)
    assert found.value == pytest.approx(narrow.value)
    assert width(found) == pytest.approx(2 * width(narrow), rel=0.15)  # sqrt(4) too narrow


def test_paired_difference_missing_threshold_names_the_model() -> None:
    found = paired_difference(
        [0, 1], [0.1, 0.9], [0.2, 0.8], metric="recall", threshold_a=0.5, seed=0
    )
    assert found == Estimate(None, reason="champion: no decision threshold")


def test_paired_difference_one_class_gives_reason() -> None:
    found = paired_difference([0, 0], [0.1, 0.9], [0.2, 0.8], metric="roc_auc", seed=0)
    assert found.reason == "challenger: one class only; champion: one class only"


def test_paired_difference_one_entity_gives_reason() -> None:
    found = paired_difference(
        [0, 1], [0.1, 0.9], [0.2, 0.8], metric="brier", entities=[1, 1], seed=0
    )
    assert found.reason == "interval not computable: fewer than 2 entities"


def test_paired_difference_roc_auc_bootstrap_agrees_with_delong() -> None:
    y, p, other = sample(600)
    twice = (np.tile(column, 2) for column in (y, p, other))
    entities = np.tile(np.arange(600), 2)  # the copies force the bootstrap
    resampled = paired_difference(*twice, metric="roc_auc", entities=entities, seed=1)
    assert width(delong_difference(y, p, other)) == pytest.approx(width(resampled), rel=0.1)


def test_bootstrap_metrics_lift_interval_holds_its_value_within_its_bounds() -> None:
    y, p, _ = sample(600)
    found = bootstrap_metrics(y, p, None, metrics=["lift_top_decile"], replicates=100, seed=1)
    assert contains(found["lift_top_decile"], value := found["lift_top_decile"].value or 0.0)
    assert 1 < value < min(10, 1 / y.mean())


def test_ece_bounds_of_entities_whose_rows_lie_in_other_bins_are_wider_on_both_sides() -> None:
    rng = np.random.default_rng(0)
    entities = np.repeat(np.arange(500), 4)
    p = rng.uniform(0.05, 0.6, 2_000)
    alone = (rng.random(2_000) < np.minimum(p + 0.05, 1)).astype(float)
    together = (np.repeat(rng.random(500), 4) < np.minimum(p + 0.05, 1)).astype(float)
    independent, clustered = (
        bootstrap_metrics(y, p, None, entities=codes, metrics=["ece"], seed=0)["ece"]
        for y, codes in ((alone, np.arange(2_000)), (together, entities))
    )
    assert independent.upper is not None
    assert clustered.upper is not None
    assert clustered.value is not None
    assert independent.value is not None
    error = (0.25 * 0.75 / 2_000) ** 0.5
    # at least 1.645 standard errors of a mean above the figure, of entities about twice as many
    assert independent.upper - independent.value > 1.2 * 1.645 * error
    assert clustered.upper - clustered.value > 1.645 * 1.6 * error
