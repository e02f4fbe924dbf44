"""Leases: who may work on something now. Waiting for one, heartbeats, giving it back.

with HeldLease(url, "lifecycle:churn", run_id, clock=clock.now) as lease:
lease.check()  # before each write that another holder must not overlap
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self

from sqlalchemy.exc import SQLAlchemyError

from mlops_pipeline.errors import LeaseError
from mlops_pipeline.stores.files import is_gone
from mlops_pipeline.stores.ops.ledger import Ledger, OpsDatabase
from mlops_pipeline.stores.ops.tables import Lease

MAX_POLL_S = 1.0  # of a holder that may be silent
WAIT_POLL_S = 5.0  # of one that works for minutes


def claim_lease(
    ops: Ledger,
    name: str,
    holder: str,
    *,
    process: tuple[str, int],
    ttl_s: float,
    now: datetime,
    unless_moved: Lease | None = None,
) -> Lease:
    """Take a lease if that is allowed, and return the one in force, ours or not."""
    with ops.write(f"lease:{name}") as tx:
        present = tx.find(Lease, name=name)
        is_ours = present is not None and present.holder == holder
        if present is not None and not is_ours:
            is_dead = unless_moved is not None and not has_moved(unless_moved, present)
            if present.state != "released" and now < present.expires_at and not is_dead:
                return present
        host, pid = process
        taken = Lease(
            name, holder, host, pid, "held", token=1, beats=0, acquired_at=now,
            **sign_of_life(now, ttl_s),
        )  # fmt: skip
        if present is not None and is_ours:
            since = now if present.state == "released" else present.acquired_at
            taken = replace(taken, token=present.token, beats=present.beats + 1, acquired_at=since)
        elif present is not None:
            taken = replace(taken, token=present.token + 1)
        tx.replace(taken)
        return taken


def change_lease(
    ops: Ledger, name: str, holder: str, *, token: int | None = None, **changes: Any
) -> bool:
    """Change a lease if it is the holder's (and of `token`), expired or not; False if it is not."""
    with ops.write(f"lease:{name}") as tx:
        found = get_lease(tx, name)
        if found is None or found.holder != holder or token not in {None, found.token}:
            return False
        tx.replace(replace(found, beats=found.beats + ("heartbeat_at" in changes), **changes))
        return True


def sign_of_life(now: datetime, kept_s: float) -> dict[str, Any]:
    """Return what a sign of life changes, besides the count of them."""
    return {"heartbeat_at": now, "expires_at": now + timedelta(seconds=kept_s)}


def get_lease(ops: Ledger, name: str) -> Lease | None:
    """Return a lease, expired or not; None if it is free because nobody took or kept it."""
    found = ops.find(Lease, name=name)
    return None if found is None or found.state == "released" else found


def lease_token(ops: Ledger, name: str) -> int:
    """Return the newest fencing token: how many holders a lease has had."""
    found = ops.find(Lease, name=name)
    return 0 if found is None else found.token


@dataclass(eq=False)
class HeldLease:
    """A lease that is renewed from a daemon thread until the block ends.

    A holder whose process is gone from this host is taken over at once. A sign of life while
    waiting means that the other holder works: LeaseError. Steps of one run share a lease by using
    one holder name. If one of several concurrent steps fails, the lease is released and the others
    find it `lost`. The heartbeat opens connections of its own.
    """

    database: str | OpsDatabase
    name: str
    holder: str
    _: KW_ONLY
    clock: Callable[[], datetime]  # the time of day; standing still it would keep leases for ever
    ttl_s: float = 30.0  # a holder without a sign of life for so long is taken over
    heartbeat_s: float = 5.0
    linger_s: float = 0.0  # kept after a clean exit for the holder's next process, if there is one
    wait_s: float = 0.0  # about how long to wait for a holder that works
    sleep: Callable[[float], None] = time.sleep  # tests pass a function that moves their clock
    lost: bool = field(default=False, init=False)

    def __enter__(self) -> Self:
        url = self.database if isinstance(self.database, str) else self.database.url
        self._ops = OpsDatabase.open(url)
        self._process = (socket.gethostname(), os.getpid())
        try:
            self.lease = self._wait_for_it()
        except BaseException:
            self._ops.close()
            raise
        self._expires_at = self.lease.expires_at
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._keep_beating, name=f"lease {self.name}", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, error_type: type[BaseException] | None, *raised: object) -> None:
        self._stopping.set()
        self._thread.join()
        try:
            if error_type is None and self.linger_s > 0:
                self._change(state="lingering", **sign_of_life(self.clock(), self.linger_s))
            else:
                self._change(state="released")
        finally:
            self._ops.close()

    def _change(self, **changes: Any) -> bool:
        return change_lease(self._ops, self.name, self.holder, token=self.lease.token, **changes)

    def beat(self) -> None:
        """Send a heartbeat; a database that does not answer is no loss until the lease expired."""
        now, (host, pid) = self.clock(), self._process
        sign = sign_of_life(now, self.ttl_s)
        try:
            is_kept = self._change(state="held", host=host, pid=pid, **sign)
        except SQLAlchemyError:
            self.lost = self.lost or now >= self._expires_at
            return
        if is_kept:
            self._expires_at = sign["expires_at"]
        else:
            self.lost = True

    def check(self) -> None:
        """Raise LeaseError if the lease was lost, so that nothing is written without it."""
        if not self.lost and self.clock() >= self._expires_at:
            self.beat()  # the machine slept, or the thread was starved
        if self.lost:
            raise LeaseError(
                f"{self.holder} lost the lease {self.name}.",
                expected=f"token {self.lease.token} in force",
                found="no heartbeat was accepted in time; another holder may be at work",
                way_out="Stop here and start the run again: it goes on from what was finished.",
            )

    def _keep_beating(self) -> None:
        while not self.lost and not self._stopping.wait(self.heartbeat_s):
            self.beat()

    def _wait_for_it(self) -> Lease:
        waited_s = 0.0
        while True:
            try:
                return self._acquire()
            except LeaseError:
                if waited_s >= self.wait_s:
                    raise
            self.sleep(WAIT_POLL_S)
            waited_s += WAIT_POLL_S

    def _acquire(self) -> Lease:
        """Take the lease, waiting for a silent holder; see the class."""
        claim = partial(
            claim_lease, self._ops, self.name, self.holder, process=self._process, ttl_s=self.ttl_s
        )
        first: Lease | None = None
        waited_s = 0.0  # counted, not read from the clock: clocks of two hosts may disagree
        while True:
            now = self.clock()
            found = claim(now=now)
            if found.holder == self.holder:
                return found
            first = first or found
            # What its holder promised: seconds from a sign of life to the end of the lease.
            patience_s = (first.expires_at - first.heartbeat_at).total_seconds()
            if has_moved(first, found):
                raise held_by_other(found, now)
            if _is_gone(found) or waited_s >= patience_s:
                found = claim(now=now, unless_moved=found)
                if found.holder == self.holder:
                    return found
                raise held_by_other(found, now)
            pause_s = min(MAX_POLL_S, self.heartbeat_s)
            self.sleep(pause_s)
            waited_s += pause_s


def has_moved(before: Lease, after: Lease) -> bool:
    """Whether there was a sign of life, or a new holder, between two looks at a lease."""
    return (before.token, before.beats) != (after.token, after.beats)


def held_by_other(found: Lease, now: datetime) -> LeaseError:
    """Say who has a lease and until when."""
    age_s = (now - found.heartbeat_at).total_seconds()
    left_s = (found.expires_at - now).total_seconds()
    return LeaseError(
        f"{found.name} is in use by {found.holder}.",
        where=f"host {found.host}, process {found.pid}, {found.state}",
        found=f"last heartbeat {age_s:.0f} s ago; expires {found.expires_at.isoformat()}, "
        f"in {left_s:.0f} s, unless it is renewed",
        way_out="Wait for that run to end. If it was killed, try again after it expires.",
    )


def is_at_work(found: Lease | None, now: datetime) -> bool:
    """Whether somebody holds a lease, as far as this host can tell, at the time of day `now`."""
    return found is not None and now < found.expires_at and not _is_gone(found)


def _is_gone(found: Lease) -> bool:
    """Whether the holder's process was here and is gone; a lingering lease outlives it."""
    return found.state == "held" and found.host == socket.gethostname() and is_gone(found.pid)
