"""Rows that the audit chain tells of are held against it: what was altered, put or taken shows."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta, timezone

import pytest

from mlops_pipeline.core.audit.chain import ChainCheck, RecordCheck
from mlops_pipeline.core.rollout.records import Approval, Rollout
from mlops_pipeline.lifecycle.bookkeeping import NewDecision, record_decision, start_lifecycle
from mlops_pipeline.lifecycle.exceptions import grant_exception, revoke_exception
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.ops.audit import stored_digests, stored_events, stored_records
from mlops_pipeline.stores.ops.tables import AUDITED_KINDS
from mlops_pipeline_tests.lifecycle.rollout_steps import approve, open_version
from mlops_pipeline_tests.stores.ops.tampering import tamper
from mlops_pipeline_tests.stores.ops.timestamps import NOON, later


@pytest.fixture
def filled(database: OpsDatabase) -> OpsDatabase:
    """A database with a row of every kind that has an event."""
    open_version(database, 1, state="champion")
    open_version(database, 2, state="awaiting_approval", now=later(10))
    east = timezone(timedelta(hours=5, minutes=30))
    end = (NOON + timedelta(days=30)).astimezone(east)
    approve(database, "churn", 2, by="ada", reason="better", expires_at=end, now=later(20))
    evidence = {"auc": 0.1 + 0.2, "by_month": {1: None}, "names": ["é", "b"]}
    record_decision(
        database, "churn", NewDecision("retraining", "wait", "few labels", evidence), now=later(30)
    )
    held = grant_exception(
        database,
        "churn",
        "demographic_parity",
        "region",
        by="bo",
        reason="r",
        expires_at=end,
        now=later(40),
    )
    revoke_exception(database, "churn", held.id, by="cy", reason="mended", now=later(50))
    start_lifecycle(database, "churn", "run-1", as_of=NOON, trigger="manual", now=later(60))
    start_lifecycle(
        database, "churn", "run-2", as_of=NOON, trigger="monthly", triggered_by="ada", now=later(61)
    )
    return database


def test_row_is_vouched_for_while_it_is_as_its_newest_event_tells(filled: OpsDatabase) -> None:
    rollout, (approval,) = filled.find(Rollout, version=2), filled.all(Approval)
    assert filled.is_vouched_for(rollout)
    assert filled.is_vouched_for(approval)
    assert not filled.is_vouched_for(replace(approval, verdict="rejected"))
    tamper(filled, "UPDATE rollout SET reason = 'none' WHERE version = 2")
    assert not filled.is_vouched_for(rollout)
    assert filled.is_vouched_for(filled.find(Rollout, version=1))


def problems(database: OpsDatabase, *, meanwhile: Callable[[], object] | None = None) -> list[str]:
    chain = ChainCheck([])
    known, _ = database.audit_head()
    records = RecordCheck(
        stored_records(database), stored_digests(database), known, AUDITED_KINDS, chain.report
    )
    if meanwhile is not None:
        meanwhile()
    for event in stored_events(database):
        chain.add(event)
        records.add(event)
    records.finish()
    return [*map(str, chain.problems)]


def test_rows_that_nobody_touched_agree_with_their_events(filled: OpsDatabase) -> None:
    assert problems(filled) == []


def test_rows_written_while_the_check_reads_are_no_problem(filled: OpsDatabase) -> None:
    def write() -> None:
        record_decision(
            filled, "churn", NewDecision("retraining", "wait", "again", {}), now=later(70)
        )

    assert problems(filled, meanwhile=write) == []


@pytest.mark.parametrize(
    ("change", "row"),
    [
        ("approval SET by = 'eve'", "approval 1"),
        ("approval SET reason = 'worse'", "approval 1"),
        ("approval SET expires_at = expires_at + 1", "approval 1"),
        ("approval SET expires_at = 9000000000000000000", "approval 1"),
        ("approval SET at = at + 1", "approval 1"),
        ("approval SET stage = 'staging'", "approval 1"),
        ("rollout_event SET reason = 'x' WHERE id = 2", "rollout_event 2"),
        ("rollout_event SET actor = 'eve' WHERE id = 2", "rollout_event 2"),
        ("decision SET action = 'retrain'", "decision 1"),
        ("decision SET evidence = '{}'", "decision 1"),
        ("decision SET evidence = 'nonsense'", "decision 1"),
        ("decision SET use_case = 'fraud'", "decision 1"),
        ("gate_exception SET expires_at = expires_at + 1 WHERE id = 1", "gate_exception 1"),
        ("gate_exception SET reason = 'x' WHERE id = 2", "gate_exception 2"),
        ("lifecycle_run SET triggered_by = 'eve' WHERE id = 1", "lifecycle_run 1"),
        ("lifecycle_run SET as_of = 0 WHERE id = 2", "lifecycle_run 2"),
    ],
)
def test_altered_row_is_named_with_its_event(filled: OpsDatabase, change: str, row: str) -> None:
    quoted = change.replace(" by =", ' "by" =')
    tamper(filled, f"UPDATE {quoted}")
    (problem, *also) = problems(filled)
    assert problem.startswith("event ")
    twice = ("gate_exception", "lifecycle_run", "rollout_event")
    assert len(also) == row.startswith(twice)  # its digest too
    assert f": {row} does not say what it says: the row was altered" in problem


def test_version_of_a_rollout_altered_shows_in_all_its_rows(filled: OpsDatabase) -> None:
    tamper(filled, "UPDATE rollout SET version = 9 WHERE version = 2")
    found = problems(filled)
    assert len(found) == 6  # it waited, was approved, became the champion; three digests
    assert all("the row was altered" in problem for problem in found)


def test_state_altered_without_an_event_is_named(filled: OpsDatabase) -> None:
    tamper(filled, "UPDATE rollout SET state = 'archived' WHERE version = 2")
    (problem,) = problems(filled)
    assert problem.endswith("rollout [2] is not what its newest event says: the row was altered")


def test_row_that_was_taken_away_is_named(filled: OpsDatabase) -> None:
    tamper(filled, "DELETE FROM approval")
    (problem,) = problems(filled)
    assert "(approval, " in problem
    assert problem.endswith("approval 1, of which it tells, is gone")


def test_row_that_was_put_there_is_named(filled: OpsDatabase) -> None:
    columns = 'rollout_id, stage, verdict, "by", reason, at'
    tamper(filled, f"INSERT INTO approval ({columns}) VALUES (1, 'production', 'approved', 'eve', "
                   "'fine', 0)")  # fmt: skip
    assert problems(filled) == ["approval 2 has no event: the row was put there"]
