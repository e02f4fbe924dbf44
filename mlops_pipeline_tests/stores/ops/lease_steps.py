"""What a holder does to a lease; taking it is one step: what another process has is an error."""

from datetime import datetime

from mlops_pipeline.stores.ops import Lease, Ledger
from mlops_pipeline.stores.ops.lease import (
    change_lease,
    claim_lease,
    held_by_other,
    sign_of_life,
)


def acquire_lease(
    ops: Ledger, name: str, holder: str, *, host: str, pid: int, ttl_s: float, now: datetime
) -> Lease:
    found = claim_lease(ops, name, holder, process=(host, pid), ttl_s=ttl_s, now=now)
    if found.holder != holder:
        raise held_by_other(found, now)
    return found


def renew_lease(
    ops: Ledger, name: str, holder: str, *, ttl_s: float, now: datetime, token: int | None = None
) -> bool:
    sign = sign_of_life(now, ttl_s)
    return change_lease(ops, name, holder, token=token, state="held", **sign)


def linger_lease(ops: Ledger, name: str, holder: str, *, linger_s: float, now: datetime) -> bool:
    return change_lease(ops, name, holder, state="lingering", **sign_of_life(now, linger_s))


def release_lease(ops: Ledger, name: str, holder: str) -> bool:
    return change_lease(ops, name, holder, state="released")
