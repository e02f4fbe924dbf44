"""Granting and revoking exceptions from gate rules; a revocation is a row of its own.

The name of the person is what they say it is: a record, not an access control.
"""

from datetime import datetime

from mlops_pipeline.core.evaluation.records import ExceptionEntry, GateException, exceptions_of
from mlops_pipeline.core.rollout.approvals import signed
from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.stores.ops import NEW, Ledger

SAID = ("rule", "attribute", "by", "reason", "expires_at")  # of an exception


def list_exceptions(ops: Ledger, use_case: str) -> list[GateException]:
    """List exceptions in the order they were granted, also those that ended."""
    return exceptions_of(ops.all(ExceptionEntry, use_case=use_case))


def grant_exception(
    ops: Ledger,
    use_case: str,
    rule: str,
    attribute: str | None = None,
    *,
    by: str,
    reason: str,
    expires_at: datetime,
    now: datetime,
) -> GateException:
    """Keep an exception that may be granted; given again as it is in force, it stays the one."""
    said = signed(by, reason, now)
    entry = ExceptionEntry(
        NEW, use_case, rule, attribute, said.by, said.reason, now, expires_at, revokes=None
    )
    with ops.write(use_case) as tx:
        for given in list_exceptions(tx, use_case):
            is_same = all(getattr(entry, name) == getattr(given, name) for name in SAID)
            if is_same and given.is_in_force(now):
                return given
        (made,) = exceptions_of([tx.insert(entry)])
    return made


def revoke_exception(
    ops: Ledger, use_case: str, exception_id: int, *, by: str, reason: str, now: datetime
) -> GateException:
    """End an exception that is in force."""
    said = signed(by, reason, now)
    with ops.write(use_case) as tx:
        known = {item.id: item for item in list_exceptions(tx, use_case)}
        found = known.get(exception_id)
        if found is None:
            raise NotFoundError(
                f"There is no exception {exception_id} of {use_case}.",
                expected=f"one of {', '.join(map(str, known))}" if known else None,
                way_out=f"mlops exception list {use_case}",
            )
        if not found.is_in_force(now):
            raise StateError(
                f"Exception {exception_id} of {use_case} is not in force any more.",
                found=f"revoked by {found.revoked_by}"
                if found.revoked_at
                else f"expired {found.expires_at.isoformat()}",
            )
        tx.insert(
            ExceptionEntry(
                NEW, use_case, found.rule, found.attribute, said.by, said.reason, now,
                expires_at=None, revokes=found.id,
            )
        )  # fmt: skip
        return next(item for item in list_exceptions(tx, use_case) if item.id == found.id)
