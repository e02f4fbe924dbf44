"""Leases: the rows that say who may work on something now.

Belongs here: single atomic steps. Waiting and heartbeats are in lease.py.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, select, update

from mlops_pipeline.errors import LeaseError
from mlops_pipeline.stores.ops.records import Lease
from mlops_pipeline.stores.ops.tables import lease
from mlops_pipeline.stores.ops.transactions import Transactions


class LeaseRows(Transactions):
    """What can be done with leases. `now` must be the time of day: a lease is about now."""

    def acquire_lease(
        self, name: str, holder: str, *, host: str, pid: int, ttl_s: float, now: datetime
    ) -> Lease:
        """Take a lease that is free, expired, or already ours; one contender wins.

        Parameters
        ----------
        name : str
            What is leased, for example ``lifecycle:churn``.
        holder : str
            Who takes it, for example a run id; its processes share the lease.
        host, pid : str, int
            The process that will send heartbeats.
        ttl_s : float
            Seconds until it expires without a heartbeat.

        Raises
        ------
        LeaseError
            If another holder has it; the message says who, where, and until when.
        """
        found = self.claim_lease(name, holder, host=host, pid=pid, ttl_s=ttl_s, now=now)
        if found.holder != holder:
            raise held_by_other(found, now)
        return found

    def claim_lease(
        self,
        name: str,
        holder: str,
        *,
        host: str,
        pid: int,
        ttl_s: float,
        now: datetime,
        unless_moved: Lease | None = None,
    ) -> Lease:
        """Take a lease if that is allowed, and return the one in force, ours or not.

        Parameters
        ----------
        unless_moved : Lease, optional
            A lease whose holder is believed dead. It is taken over too, unless it has changed.
        """
        with self._write(_scope(name)) as connection:
            present = _find(connection, name)
            is_ours = present is not None and present.holder == holder
            if present is not None and not is_ours:
                is_dead = unless_moved is not None and not has_moved(unless_moved, present)
                if present.state != "released" and now < present.expires_at and not is_dead:
                    return present
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
            _put(connection, taken, is_new=present is None)
            return taken

    def renew_lease(
        self,
        name: str,
        holder: str,
        *,
        ttl_s: float,
        now: datetime,
        token: int | None = None,
        process: tuple[str, int] | None = None,
    ) -> bool:
        """Send a heartbeat.

        Parameters
        ----------
        token : int, optional
            The token that was acquired: also refuses if another holder was in between.
        process : (host, pid), optional
            The process that sends it, where several processes of one holder share the lease.

        Returns
        -------
        bool
            False if the lease was lost or released. A lease that expired but that nobody took
            is renewed.
        """
        with self._write(_scope(name)) as connection:
            present = _find_own(connection, name, holder, token)
            if present is None:
                return False
            host, pid = process or (present.host, present.pid)
            expires_at = now + timedelta(seconds=ttl_s)
            kept = replace(present, state="held", host=host, pid=pid, expires_at=expires_at)
            _put(connection, replace(kept, beats=present.beats + 1, heartbeat_at=now))
            return True

    def linger_lease(
        self, name: str, holder: str, *, linger_s: float, now: datetime, token: int | None = None
    ) -> bool:
        """Keep a lease for its holder's next process, without heartbeats, for `linger_s` seconds.

        Nobody else gets it in that time, although the present process ends. Returns False if the
        lease was lost or released.
        """
        with self._write(_scope(name)) as connection:
            present = _find_own(connection, name, holder, token)
            if present is None:
                return False
            expires_at = now + timedelta(seconds=linger_s)
            kept = replace(present, state="lingering", heartbeat_at=now, expires_at=expires_at)
            _put(connection, replace(kept, beats=present.beats + 1))
            return True

    def release_lease(self, name: str, holder: str, *, token: int | None = None) -> bool:
        """Give a lease back; returns False, and changes nothing, if it is not the holder's."""
        with self._write(_scope(name)) as connection:
            present = _find_own(connection, name, holder, token)
            if present is None:
                return False
            _put(connection, replace(present, state="released"))
            return True

    def get_lease(self, name: str) -> Lease | None:
        """Return a lease, expired or not; None if it is free because nobody took or kept it."""
        with self._read() as connection:
            found = _find(connection, name)
        return None if found is None or found.state == "released" else found

    def lease_token(self, name: str) -> int:
        """Return the newest fencing token: how many holders a lease has had."""
        with self._read() as connection:
            found = _find(connection, name)
        return 0 if found is None else found.token


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


def _find(connection: Connection, name: str) -> Lease | None:
    row = connection.execute(select(lease).where(lease.c.name == name)).one_or_none()
    return None if row is None else Lease(**row._mapping)


def _find_own(connection: Connection, name: str, holder: str, token: int | None) -> Lease | None:
    found = _find(connection, name)
    if found is None or found.holder != holder or found.state == "released":
        return None
    return found if token in {None, found.token} else None


def _put(connection: Connection, row: Lease, *, is_new: bool = False) -> None:
    values: dict[str, Any] = vars(row)
    if is_new:
        connection.execute(insert(lease).values(values))
    else:
        connection.execute(update(lease).where(lease.c.name == row.name).values(values))
