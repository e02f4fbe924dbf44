from mlops_pipeline.stores import release_runs
from mlops_pipeline.stores.evaluated import StoredEvaluation
from mlops_pipeline.training.gates import Gate
from mlops_pipeline.training.metrics import Estimate


def test_limitations_name_worse_stress_cases_and_directions_that_are_not_kept() -> None:
    metrics = {"roc_auc": Estimate(0.8)}
    cases = [
        {"group": name, "metrics": {"roc_auc": {"value": value}}}
        for name, value in (("worse", 0.7), ("better", 0.9), ("unknown", None))
    ]
    directions = [
        {"feature": name, "expected": "increasing", "violation": share, "passed": passed}
        for name, share, passed in (
            ("kept", 0.1, True),
            ("tickets", 0.62, False),
            ("few", None, None),
        )
    ]
    document = {"stress": cases, "explanations": {"directions": directions}}
    stored = StoredEvaluation(metrics, Gate(True, False, ()), document)
    assert release_runs._limitations(stored) == (
        "worse: ROC AUC 0.700 instead of 0.800",
        "tickets: expected to be increasing, goes against it by 62%",
    )
