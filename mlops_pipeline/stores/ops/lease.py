"""Leases: who may work on something now. Waiting for one, heartbeats, giving it back.

    with HeldLease(url, "lifecycle:churn", run_id, clock=clock.now) as lease:
        ...
        lease.check()  # before each write that another holder must not overlap

`now` must be the time of day: a lease is about now.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
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
    with ops.write(_scope(name)) as tx:
        present = tx.find(Lease, name=name)
        is_ours = present is not None and present.holder == holder
        if present is not None and not is_ours:
            is_dead = unless_moved is not None and not has_moved(unless_moved, present)
            if present.state != "released" and now < present.expires_at and not is_dead:
                return present
        host, pid = process
        taken = Lease(
            name=name,
            holder=holder,
            host=host,
            pid=pid,
            state="held",
            token=1 if present is None else present.token + (not is_ours),
            beats=present.beats + 1 if present is not None and is_ours else 0,
            acquired_at=now,
            heartbeat_at=now,
            expires_at=now + timedelta(seconds=ttl_s),
        )
        if present is not None and is_ours and present.state != "released":
            taken = replace(taken, acquired_at=present.acquired_at)
        tx.replace(taken)
        return taken


def renew_lease(
    ops: Ledger,
    name: str,
    holder: str,
    *,
    ttl_s: float,
    now: datetime,
    token: int | None = None,
    process: tuple[str, int] | None = None,
) -> bool:
    """Send a heartbeat; False if the lease was lost or released.

    One that expired but that nobody took is renewed. `token`, from when it was taken, also refuses
    if another holder was in between; `process` says which of several of one holder sends it.
    """
    sender = {} if process is None else {"host": process[0], "pid": process[1]}
    return _change(ops, name, holder, token, state="held", **sender, **_sign(now, ttl_s))


def linger_lease(
    ops: Ledger, name: str, holder: str, *, linger_s: float, now: datetime, token: int | None = None
) -> bool:
    """Keep a lease for its holder's next process, without heartbeats; False if it was lost."""
    return _change(ops, name, holder, token, state="lingering", **_sign(now, linger_s))


def release_lease(ops: Ledger, name: str, holder: str, *, token: int | None = None) -> bool:
    """Give a lease back; returns False, and changes nothing, if it is not the holder's."""
    return _change(ops, name, holder, token, state="released")


def get_lease(ops: Ledger, name: str) -> Lease | None:
    """Return a lease, expired or not; None if it is free because nobody took or kept it."""
    found = ops.find(Lease, name=name)
    return None if found is None or found.state == "released" else found


def lease_token(ops: Ledger, name: str) -> int:
    """Return the newest fencing token: how many holders a lease has had."""
    found = ops.find(Lease, name=name)
    return 0 if found is None else found.token


class HeldLease:
    """A lease that is renewed from a daemon thread until the block ends.

    A holder that shows no sign of life for its `ttl_s` seconds is taken over, one whose process
    is gone from this host at once. A sign of life while waiting means that the other holder works:
    LeaseError right away, or after about `wait_s` seconds. Steps of one run share a lease by using
    one holder name. If one of several concurrent steps fails, the lease is released and the others
    find it `lost`. After a clean exit it is kept `linger_s` seconds for the holder's next process.

    `clock` gives the time of day, timezone-aware; one that stands still would keep leases for
    ever. The heartbeat opens connections of its own. `sleep` waits that many seconds; tests pass a
    function that moves their clock.
    """

    def __init__(  # noqa: PLR0913 # keywords: every time that a lease has
        self,
        database: str | OpsDatabase,
        name: str,
        holder: str,
        *,
        clock: Callable[[], datetime],
        ttl_s: float = 30.0,
        heartbeat_s: float = 5.0,
        linger_s: float = 0.0,
        wait_s: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = database if isinstance(database, str) else database.url
        self._name = name
        self._holder = holder
        self._ttl_s = ttl_s
        self._heartbeat_s = heartbeat_s
        self._linger_s = linger_s
        self._wait_s = wait_s
        self._clock = clock
        self._sleep = sleep
        self._process = (socket.gethostname(), os.getpid())
        self._stopping = threading.Event()
        self.lost = False

    def __enter__(self) -> Self:
        self._database = OpsDatabase.open(self._url)
        try:
            self.lease = self._wait_for_it()
        except BaseException:
            self._database.close()
            raise
        self._expires_at = self.lease.expires_at
        self._thread = threading.Thread(
            target=self._keep_beating, name=f"lease {self._name}", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, error_type: type[BaseException] | None, *raised: object) -> None:
        self._stopping.set()
        self._thread.join()
        token = self.lease.token
        try:
            if error_type is None and self._linger_s > 0:
                linger_lease(
                    self._database,
                    self._name,
                    self._holder,
                    linger_s=self._linger_s,
                    now=self._clock(),
                    token=token,
                )
            else:
                release_lease(self._database, self._name, self._holder, token=token)
        finally:
            self._database.close()

    def beat(self) -> None:
        """Send one heartbeat now; the thread does this every `heartbeat_s` seconds.

        A database that does not answer is no loss until the lease has expired.
        """
        now = self._clock()
        try:
            kept = renew_lease(
                self._database,
                self._name,
                self._holder,
                ttl_s=self._ttl_s,
                now=now,
                token=self.lease.token,
                process=self._process,
            )
        except SQLAlchemyError:
            self.lost = self.lost or now >= self._expires_at
            return
        if kept:
            self._expires_at = now + timedelta(seconds=self._ttl_s)
        else:
            self.lost = True

    def let_go(self) -> None:
        """Release the lease at the end of the block: the holder has no next process."""
        self._linger_s = 0.0

    @property
    def lingers(self) -> bool:
        """Whether the holder has a next process that the lease is kept for."""
        return self._linger_s > 0

    def check(self) -> None:
        """Raise LeaseError if the lease was lost, so that nothing is written without it."""
        if not self.lost and self._clock() >= self._expires_at:
            self.beat()  # the machine slept, or the thread was starved
        if self.lost:
            raise LeaseError(
                f"{self._holder} lost the lease {self._name}.",
                expected=f"token {self.lease.token} in force",
                found="no heartbeat was accepted in time; another holder may be at work",
                way_out="Stop here and start the run again: it goes on from what was finished.",
            )

    def _keep_beating(self) -> None:
        while not self.lost and not self._stopping.wait(self._heartbeat_s):
            self.beat()

    def _wait_for_it(self) -> Lease:
        waited_s = 0.0
        while True:
            try:
                return self._acquire()
            except LeaseError:
                if waited_s >= self._wait_s:
                    raise
            self._sleep(WAIT_POLL_S)
            waited_s += WAIT_POLL_S

    def _acquire(self) -> Lease:
        """Take the lease, waiting for a silent holder; see the class."""
        first: Lease | None = None
        waited_s = 0.0  # counted, not read from the clock: clocks of two hosts may disagree
        while True:
            now = self._clock()
            found = self._claim(now)
            if found.holder == self._holder:
                return found
            first = first or found
            # What its holder promised: seconds from a sign of life to the end of the lease.
            patience_s = (first.expires_at - first.heartbeat_at).total_seconds()
            if has_moved(first, found):
                raise held_by_other(found, now)
            if _is_gone(found) or waited_s >= patience_s:
                found = self._claim(now, unless_moved=found)
                if found.holder == self._holder:
                    return found
                raise held_by_other(found, now)
            pause_s = min(MAX_POLL_S, self._heartbeat_s)
            self._sleep(pause_s)
            waited_s += pause_s

    def _claim(self, now: datetime, unless_moved: Lease | None = None) -> Lease:
        return claim_lease(
            self._database,
            self._name,
            self._holder,
            process=self._process,
            ttl_s=self._ttl_s,
            now=now,
            unless_moved=unless_moved,
        )


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


def _scope(name: str) -> str:
    return f"lease:{name}"


def _sign(now: datetime, kept_s: float) -> dict[str, Any]:
    """Return what a sign of life changes, besides the count of them."""
    return {"heartbeat_at": now, "expires_at": now + timedelta(seconds=kept_s)}


def _change(ops: Ledger, name: str, holder: str, token: int | None, **changes: Any) -> bool:
    """Change a lease if it is the holder's; False, and nothing, if it was lost or released."""
    with ops.write(_scope(name)) as tx:
        found = get_lease(tx, name)
        if found is None or found.holder != holder or token not in {None, found.token}:
            return False
        tx.replace(replace(found, beats=found.beats + ("heartbeat_at" in changes), **changes))
        return True


def is_at_work(found: Lease | None, now: datetime) -> bool:
    """Whether somebody holds a lease, as far as this host can tell, at the time of day `now`."""
    return found is not None and now < found.expires_at and not _is_gone(found)


def _is_gone(found: Lease) -> bool:
    """Whether the holder's process was on this host and no longer exists.

    A lingering lease outlives its process on purpose.
    """
    return found.state == "held" and found.host == socket.gethostname() and is_gone(found.pid)
