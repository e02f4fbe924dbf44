"""Intervals of figures of decisions, on 20 positive and 80 negative rows."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import beta

from mlops_pipeline.core.metrics.intervals import bootstrap_metrics
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.core.metrics.shares import OF_DECISIONS, decision_interval

HITS, MISSES, FALSE_HITS, REJECTIONS = 8, 12, 4, 76
ROWS = HITS + MISSES + FALSE_HITS + REJECTIONS
VALUES = {  # by hand
    "precision": 8 / 12,
    "recall": 8 / 20,
    "f1": 16 / 32,
    "accuracy": 84 / 100,
    "selection_rate": 12 / 100,
    "balanced_accuracy": (8 / 20 + 76 / 80) / 2,
    "mcc": (8 * 76 - 4 * 12) / (20 * 80 * 12 * 88) ** 0.5,
}


def decisions(times: int = 1) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    y = np.repeat([1.0, 1.0, 0.0, 0.0], [HITS, MISSES, FALSE_HITS, REJECTIONS])
    selected = np.repeat([True, False, True, False], [HITS, MISSES, FALSE_HITS, REJECTIONS])
    return np.tile(y, times), np.tile(selected, times)


def interval(name: str, times: int = 1, *, are_entities: bool = False) -> Estimate:
    y, selected = decisions(times)
    entities = np.tile(np.arange(ROWS), times) if are_entities else np.arange(ROWS * times)
    return decision_interval(name, VALUES[name], y, selected, entities)


def bounds(estimate: Estimate) -> tuple[float, float]:
    assert estimate.lower is not None
    assert estimate.upper is not None
    return estimate.lower, estimate.upper


def jeffreys(hits: int, rows: int) -> tuple[float, float]:
    low, high = beta.ppf([0.05, 0.95], hits + 0.5, rows - hits + 0.5)
    return float(low), float(high)


@pytest.mark.parametrize(
    ("name", "hits", "rows"),
    [("precision", 8, 12), ("recall", 8, 20), ("accuracy", 84, 100), ("selection_rate", 12, 100)],
)
def test_share_of_independent_rows_has_jeffreys_bounds(name: str, hits: int, rows: int) -> None:
    assert bounds(interval(name)) == pytest.approx(jeffreys(hits, rows))


def test_f1_is_held_by_the_share_of_hits_among_hits_and_errors() -> None:
    low, high = jeffreys(8, 24)
    expected = (2 * low / (1 + low), 2 * high / (1 + high))
    assert bounds(interval("f1")) == pytest.approx(expected)


def test_balanced_accuracy_adds_the_distances_of_its_two_shares() -> None:
    (tpr_low, tpr_high), (tnr_low, tnr_high) = jeffreys(8, 20), jeffreys(76, 80)
    lower = 0.675 - np.hypot(0.4 - tpr_low, 0.95 - tnr_low) / 2
    upper = 0.675 + np.hypot(tpr_high - 0.4, tnr_high - 0.95) / 2
    assert bounds(interval("balanced_accuracy")) == pytest.approx((lower, upper))


def test_mcc_is_normal_on_fishers_scale_with_the_known_variance() -> None:
    many = interval("mcc", 100)  # 10,000 rows: the rows added to each cell do not count
    low, high = np.arctanh(bounds(many))
    # Bishop, Fienberg & Holland 1975, p. 382, of phi, over (1 - phi^2)^2
    phi, p, q = VALUES["mcc"], 0.2, 0.12
    skew = (1 - 2 * p) * (1 - 2 * q) / (p * (1 - p) * q * (1 - q)) ** 0.5
    slopes = (1 - 2 * p) ** 2 / (p * (1 - p)) + (1 - 2 * q) ** 2 / (q * (1 - q))
    variance = 1 - phi**2 + phi * (1 + phi**2 / 2) * skew - 0.75 * phi**2 * slopes
    expected = 2 * 1.6449 * (variance / 10_000) ** 0.5 / (1 - phi**2)
    assert high - low == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("name", OF_DECISIONS)
def test_rows_of_an_entity_that_say_the_same_count_once(name: str) -> None:
    once, copies, independent = (
        interval(name),
        interval(name, 4, are_entities=True),
        interval(name, 4),
    )
    assert copies.width == pytest.approx(once.width, rel=0.12)  # 8 hits tell the effect roughly
    assert (once.width or 0) > 1.8 * (independent.width or 1)


@pytest.mark.parametrize("name", OF_DECISIONS)
def test_interval_holds_its_value_and_the_bounds_are_within_it(name: str) -> None:
    found = interval(name)
    assert found.low is not None
    assert found.high is not None
    lower, upper = bounds(found)
    assert found.low < lower < VALUES[name] < upper < found.high


def test_share_at_its_end_has_the_exact_bound() -> None:
    found = bootstrap_metrics([1] * 30 + [0], [0.9] * 30 + [0.1], 0.5, seed=0)["recall"]
    assert found.value == found.upper == found.high == 1
    assert found.lower == pytest.approx(0.05 ** (1 / 30))
    assert found.low == pytest.approx(0.025 ** (1 / 30))
    none = bootstrap_metrics([1] * 30 + [0], [0.1] * 31, 0.5, seed=0)["recall"]
    assert (none.value, none.low, none.lower) == (0, 0, 0)
    assert none.upper == pytest.approx(1 - 0.05 ** (1 / 30))


def test_mcc_of_an_empty_cell_has_an_interval() -> None:
    y, selected = decisions()
    kept = (y == 1) | ~selected
    found = decision_interval("mcc", 0.5, y[kept], selected[kept], np.arange(kept.sum()))
    lower, upper = bounds(found)
    assert 0 < lower < 0.5 < upper < 1
