import pytest

from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.alerts import (
    NewAlert,
    list_alerts,
    raise_alert,
    resolve_alert,
    resolve_alerts_by_key,
)
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.stores.ops.concurrent_writers import run_at_once
from mlops_pipeline_tests.stores.ops.timestamps import NOON, later


def warn(database: OpsDatabase, key: str | None = "psi:tenure", at_s: float = 0) -> int:
    return raise_alert(
        database,
        "churn",
        NewAlert("drift", "warning", "PSI 0.2", "look", dedupe_key=key),
        now=later(at_s),
    )


def test_alert_with_open_key_is_counted_not_repeated(database: OpsDatabase) -> None:
    first = warn(database)
    assert warn(database, at_s=60) == first
    assert warn(database, key="psi:income") != first
    found = list_alerts(database, "churn")[-1]
    assert (found.times_raised, found.raised_at, found.last_raised_at) == (2, NOON, later(60))


def test_alert_without_key_is_always_new(database: OpsDatabase) -> None:
    assert warn(database, key=None) != warn(database, key=None)


def test_alert_raised_eight_times_at_once_is_one(database: OpsDatabase, url: str) -> None:
    assert len(set(run_at_once(url, [warn] * 8))) == 1
    assert list_alerts(database, "churn")[0].times_raised == 8


def test_alert_resolved_is_closed_once_and_key_is_free_again(database: OpsDatabase) -> None:
    alert_id = warn(database)
    closed = resolve_alert(database, "churn", alert_id, by="ada", reason="fixed", now=later(5))
    assert (closed.resolved_at, closed.resolved_by) == (later(5), "ada")
    again = resolve_alert(database, "churn", alert_id, by="bob", reason="late", now=later(9))
    assert again == closed
    assert list_alerts(database, "churn", open_only=True) == []
    assert warn(database, at_s=10) != alert_id
    assert len(list_alerts(database, "churn", open_only=True)) == 1


def test_alert_resolved_by_key_closes_the_open_one(database: OpsDatabase) -> None:
    warn(database)
    key = "psi:tenure"
    for closed in (1, 0):
        assert closed == resolve_alerts_by_key(
            database, "churn", key, by="monitor", reason="PSI is back to 0.02", now=later(5)
        )
    assert list_alerts(database, "churn")[0].resolution == "PSI is back to 0.02"


def test_alert_resolved_for_other_use_case_is_not_found(database: OpsDatabase) -> None:
    alert_id = warn(database)
    with pytest.raises(NotFoundError, match="of fraud"):
        resolve_alert(database, "fraud", alert_id, by="ada", reason="x", now=NOON)
    assert len(list_alerts(database, "churn", open_only=True)) == 1
