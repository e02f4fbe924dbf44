"""Holding a lease while work goes on: waiting for it, heartbeats, giving it back.

    with HeldLease(url, "lifecycle:churn", run_id, clock=clock.now) as lease:
        ...
        lease.check()  # before each write that another holder must not overlap

Belongs here: what involves time passing. Single steps in the database are in lease_rows.py.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from mlops_pipeline.errors import LeaseError
from mlops_pipeline.stores.lake.scratch import is_gone
from mlops_pipeline.stores.ops.database import OpsDatabase
from mlops_pipeline.stores.ops.lease_rows import has_moved, held_by_other
from mlops_pipeline.stores.ops.records import Lease

MAX_POLL_S = 1.0  # of a holder that may be silent
WAIT_POLL_S = 5.0  # of one that works for minutes


class HeldLease:
    """A lease that is renewed from a daemon thread until the block ends.

    A holder that shows no sign of life for its `ttl_s` seconds is taken over, one whose process
    is gone from this host at once. A sign of life while waiting means that the other holder works:
    LeaseError right away, or after `wait_s`. Steps of one run share a lease by using one holder
    name. If one of several concurrent steps fails, the lease is released and the others find it
    lost.

    Parameters
    ----------
    database : str or OpsDatabase
        Where the lease is. The heartbeat opens connections of its own either way.
    name, holder : str
        What is leased, and who takes it (a run id).
    ttl_s, heartbeat_s : float
        Seconds without a heartbeat until it expires, and seconds between heartbeats.
    clock : callable
        The time of day, timezone-aware. A clock that stands still would keep leases for ever.
    linger_s : float
        After a clean exit, keep the lease this long for the holder's next process. 0 releases it.
    wait_s : float
        How long a holder that works is waited for, about; 0: not at all.
    sleep : callable
        Waits that many seconds; tests pass a function that moves their clock.

    Attributes
    ----------
    lease : Lease
        What was acquired, with its fencing token.
    lost : bool
        Whether another holder may have the lease by now. It never becomes False again.
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
                self._database.linger_lease(
                    self._name,
                    self._holder,
                    linger_s=self._linger_s,
                    now=self._clock(),
                    token=token,
                )
            else:
                self._database.release_lease(self._name, self._holder, token=token)
        finally:
            self._database.close()

    def beat(self) -> None:
        """Send one heartbeat now; the thread does this every `heartbeat_s` seconds.

        A database that does not answer is no loss until the lease has expired.
        """
        now = self._clock()
        try:
            kept = self._database.renew_lease(
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
        host, pid = self._process
        return self._database.claim_lease(
            self._name,
            self._holder,
            host=host,
            pid=pid,
            ttl_s=self._ttl_s,
            now=now,
            unless_moved=unless_moved,
        )


def is_at_work(found: Lease | None, now: datetime) -> bool:
    """Whether somebody holds a lease, as far as this host can tell, at the time of day `now`."""
    return found is not None and now < found.expires_at and not _is_gone(found)


def _is_gone(found: Lease) -> bool:
    """Whether the holder's process was on this host and no longer exists.

    A lingering lease outlives its process on purpose.
    """
    return found.state == "held" and found.host == socket.gethostname() and is_gone(found.pid)
