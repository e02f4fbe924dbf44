import hashlib
import json
from functools import partial

import pytest

from mlops_pipeline.core.audit.chain import AuditEvent
from mlops_pipeline.core.rollout.machine import Event
from mlops_pipeline.errors import StateError
from mlops_pipeline.lifecycle.bookkeeping import NewDecision, record_decision
from mlops_pipeline.lifecycle.rollouts import get_rollout, send
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.lifecycle.rollout_steps import approve, open_waiting
from mlops_pipeline_tests.stores.ops.concurrent_writers import run_at_once
from mlops_pipeline_tests.stores.ops.timestamps import NOON, later


def append(database: OpsDatabase, number: int = 1) -> AuditEvent:
    return database.append_audit(
        "decision", {"number": number}, use_case="churn", actor="ada", now=later(number)
    )


def test_head_of_empty_chain_is_no_event_and_zeros(database: OpsDatabase) -> None:
    assert database.audit_head() == (0, "0" * 64)


def test_append_hashes_the_event_and_the_hash_before(database: OpsDatabase) -> None:
    first, second = append(database), append(database, 2)
    assert second.recorded_at is not None
    recorded = second.recorded_at.isoformat(timespec="microseconds")
    text = (
        '{"actor":"ada","at":"2024-05-01T12:00:02.000000+00:00","detail":{"number":2},'
        f'"kind":"decision","previous_hash":"{first.hash}","recorded_at":"{recorded}",'
        '"seq":2,"use_case":"churn"}'
    )
    assert second.hash == hashlib.sha256(text.encode()).hexdigest()
    assert (first.previous_hash, second.previous_hash) == ("0" * 64, first.hash)
    assert database.audit_head() == (2, second.hash)


def test_append_detail_keeps_what_json_gives_back(database: OpsDatabase) -> None:
    detail = {"b": (1, 2.5, None), "a": {7: "é\u0000"}}
    event = database.append_audit("x", detail, use_case=None, actor="ada", now=NOON)
    assert (
        event.detail == json.loads(json.dumps(detail)) == {"b": [1, 2.5, None], "a": {"7": "é\0"}}
    )
    assert database.audit_events() == [event]


def test_append_what_is_not_plain_json_is_refused(database: OpsDatabase) -> None:
    with pytest.raises(StateError, match="not plain JSON"):
        database.append_audit("x", {"a": float("nan")}, use_case=None, actor="ada", now=NOON)
    assert database.audit_head()[0] == 0


def test_append_from_eight_connections_counts_without_gap(database: OpsDatabase, url: str) -> None:
    run_at_once(url, [partial(append, number=number) for number in range(8)])
    events = database.audit_events()
    assert [event.seq for event in events] == list(range(8, 0, -1))
    assert {event.detail["number"] for event in events} == set(range(8))
    assert [event.previous_hash for event in events] == [
        *(event.hash for event in events[1:]),
        "0" * 64,
    ]


def test_events_are_filtered_and_the_newest_first(database: OpsDatabase) -> None:
    append(database)
    database.append_audit("approval", {}, use_case="churn", actor="ada", now=NOON)
    database.append_audit("decision", {}, use_case="fraud", actor="ada", now=NOON)
    append(database, 4)
    assert [event.seq for event in database.audit_events(use_case="churn")] == [4, 2, 1]
    assert [event.seq for event in database.audit_events(kind="decision")] == [4, 3, 1]
    assert [event.seq for event in database.audit_events(limit=2)] == [4, 3]


def test_approval_and_rollout_are_audited_in_the_order_they_happened(database: OpsDatabase) -> None:
    open_waiting(database, 1)
    approve(database, "churn", 1, by="ada", reason="good", now=later(60))
    events = [event for event in database.audit_events() if event.kind != "record"]
    told = [(event.kind, event.actor, event.at) for event in reversed(events)]
    assert told == [
        ("rollout", "run dagster-1", NOON),
        ("approval", "ada", later(60)),
        ("rollout", "ada", later(60)),
    ]
    moved, approved, opened = events
    assert opened.detail == {
        "id": 1,
        "version": 1,
        "from_state": None,
        "to_state": "awaiting_approval",
        "reason": "gate passed",
    }
    assert (approved.detail["verdict"], approved.detail["stage"]) == ("approved", "production")
    assert (moved.detail["from_state"], moved.detail["to_state"]) == (
        "awaiting_approval",
        "champion",
    )


def test_decision_is_audited_whole(database: OpsDatabase) -> None:
    key = record_decision(
        database, "churn", NewDecision("monthly", "skip", "too early", {"labels": 3}), now=NOON
    )
    (event,) = database.audit_events()
    assert (event.kind, event.use_case, event.actor) == ("decision", "churn", "mlops")
    assert event.detail == {
        "id": key,
        "kind": "monthly",
        "action": "skip",
        "reason": "too early",
        "evidence": {"labels": 3},
        "run_key": None,
    }


def test_change_that_fails_leaves_no_event(database: OpsDatabase) -> None:
    open_waiting(database, 1)
    with pytest.raises(StateError), database.write("churn") as tx:  # noqa: PT012 # it fails at its end
        send(tx, get_rollout(tx, "churn", 1), Event("reject", "ada", "no", NOON))
        raise StateError("power cut")
    assert database.audit_head()[0] == 3  # it was opened, with two records
    assert get_rollout(database, "churn", 1).state == "awaiting_approval"
