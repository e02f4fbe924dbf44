from functools import partial

import pytest

from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.lifecycle.bookkeeping import (
    NEWEST,
    finish_lifecycle,
    last_finished_lifecycle,
    last_lifecycle,
    record_step_seconds,
    start_lifecycle,
    step_seconds,
)
from mlops_pipeline.stores.ops import LifecycleRun, OpsDatabase
from mlops_pipeline_tests.stores.ops.concurrent_writers import run_at_once
from mlops_pipeline_tests.stores.ops.timestamps import NOON, later


def start(database: OpsDatabase, run_id: str, at_s: float = 0) -> None:
    start_lifecycle(database, "churn", run_id, as_of=NOON, trigger="manual", now=later(at_s))


def finish(database: OpsDatabase, run_id: str, verdict: str = "promoted", at_s: float = 9) -> None:
    finish_lifecycle(
        database,
        "churn",
        run_id,
        verdict=verdict,
        fingerprint="f",
        summary={"auc": 0.8},
        now=later(at_s),
    )


def test_lifecycle_started_twice_keeps_the_first(database: OpsDatabase) -> None:
    start(database, "run-1")
    start(database, "run-1", at_s=60)
    (found,) = database.all(LifecycleRun, use_case="churn")
    assert (found.started_at, found.finished_at, found.verdict) == (NOON, None, None)


def test_lifecycle_finished_holds_verdict_and_summary(database: OpsDatabase) -> None:
    start(database, "run-1")
    finish(database, "run-1", verdict="champion kept")
    found = last_finished_lifecycle(database, "churn")
    assert found is not None
    assert (found.run_id, found.as_of, found.trigger) == ("run-1", NOON, "manual")
    assert (found.verdict, found.fingerprint) == ("champion kept", "f")
    assert (found.summary, found.finished_at) == ({"auc": 0.8}, later(9))


def test_lifecycle_finished_twice_keeps_the_first(database: OpsDatabase) -> None:
    start(database, "run-1")
    finish(database, "run-1")
    finish(database, "run-1", at_s=60)
    found = last_lifecycle(database, "churn")
    assert found is not None
    assert found.finished_at == later(9)
    with pytest.raises(StateError, match="verdict 'promoted' again"):
        finish(database, "run-1", verdict="failed")


def test_lifecycle_finished_without_start_is_not_found(database: OpsDatabase) -> None:
    with pytest.raises(NotFoundError, match="run-1"):
        finish(database, "run-1")


def test_lifecycle_lists_newest_first_and_last_finished_by_its_end(database: OpsDatabase) -> None:
    assert last_lifecycle(database, "churn") is None
    assert last_finished_lifecycle(database, "churn") is None
    for at_s, run_id in enumerate(("slow", "quick", "open")):
        start(database, run_id, at_s=at_s)
    finish(database, "quick", at_s=10)
    finish(database, "slow", at_s=20, verdict="champion kept")
    last, finished = last_lifecycle(database, "churn"), last_finished_lifecycle(database, "churn")
    assert last is not None
    assert finished is not None
    assert (last.run_id, finished.run_id) == ("open", "slow")
    listed = [found.run_id for found in database.all(LifecycleRun, order=NEWEST, limit=2)]
    assert listed == ["open", "quick"]
    assert last_lifecycle(database, "fraud") is None


def test_step_seconds_of_attempts_add_up(database: OpsDatabase) -> None:
    record_step_seconds(database, "churn", "run-1", "features", 1.5)
    record_step_seconds(database, "churn", "run-1", "features", 2.0)
    record_step_seconds(database, "churn", "run-1", "raw_data", 0.25)
    assert step_seconds(database, "churn", "run-1") == {"features": 3.5, "raw_data": 0.25}
    assert step_seconds(database, "churn", "run-2") == {}


def test_step_seconds_of_concurrent_steps_are_all_kept(database: OpsDatabase, url: str) -> None:
    names = ["shared", "shared", "shared", "shared", "a", "b", "c", "d"]
    run_at_once(url, [partial(record_second, asset=name) for name in names])
    expected = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0, "shared": 4.0}
    assert step_seconds(database, "churn", "run-1") == expected


def record_second(database: OpsDatabase, asset: str) -> None:
    record_step_seconds(database, "churn", "run-1", asset, 1.0)
