"""Taking a lease in one step: what another process has is an error."""

from datetime import datetime

from mlops_pipeline.stores.ops import Lease, Ledger
from mlops_pipeline.stores.ops.lease import claim_lease, held_by_other


def acquire_lease(
    ops: Ledger, name: str, holder: str, *, host: str, pid: int, ttl_s: float, now: datetime
) -> Lease:
    found = claim_lease(ops, name, holder, process=(host, pid), ttl_s=ttl_s, now=now)
    if found.holder != holder:
        raise held_by_other(found, now)
    return found
