from mlops_pipeline.lifecycle.bookkeeping import NewDecision, list_decisions, record_decision
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.stores.ops.timestamps import NOON


def test_decisions_are_listed_last_first_and_by_kind(database: OpsDatabase) -> None:
    evidence = {"psi": 0.31}
    first = record_decision(
        database, "churn", NewDecision("retraining", "wait", "cooldown", evidence), now=NOON
    )
    second = record_decision(
        database, "churn", NewDecision("rollback", "keep", "healthy", {}, run_key="k"), now=NOON
    )
    assert [found.id for found in list_decisions(database, "churn")] == [second, first]
    assert [found.id for found in list_decisions(database, "churn", limit=1)] == [second]
    (found,) = list_decisions(database, "churn", kind="retraining")
    assert (found.action, found.reason, found.evidence) == ("wait", "cooldown", evidence)
    assert (found.at, found.run_key) == (NOON, None)
