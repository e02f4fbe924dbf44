from functools import partial

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.lifecycle.rollouts import find_champion, get_rollout, rollout_events
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.ops.tables import ROLLOUT
from mlops_pipeline_tests.lifecycle.rollout_steps import (
    open_champion,
    open_version,
    open_waiting,
    states,
)
from mlops_pipeline_tests.stores.ops.concurrent_writers import run_at_once
from mlops_pipeline_tests.stores.ops.timestamps import later


def test_champion_before_any_rollout_is_none(database: OpsDatabase) -> None:
    assert find_champion(database, "churn") is None


def test_open_champion_makes_champion(database: OpsDatabase) -> None:
    opened = open_champion(database, 1)
    assert find_champion(database, "churn") == opened
    assert (opened.version, opened.state, opened.stages) == (1, "champion", ("full",))
    assert opened.waiting_for is None


def test_open_champion_moves_champion_to_previous_and_previous_to_archived(
    database: OpsDatabase,
) -> None:
    for version in (1, 2, 3):
        open_champion(database, version)
    assert states(database) == {3: "champion", 2: "previous", 1: "archived"}


def test_open_waiting_keeps_champion(database: OpsDatabase) -> None:
    open_champion(database, 1)
    opened = open_waiting(database, 2)
    assert opened.waiting_for == "approval of production"
    assert states(database) == {2: "awaiting_approval", 1: "champion"}


def test_open_waiting_supersedes_older_waiting_of_same_use_case_only(
    database: OpsDatabase,
) -> None:
    open_waiting(database, 1, use_case="fraud")
    open_waiting(database, 1)
    open_waiting(database, 2)
    assert states(database) == {2: "awaiting_approval", 1: "superseded"}
    assert states(database, "fraud") == {1: "awaiting_approval"}
    assert get_rollout(database, "churn", 1).waiting_for is None


def test_open_twice_returns_first_and_writes_nothing(database: OpsDatabase) -> None:
    first = open_waiting(database, 1)
    again = open_version(database, 1, state="champion", now=later(60))
    assert again == first
    assert len(rollout_events(database, "churn")) == 1


def test_open_twice_with_other_fingerprint_is_refused(database: OpsDatabase) -> None:
    open_waiting(database, 1)
    with pytest.raises(StateError, match="fingerprint other"):
        open_version(database, 1, state="champion", fingerprint="other")


def test_rollout_of_unknown_version_lists_known(database: OpsDatabase) -> None:
    for version in (1, 2):
        open_champion(database, version)
    with pytest.raises(NotFoundError, match="one of 1, 2"):
        get_rollout(database, "churn", 9)


def test_rollout_of_unknown_use_case_says_there_is_none(database: OpsDatabase) -> None:
    with pytest.raises(NotFoundError, match="no rollout of churn at all"):
        get_rollout(database, "churn", 1)


def test_events_tell_every_change_in_order(database: OpsDatabase) -> None:
    open_champion(database, 1)
    open_champion(database, 2)
    told = [
        (event.version, event.from_state, event.to_state, event.actor, event.reason)
        for event in rollout_events(database, "churn")
    ]
    assert told == [
        (1, None, "champion", "run dagster-1", "gate passed"),
        (1, "champion", "previous", "run dagster-2", "version 2 became champion"),
        (2, None, "champion", "run dagster-2", "gate passed"),
    ]


def test_events_of_one_version_leave_out_the_others(database: OpsDatabase) -> None:
    open_champion(database, 1)
    open_champion(database, 2)
    assert [event.version for event in rollout_events(database, "churn", 1)] == [1, 1]
    with pytest.raises(NotFoundError, match="Version 3"):
        rollout_events(database, "churn", 3)


def test_open_champion_eight_at_once_leaves_one_champion(database: OpsDatabase, url: str) -> None:
    run_at_once(url, [partial(open_champion, version=version) for version in range(1, 9)])
    assert sorted(states(database).values()) == ["archived"] * 6 + ["champion", "previous"]


def test_open_same_version_eight_at_once_opens_it_once(database: OpsDatabase, url: str) -> None:
    opened = run_at_once(url, [partial(open_waiting, version=1)] * 8)
    assert opened == [get_rollout(database, "churn", 1)] * 8
    assert len(rollout_events(database, "churn")) == 1


def test_second_champion_is_refused_by_the_database_itself(database: OpsDatabase) -> None:
    open_champion(database, 1)
    open_waiting(database, 2)
    with pytest.raises(IntegrityError), database.write("test") as tx:
        tx.connection.execute(update(ROLLOUT.table).values(state="champion"))
    assert states(database) == {2: "awaiting_approval", 1: "champion"}
