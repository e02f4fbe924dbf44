from collections.abc import Callable
from functools import partial

import pytest

from mlops_pipeline.errors import LeaseError
from mlops_pipeline.stores.ops import Lease, OpsDatabase
from mlops_pipeline.stores.ops.lease import get_lease
from mlops_pipeline_tests.stores.ops.concurrent_writers import run_at_once
from mlops_pipeline_tests.stores.ops.lease_steps import (
    acquire_lease,
    linger_lease,
    release_lease,
    renew_lease,
)
from mlops_pipeline_tests.stores.ops.timestamps import NOON, later

NAME = "lifecycle:churn"


def acquire(database: OpsDatabase, holder: str, at_s: float = 0, pid: int = 7) -> Lease:
    return acquire_lease(database, NAME, holder, host="laptop", pid=pid, ttl_s=30, now=later(at_s))


def contend(holder: str, at_s: float = 0) -> Callable[[OpsDatabase], Lease]:
    return lambda database: acquire(database, holder, at_s)


def test_acquire_free_lease_returns_it(database: OpsDatabase) -> None:
    taken = acquire(database, "run-1")
    assert get_lease(database, NAME) == taken
    assert (taken.holder, taken.host, taken.pid, taken.token) == ("run-1", "laptop", 7, 1)
    assert (taken.acquired_at, taken.heartbeat_at, taken.expires_at) == (NOON, NOON, later(30))


def test_get_lease_never_taken_is_none(database: OpsDatabase) -> None:
    assert get_lease(database, NAME) is None


def test_acquire_held_lease_names_holder_and_expiry(database: OpsDatabase) -> None:
    acquire(database, "run-1")
    with pytest.raises(LeaseError) as refusal:
        acquire(database, "run-2", at_s=12)
    for told in ("run-1", "laptop", "process 7", "12 s ago", later(30).isoformat(), "in 18 s"):
        assert told in str(refusal.value)


def test_acquire_other_name_is_independent(database: OpsDatabase) -> None:
    acquire(database, "run-1")
    other = acquire_lease(database, "other", "run-2", host="h", pid=1, ttl_s=30, now=NOON)
    assert other.token == 1


def test_acquire_again_by_holder_renews_and_keeps_token(database: OpsDatabase) -> None:
    acquire(database, "run-1")
    again = acquire(database, "run-1", at_s=20, pid=8)
    assert (again.pid, again.token, again.beats) == (8, 1, 1)
    assert (again.acquired_at, again.expires_at) == (NOON, later(50))


@pytest.mark.parametrize(("at_s", "is_taken"), [(29.999, False), (30, True)])
def test_acquire_takes_over_when_expired(
    database: OpsDatabase, at_s: float, is_taken: bool
) -> None:
    acquire(database, "run-1")
    if not is_taken:
        with pytest.raises(LeaseError):
            acquire(database, "run-2", at_s=at_s)
    else:
        taken = acquire(database, "run-2", at_s=at_s)
        assert (taken.holder, taken.token, taken.beats) == ("run-2", 2, 0)


def test_renew_moves_expiry(database: OpsDatabase) -> None:
    acquire(database, "run-1")
    assert renew_lease(database, NAME, "run-1", ttl_s=30, now=later(20)) is True
    renewed = get_lease(database, NAME)
    assert renewed is not None
    assert (renewed.beats, renewed.heartbeat_at, renewed.expires_at) == (1, later(20), later(50))


def test_renew_expired_lease_that_nobody_took_keeps_it(database: OpsDatabase) -> None:
    acquire(database, "run-1")
    assert renew_lease(database, NAME, "run-1", ttl_s=30, now=later(99)) is True
    with pytest.raises(LeaseError):
        acquire(database, "run-2", at_s=100)


def test_renew_without_having_it_returns_false(database: OpsDatabase) -> None:
    assert renew_lease(database, NAME, "run-1", ttl_s=30, now=NOON) is False
    acquire(database, "run-1")
    assert renew_lease(database, NAME, "run-2", ttl_s=30, now=NOON) is False
    release_lease(database, NAME, "run-1")
    assert renew_lease(database, NAME, "run-1", ttl_s=30, now=NOON) is False


def test_renew_with_token_of_before_another_holder_returns_false(database: OpsDatabase) -> None:
    first = acquire(database, "run-1")
    acquire(database, "run-2", at_s=30)
    release_lease(database, NAME, "run-2")
    acquire(database, "run-1", at_s=31)
    renew = partial(renew_lease, database)
    assert renew(NAME, "run-1", ttl_s=30, now=later(32), token=first.token) is False
    assert renew(NAME, "run-1", ttl_s=30, now=later(32), token=3) is True


def test_release_frees_it_and_token_still_rises(database: OpsDatabase) -> None:
    acquire(database, "run-1")
    assert release_lease(database, NAME, "run-1") is True
    assert get_lease(database, NAME) is None
    assert acquire(database, "run-2", at_s=1).token == 2


def test_release_by_other_changes_nothing(database: OpsDatabase) -> None:
    taken = acquire(database, "run-1")
    assert release_lease(database, NAME, "run-2") is False
    assert get_lease(database, NAME) == taken


def test_linger_keeps_it_for_holder_only(database: OpsDatabase) -> None:
    acquire(database, "run-1")
    assert linger_lease(database, NAME, "run-1", linger_s=120, now=later(10)) is True
    with pytest.raises(LeaseError, match="lingering"):
        acquire(database, "run-2", at_s=129)
    again = acquire(database, "run-1", at_s=60)
    assert (again.state, again.token) == ("held", 1)


def test_acquire_eight_at_once_has_one_winner(database: OpsDatabase, url: str) -> None:
    results = run_at_once(url, [contend(f"run-{number}") for number in range(8)])
    winners = [result for result in results if isinstance(result, Lease)]
    assert winners == [get_lease(database, NAME)]
    assert sum(isinstance(result, LeaseError) for result in results) == 7


def test_take_over_expired_eight_at_once_has_one_winner(database: OpsDatabase, url: str) -> None:
    acquire(database, "dead")
    results = run_at_once(url, [contend(f"run-{number}", at_s=31) for number in range(8)])
    winners = [result for result in results if isinstance(result, Lease)]
    assert [winner.token for winner in winners] == [2]
