import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from mlops_pipeline.core.metrics.delong import delong_difference
from mlops_pipeline.core.metrics.intervals import paired_difference
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.errors import ConfigError, DataError

Floats = NDArray[np.float64]


def sample(rows: int) -> tuple[Floats, Floats]:
    """Calibrated scores and labels drawn from them."""
    rng = np.random.default_rng(0)
    p = 1 / (1 + np.exp(-rng.normal(-1, 1.5, rows)))
    return (rng.random(rows) < p).astype(float), p


def ends(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def difference(y: ArrayLike, p_a: ArrayLike, p_b: ArrayLike) -> Estimate:
    """The difference of the ROC AUCs as callers get it: inputs are checked, rows independent."""
    return paired_difference(y, p_a, p_b, metric="roc_auc", seed=0)


def _placements(y: Floats, p: Floats) -> tuple[Floats, Floats]:
    """Compare each positive with each negative: the definition, O(n m)."""
    above = p[y == 1][:, None] - p[y == 0][None, :]
    wins = (above > 0) + 0.5 * (above == 0)
    return wins.mean(axis=1), wins.mean(axis=0)


def _direct_difference(y: Floats, p_a: Floats, p_b: Floats) -> tuple[float, float]:
    """Value and variance from the 2 x 2 covariance matrices, as in DeLong et al. 1988."""
    (pos_a, neg_a), (pos_b, neg_b) = _placements(y, p_a), _placements(y, p_b)
    covariance = np.cov(pos_a, pos_b) / len(pos_a) + np.cov(neg_a, neg_b) / len(neg_a)
    contrast = np.array([1.0, -1.0])
    return float(pos_a.mean() - pos_b.mean()), float(contrast @ covariance @ contrast)


ROW = st.tuples(st.sampled_from([0.0, 1.0]), *[st.integers(0, 6).map(lambda k: k / 6)] * 2)


SAME = Estimate(0.0, 0.0, 0.0, lower=0.0, upper=0.0)


@settings(deadline=None)
@given(st.lists(ROW, min_size=4, max_size=30))
def test_delong_difference_any_ties_match_direct_definition(
    rows: list[tuple[float, float, float]],
) -> None:
    y, p_a, p_b = (np.array(column) for column in zip(*rows, strict=True))
    found = difference(y, p_a, p_b)
    if found.low is None or found.high is None or found == SAME:
        return
    value, variance = _direct_difference(y, p_a, p_b)
    half = norm.ppf(0.975) * np.sqrt(variance)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert ends(found) == pytest.approx((max(value - half, -1), min(value + half, 1)), abs=1e-9)


def test_delong_difference_same_order_is_zero() -> None:
    y, p = sample(50)
    assert delong_difference(y, p, p**2) == SAME


def test_delong_difference_both_perfect_in_another_order_gives_value_without_interval() -> None:
    found = difference([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [0.2, 0.1, 0.8, 0.9])
    assert found == Estimate(0.0, reason="interval not computable: DeLong's variance is 0")


def test_delong_difference_single_positive_gives_value_without_interval() -> None:
    found = difference([0, 0, 1], [0.1, 0.5, 0.3], [0.1, 0.2, 0.3])
    assert found.value == -0.5
    assert found.reason == "interval not computable: fewer than 2 rows of one class"


def test_delong_difference_one_class_gives_reason() -> None:
    found = difference([1, 1], [0.1, 0.2], [0.2, 0.1])
    assert found.reason == "challenger: one class only; champion: one class only"


def test_delong_difference_empty_input_gives_reason() -> None:
    found = difference([], [], [])
    assert found == Estimate(None, reason="challenger: no rows; champion: no rows")


def test_delong_difference_nan_raises_data_error() -> None:
    with pytest.raises(DataError):
        difference([0, 1], [np.nan, 0.1], [0.1, 0.2])


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_delong_difference_level_out_of_range_raises_config_error(level: float) -> None:
    with pytest.raises(ConfigError, match="level"):
        paired_difference([0, 1], [0.2, 0.1], [0.1, 0.2], metric="roc_auc", seed=0, level=level)
