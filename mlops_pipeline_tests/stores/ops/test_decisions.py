from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.stores.ops.timestamps import NOON


def test_decisions_are_listed_last_first_and_by_kind(database: OpsDatabase) -> None:
    evidence = {"psi": 0.31}
    first = database.record_decision("churn", "retraining", "wait", "cooldown", evidence, now=NOON)
    second = database.record_decision(
        "churn", "rollback", "keep", "healthy", {}, now=NOON, run_key="k"
    )
    assert [found.id for found in database.list_decisions("churn")] == [second, first]
    assert [found.id for found in database.list_decisions("churn", limit=1)] == [second]
    (found,) = database.list_decisions("churn", kind="retraining")
    assert (found.action, found.reason, found.evidence) == ("wait", "cooldown", evidence)
    assert (found.at, found.run_key) == (NOON, None)
