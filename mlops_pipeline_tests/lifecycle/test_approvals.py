from collections.abc import Callable

import pytest
from sqlalchemy import update

from mlops_pipeline.core.rollout.approvals import approval_state, has_ended, last_approval
from mlops_pipeline.core.rollout.records import Rollout
from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.lifecycle.bookkeeping import start_lifecycle
from mlops_pipeline.lifecycle.rollouts import (
    find_champion,
    get_rollout,
    list_approvals,
    roll_back,
    rollout_events,
)
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.ops.tables import ROLLOUT
from mlops_pipeline_tests.lifecycle.rollout_steps import (
    approve,
    open_champion,
    open_waiting,
    reject,
    states,
)
from mlops_pipeline_tests.stores.ops.concurrent_writers import run_at_once
from mlops_pipeline_tests.stores.ops.timestamps import NOON, later

DECIDE: dict[str, Callable[..., Rollout]] = {"approve": approve, "reject": reject}


def approving(version: int, by: str = "ada") -> Callable[[OpsDatabase], Rollout]:
    return lambda database: approve(database, "churn", version, by=by, reason="fine", now=NOON)


def rejecting(version: int) -> Callable[[OpsDatabase], Rollout]:
    return lambda database: reject(database, "churn", version, by="bob", reason="bias", now=NOON)


def test_approve_waiting_version_makes_it_champion(database: OpsDatabase) -> None:
    open_champion(database, 1)
    open_waiting(database, 2)
    approved = approve(database, "churn", 2, by=" ada ", reason="better", now=later(60))
    assert (approved.state, approved.waiting_for, approved.changed_at) == (
        "champion",
        None,
        later(60),
    )
    assert find_champion(database, "churn") == approved
    assert states(database) == {2: "champion", 1: "previous"}


def test_approve_writes_approval_and_events(database: OpsDatabase) -> None:
    open_champion(database, 1)
    open_waiting(database, 2)
    approve(database, "churn", 2, by="ada", reason="better", expires_at=later(99), now=later(60))
    (given,) = list_approvals(database, "churn")
    assert (given.use_case, given.version, given.stage) == ("churn", 2, "production")
    assert (given.verdict, given.by, given.reason) == ("approved", "ada", "better")
    assert (given.at, given.expires_at) == (later(60), later(99))
    assert [
        (event.version, event.to_state, event.actor, event.reason)
        for event in rollout_events(database, "churn")[2:]
    ] == [(1, "previous", "ada", "version 2 became champion"), (2, "champion", "ada", "better")]


def test_reject_waiting_version_keeps_champion(database: OpsDatabase) -> None:
    open_champion(database, 1)
    open_waiting(database, 2)
    assert rejecting(2)(database).state == "rejected"
    assert states(database) == {2: "rejected", 1: "champion"}
    (given,) = list_approvals(database, "churn")
    assert (given.verdict, given.stage) == ("rejected", "production")


@pytest.mark.parametrize("decide", [approving, rejecting])
def test_decide_on_champion_names_state_and_what_waits(
    database: OpsDatabase, decide: Callable[[int], Callable[[OpsDatabase], Rollout]]
) -> None:
    open_champion(database, 1)
    open_waiting(database, 5)
    with pytest.raises(StateError, match=r"(?s)state champion.*Waiting for a decision: version 5"):
        decide(1)(database)
    assert list_approvals(database, "churn") == []


def test_approve_twice_is_refused(database: OpsDatabase) -> None:
    open_waiting(database, 1)
    approving(1)(database)
    with pytest.raises(StateError, match="No version is waiting"):
        approving(1)(database)
    assert len(list_approvals(database, "churn")) == 1


def test_approve_superseded_version_is_refused(database: OpsDatabase) -> None:
    open_waiting(database, 1)
    open_waiting(database, 2)
    with pytest.raises(StateError, match="state superseded"):
        approving(1)(database)


def test_approve_unknown_version_lists_known(database: OpsDatabase) -> None:
    open_waiting(database, 4)
    with pytest.raises(NotFoundError, match="one of 4"):
        approving(5)(database)


@pytest.mark.parametrize(("by", "reason", "missing"), [("", "x", "'by'"), ("x", " ", "'reason'")])
@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_decide_without_name_or_reason_is_refused(
    database: OpsDatabase, verb: str, by: str, reason: str, missing: str
) -> None:
    open_waiting(database, 1)
    with pytest.raises(StateError, match=missing):
        DECIDE[verb](database, "churn", 1, by=by, reason=reason, now=NOON)
    assert states(database) == {1: "awaiting_approval"}


def test_approve_two_versions_at_once_leaves_one_champion(database: OpsDatabase, url: str) -> None:
    open_champion(database, 1)
    open_waiting(database, 2)
    open_waiting(database, 3)
    with database.write("test") as tx:  # two that wait: only a foreign writer does this
        waiting = ROLLOUT.table.c.version.in_([2, 3])
        tx.connection.execute(
            update(ROLLOUT.table).where(waiting).values(state="awaiting_approval")
        )
    results = run_at_once(url, [approving(2), approving(3)])
    assert all(isinstance(result, Rollout) for result in results)
    assert sorted(states(database).values()) == ["archived", "champion", "previous"]
    assert states(database)[1] == "archived"


def test_approve_and_reject_one_version_at_once_counts_once(
    database: OpsDatabase, url: str
) -> None:
    open_waiting(database, 1)
    results = run_at_once(url, [approving(1), rejecting(1)] * 4)
    assert sum(isinstance(result, Rollout) for result in results) == 1
    assert sum(isinstance(result, StateError) for result in results) == 7
    assert len(list_approvals(database, "churn")) == 1
    assert len(rollout_events(database, "churn")) == 2


def test_approve_while_newer_version_becomes_full_leaves_one_champion(
    database: OpsDatabase, url: str
) -> None:
    open_waiting(database, 1)
    run_at_once(url, [approving(1), lambda contender: open_champion(contender, 2)])
    assert states(database) in ({2: "champion", 1: "previous"}, {2: "champion", 1: "superseded"})


# stages, ends, four eyes


def state_of(database: OpsDatabase, version: int, seconds: float = 0) -> str:
    found = get_rollout(database, "churn", version)
    return approval_state(found, list_approvals(database, "churn"), now=later(seconds))


def say(database: OpsDatabase, verb: str, version: int, **options: object) -> None:
    given = {"by": "ada", "reason": "because", "now": NOON, **options}
    DECIDE[verb](database, "churn", version, **given)


def test_approval_states_follow_from_rollout_and_approvals(database: OpsDatabase) -> None:
    for version in (1, 2, 3):
        open_champion(database, version)
    open_waiting(database, 4)
    found = {version: state_of(database, version) for version in (1, 2, 3, 4)}
    assert found == {1: "archived", 2: "production", 3: "production", 4: "candidate"}
    open_waiting(database, 5)
    say(database, "reject", 5)
    assert (state_of(database, 4), state_of(database, 5)) == ("archived", "archived")


def test_staging_is_given_taken_back_and_ends(database: OpsDatabase) -> None:
    open_waiting(database, 1)
    say(database, "approve", 1, stage="staging", expires_at=later(60))
    assert states(database) == {1: "awaiting_approval"}
    assert get_rollout(database, "churn", 1).waiting_for == "approval of production"
    assert (state_of(database, 1, 59), state_of(database, 1, 60)) == ("staging", "candidate")
    say(database, "approve", 1, stage="staging")
    assert state_of(database, 1, 1_000) == "staging"
    say(database, "reject", 1, stage="staging")
    assert state_of(database, 1) == "candidate"
    say(database, "approve", 1)
    assert state_of(database, 1) == "production"


def test_champion_whose_approval_has_an_end_can_be_renewed(database: OpsDatabase) -> None:
    open_waiting(database, 1)
    say(database, "approve", 1, expires_at=later(60))
    said = last_approval(
        get_rollout(database, "churn", 1), list_approvals(database, "churn"), "production"
    )
    assert (has_ended(said, later(59)), has_ended(said, later(60))) == (False, True)
    say(database, "approve", 1, now=later(90))
    assert len(rollout_events(database, "churn")) == 2  # it was champion all the time
    said = last_approval(
        get_rollout(database, "churn", 1), list_approvals(database, "churn"), "production"
    )
    assert not has_ended(said, later(1_000))
    with pytest.raises(StateError, match="No version is waiting"):
        say(database, "approve", 1, now=later(91))  # nothing to renew


def test_approval_that_ends_before_it_begins_is_refused(database: OpsDatabase) -> None:
    open_waiting(database, 1)
    with pytest.raises(StateError, match="end before it begins"):
        say(database, "approve", 1, expires_at=NOON)


@pytest.mark.parametrize(
    ("triggered_by", "by", "refused"),
    [
        ("Ada", " ADA ", True),
        ("Ada Byron", "Ada  Byron", True),
        ("Ada", "\uff21da", True),  # a wide A
        ("ada", "bob", False),
        ("sensor", "ada", False),
        (None, "ada", True),
        ("unknown", "ada", True),
    ],
)
def test_four_eyes_refuse_who_triggered_the_run(
    database: OpsDatabase, triggered_by: str | None, by: str, refused: bool
) -> None:
    start_lifecycle(
        database,
        "churn",
        "dagster-1",
        as_of=NOON,
        trigger="manual",
        triggered_by=triggered_by,
        now=NOON,
    )
    open_waiting(database, 1)
    if refused:
        with pytest.raises(StateError, match="approval of somebody else"):
            say(database, "approve", 1, by=by, four_eyes=True)
        assert list_approvals(database, "churn") == []
        say(database, "reject", 1, by=by)  # to refuse one's own needs no second pair
    else:
        say(database, "approve", 1, by=by, four_eyes=True)
        assert states(database) == {1: "champion"}


def test_four_eyes_need_a_run_that_said_who(database: OpsDatabase) -> None:
    open_waiting(database, 1)
    with pytest.raises(StateError, match="Nobody said who triggered it"):
        say(database, "approve", 1, four_eyes=True)


def test_rollback_makes_the_version_before_champion_again(database: OpsDatabase) -> None:
    for version in (1, 2, 3):
        open_champion(database, version)
    removed, rollout = roll_back(database, "churn", by=" ada ", reason="scores doubled", now=NOON)
    assert (removed.version, removed.state) == (3, "rolled_back")
    assert (rollout.version, rollout.state) == (2, "champion")
    assert states(database) == {1: "archived", 2: "champion", 3: "rolled_back"}
    assert state_of(database, 3) == "archived"
    told = [event.detail for event in database.audit_events(kind="rollout")[:2]]
    assert [(item["version"], item["to_state"]) for item in told] == [
        (2, "champion"),
        (3, "rolled_back"),
    ]
    assert {event.actor for event in database.audit_events(kind="rollout")[:2]} == {"ada"}


@pytest.mark.parametrize(
    ("versions", "found"), [((), "no champion to roll back"), ((1,), "no version before")]
)
def test_rollback_without_a_way_back_is_refused(
    database: OpsDatabase, versions: tuple[int, ...], found: str
) -> None:
    for version in versions:
        open_champion(database, version)
    with pytest.raises(StateError, match=found):
        roll_back(database, "churn", by="ada", reason="why", now=NOON)
    assert states(database) == dict.fromkeys(versions, "champion")
