"""Costs: hand-computed, with refused and failed runs included, never a made-up zero."""

from typing import Any

import pytest

from mlops_pipeline.core.monitoring.cost import CostSheet, cost_sheet, total_by_owner
from mlops_pipeline_tests.worlds import shop

HOUR = 3_600.0
RUNS = {
    "accepted": {"raw_data": 0.25 * HOUR, "trained_model": 0.5 * HOUR, "deployment": 0.25 * HOUR},
    "refused": {"raw_data": 1.0 * HOUR, "trained_model": 2.0 * HOUR},
    "bad data": {"raw_data": 0.5 * HOUR},
    "scored": {"batch_predictions": 0.1 * HOUR},
}


def sheet(runs: Any = RUNS, predictions: int = 4_000, accepted: int = 1, **price: Any) -> CostSheet:
    case = shop(compute_cost={"per_hour": 2.0, **price})
    return cost_sheet(case, runs, predictions=predictions, accepted=accepted)


def test_cost_sheet_matches_hand_computed() -> None:
    found = sheet()
    assert found.total == pytest.approx(2.0 * (1.0 + 3.0 + 0.5 + 0.1))
    assert found.training_runs == 2
    assert found.per_training_run.value == pytest.approx(2.0 * (1.0 + 3.0) / 2)
    assert found.per_1000_predictions.value == pytest.approx(2.0 * 0.1 / 4)
    assert found.per_accepted_improvement.value == pytest.approx(2.0 * (1.0 + 3.0 + 0.5))


def test_cost_of_nothing_is_not_computable() -> None:
    found = sheet({}, predictions=0, accepted=0)
    assert found.total == 0.0
    reasons = [
        estimate.reason
        for estimate in (
            found.per_training_run,
            found.per_1000_predictions,
            found.per_accepted_improvement,
        )
    ]
    assert reasons == ["no run reached training", "nothing was scored", "no version was accepted"]
    plain = found.to_dict()
    assert plain["per_training_run"] is None
    assert plain["currency"] == "EUR"


def test_total_by_owner_never_adds_currencies() -> None:
    totals = total_by_owner([sheet(), sheet(), sheet(currency="USD")])
    assert totals == {
        ("tests", "EUR"): pytest.approx(18.4),
        ("tests", "USD"): pytest.approx(9.2),
    }


def test_default_price_is_the_documented_one() -> None:
    assert shop().compute_cost.of(10_000.0) == pytest.approx(1.0)
