import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial

import pytest
from sqlalchemy.exc import OperationalError

from mlops_pipeline.errors import LeaseError
from mlops_pipeline.stores.ops import HeldLease, OpsDatabase, lease
from mlops_pipeline.stores.ops.lease import get_lease
from mlops_pipeline_tests.stores.ops.concurrent_writers import run_at_once
from mlops_pipeline_tests.stores.ops.lease_steps import (
    acquire_lease,
    linger_lease,
    release_lease,
    renew_lease,
)
from mlops_pipeline_tests.stores.ops.timestamps import NOON, ManualClock, later, never_sleep

NAME = "lifecycle:churn"
IDLE_S = 3600.0  # a heartbeat that does not come during a test

HOLD_UNTIL_KILLED = """
import sys
from datetime import UTC, datetime
from mlops_pipeline.stores.ops import HeldLease
now = datetime(2024, 5, 1, 12, tzinfo=UTC)
with HeldLease(sys.argv[1], "lifecycle:churn", "run-1", clock=lambda: now):
    print("held", flush=True)
    sys.stdin.readline()
"""


def hold_elsewhere(database: OpsDatabase, ttl_s: float = 30) -> None:
    acquire_lease(database, NAME, "run-1", host="other-host", pid=1, ttl_s=ttl_s, now=NOON)


def test_held_lease_is_held_inside_and_released_after(database: OpsDatabase) -> None:
    with HeldLease(database, NAME, "run-1", clock=ManualClock(), sleep=never_sleep) as held:
        found = get_lease(database, NAME)
        assert found == held.lease
        assert (found.host, found.pid) == (socket.gethostname(), os.getpid())
        held.check()
    assert get_lease(database, NAME) is None


def test_held_lease_lingers_after_clean_exit(url: str, database: OpsDatabase) -> None:
    with HeldLease(url, NAME, "run-1", clock=ManualClock(), linger_s=120):
        pass
    found = get_lease(database, NAME)
    assert found is not None
    assert (found.state, found.expires_at) == ("lingering", later(120))


def test_held_lease_is_released_on_error_despite_linger(database: OpsDatabase) -> None:
    with (
        pytest.raises(ValueError, match="broken step"),
        HeldLease(database, NAME, "run-1", clock=ManualClock(), linger_s=120),
    ):
        raise ValueError("broken step")
    assert get_lease(database, NAME) is None


def test_held_lease_next_step_of_same_run_continues_lingering(database: OpsDatabase) -> None:
    for _ in range(2):
        with HeldLease(
            database, NAME, "run-1", clock=ManualClock(), linger_s=120, sleep=never_sleep
        ) as held:
            assert held.lease.token == 1


def test_held_lease_whose_heartbeat_moves_refuses_contender_at_once(database: OpsDatabase) -> None:
    hold_elsewhere(database)
    clock = ManualClock()

    def sleep_while_holder_beats(seconds: float) -> None:
        clock.sleep(seconds)
        renew_lease(database, NAME, "run-1", ttl_s=30, now=clock())

    contender = HeldLease(database, NAME, "run-2", clock=clock, sleep=sleep_while_holder_beats)
    with pytest.raises(LeaseError, match="in use by run-1"):
        contender.__enter__()
    assert clock.slept_s == 1


def test_held_lease_waits_for_a_holder_that_works_as_long_as_it_is_told(
    database: OpsDatabase,
) -> None:
    hold_elsewhere(database)
    clock, ends_s = ManualClock(), 100.0

    def sleep_while_holder_works(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.slept_s < ends_s:
            renew_lease(database, NAME, "run-1", ttl_s=30, now=clock())
        else:
            release_lease(database, NAME, "run-1")

    def contender(wait_s: float) -> HeldLease:
        return HeldLease(
            database, NAME, "run-2", clock=clock, sleep=sleep_while_holder_works, wait_s=wait_s
        )

    with pytest.raises(LeaseError, match="in use by run-1"):
        contender(20).__enter__()
    assert 20 <= clock.slept_s < 60
    with contender(3_600) as held:
        assert held.lease.holder == "run-2"
    assert ends_s <= clock.slept_s < ends_s + 10


def test_held_lease_whose_holder_is_silent_is_taken_over(database: OpsDatabase) -> None:
    hold_elsewhere(database)
    clock = ManualClock()
    with HeldLease(database, NAME, "run-2", clock=clock, sleep=clock.sleep) as held:
        assert (held.lease.holder, held.lease.token, clock.slept_s) == ("run-2", 2, 30)


def test_held_lease_of_holder_with_fast_clock_is_taken_over_after_its_ttl(
    database: OpsDatabase,
) -> None:
    acquire_lease(database, NAME, "run-1", host="fast", pid=1, ttl_s=30, now=later(7200))
    clock = ManualClock()
    with HeldLease(database, NAME, "run-2", clock=clock, sleep=clock.sleep) as held:
        assert (held.lease.holder, clock.slept_s) == ("run-2", 30)


def test_held_lease_lingering_is_waited_for_although_its_process_ended(
    database: OpsDatabase,
) -> None:
    host, gone = socket.gethostname(), ended_process()
    acquire_lease(database, NAME, "run-1", host=host, pid=gone, ttl_s=30, now=NOON)
    linger_lease(database, NAME, "run-1", linger_s=90, now=NOON)
    clock = ManualClock()
    with HeldLease(database, NAME, "run-2", clock=clock, sleep=clock.sleep):
        assert clock.slept_s == 90


def test_held_lease_of_killed_process_is_taken_over_at_once(
    url: str, database: OpsDatabase
) -> None:
    command = [sys.executable, "-c", HOLD_UNTIL_KILLED, url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=20)
    found = get_lease(database, NAME)
    assert found is not None
    assert found.pid == process.pid
    with HeldLease(url, NAME, "run-2", clock=ManualClock(), sleep=never_sleep) as held:
        assert held.lease.token == 2


def test_held_lease_of_ended_process_goes_to_one_of_eight(url: str, database: OpsDatabase) -> None:
    host, gone = socket.gethostname(), ended_process()
    acquire_lease(database, NAME, "dead", host=host, pid=gone, ttl_s=30, now=NOON)
    entered = [
        HeldLease(url, NAME, f"run-{number}", clock=ManualClock(), sleep=beaten_by(database))
        for number in range(8)
    ]
    results = run_at_once(url, [partial(enter, held=held) for held in entered])
    winners = [result for result in results if isinstance(result, HeldLease)]
    assert [winner.lease.token for winner in winners] == [2]
    winners[0].__exit__(None, None, None)


def test_held_lease_taken_by_other_is_lost_at_next_beat(database: OpsDatabase) -> None:
    clock = ManualClock()
    with HeldLease(database, NAME, "run-1", clock=clock, heartbeat_s=IDLE_S) as held:
        held.beat()
        held.check()
        acquire_lease(database, NAME, "run-2", host="h", pid=1, ttl_s=30, now=later(31))
        held.beat()
        assert held.lost
        with pytest.raises(LeaseError, match="run-1 lost the lease"):
            held.check()
    found = get_lease(database, NAME)
    assert found is not None
    assert found.holder == "run-2"


def test_check_after_expiry_renews_if_nobody_took_it(database: OpsDatabase) -> None:
    clock = ManualClock()
    with HeldLease(database, NAME, "run-1", clock=clock, heartbeat_s=IDLE_S) as held:
        clock.sleep(300)
        held.check()
        found = get_lease(database, NAME)
        assert found is not None
        assert found.expires_at == later(330)


def test_check_after_expiry_notices_without_heartbeat_that_other_took_it(
    database: OpsDatabase,
) -> None:
    clock = ManualClock()
    with HeldLease(database, NAME, "run-1", clock=clock, heartbeat_s=IDLE_S) as held:
        clock.sleep(300)
        acquire_lease(database, NAME, "run-2", host="h", pid=1, ttl_s=30, now=clock())
        with pytest.raises(LeaseError, match="lost the lease"):
            held.check()


def test_heartbeat_thread_renews_and_stops(database: OpsDatabase) -> None:
    beaten = threading.Event()
    calls = []

    def clock() -> datetime:
        calls.append(threading.current_thread().name)
        if calls.count(f"lease {NAME}") > 3:
            beaten.set()
        return NOON

    with HeldLease(database, NAME, "run-1", clock=clock, heartbeat_s=0.001) as held:
        assert beaten.wait(timeout=20)
        found = get_lease(database, NAME)
        assert found is not None
        assert found.beats >= 3
        assert not held.lost
    assert f"lease {NAME}" not in [thread.name for thread in threading.enumerate()]


def test_database_that_does_not_answer_is_a_loss_only_after_expiry(
    database: OpsDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> bool:
        raise OperationalError("UPDATE lease", None, Exception("no route to host"))

    clock = ManualClock()
    with HeldLease(database, NAME, "run-1", clock=clock, heartbeat_s=IDLE_S) as held:
        monkeypatch.setattr(lease, "change_lease", fail)
        clock.sleep(29)
        held.beat()
        held.check()
        clock.sleep(1)
        held.beat()
        with pytest.raises(LeaseError, match="lost the lease"):
            held.check()
        monkeypatch.undo()


def enter(_: OpsDatabase, held: HeldLease) -> HeldLease:
    return held.__enter__()


def beaten_by(database: OpsDatabase) -> Callable[[float], None]:
    """Instead of sleeping, let the present holder show that it lives."""

    def beat(_: float) -> None:
        found = get_lease(database, NAME)
        assert found is not None
        renew_lease(database, NAME, found.holder, ttl_s=30, now=NOON)

    return beat


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        process.wait(timeout=20)
    return process.pid
