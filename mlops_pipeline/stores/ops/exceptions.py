"""Exceptions from gate rules: granted for a time, revoked by a row of their own.

The name of the person is what they say it is: a record, not an access control.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from mlops_pipeline.core.evaluation.exceptions import GateException
from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.stores.ops.approvals import signed
from mlops_pipeline.stores.ops.audit import NewAuditEvent, append, utc_text
from mlops_pipeline.stores.ops.rollouts import Change
from mlops_pipeline.stores.ops.tables import gate_exception
from mlops_pipeline.stores.ops.transactions import Transactions


class ExceptionRows(Transactions):
    """What can be done with exceptions from gate rules."""

    def grant_exception(
        self,
        use_case: str,
        rule: str,
        attribute: str | None = None,
        *,
        by: str,
        reason: str,
        expires_at: datetime,
        now: datetime,
    ) -> GateException:
        """Keep an exception; `governance.exceptions.check_exception` says whether one may be.

        Raises
        ------
        StateError
            If `by` or `reason` is blank.
        """
        change = signed(by, reason, now)
        row = {"use_case": use_case, "rule": rule, "attribute": attribute, "expires_at": expires_at}
        with self._write(f"exception:{use_case}") as connection:
            new_id = _append(connection, {**row, "revokes": None}, change)
            return next(item for item in _all(connection, use_case) if item.id == new_id)

    def revoke_exception(
        self, use_case: str, exception_id: int, *, by: str, reason: str, now: datetime
    ) -> GateException:
        """End an exception.

        Raises
        ------
        NotFoundError
            If the use case has no such exception.
        StateError
            If it is not in force any more, or `by` or `reason` is blank.
        """
        change = signed(by, reason, now)
        with self._write(f"exception:{use_case}") as connection:
            known = {item.id: item for item in _all(connection, use_case)}
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
            row = {"use_case": use_case, "rule": found.rule, "attribute": found.attribute}
            _append(connection, {**row, "expires_at": None, "revokes": found.id}, change)
            return next(item for item in _all(connection, use_case) if item.id == found.id)

    def list_exceptions(self, use_case: str) -> list[GateException]:
        """List exceptions in the order they were granted, also those that ended."""
        with self._read() as connection:
            return _all(connection, use_case)


def _append(connection: Connection, row: dict[str, Any], change: Change) -> int:
    """Write a row and its audit event; return the row's id."""
    said = {**row, "by": change.actor, "reason": change.reason, "at": change.now}
    new_id = connection.execute(insert(gate_exception).values(said).returning(gate_exception.c.id))
    found = int(new_id.scalar_one())
    append(connection, [exception_told({**said, "id": found})])
    return found


def exception_told(row: Mapping[str, Any]) -> NewAuditEvent:
    """Return the audit event of a row of gate_exception."""
    detail = {name: row[name] for name in ("id", "rule", "attribute", "reason")}
    if row["revokes"] is None:
        kind, detail["expires_at"] = "exception_granted", utc_text(row["expires_at"])
    else:
        kind, detail["revokes"] = "exception_revoked", row["revokes"]
    return NewAuditEvent(kind, detail, row["use_case"], row["by"], row["at"])


def _all(connection: Connection, use_case: str) -> list[GateException]:
    rows = connection.execute(
        select(gate_exception).filter_by(use_case=use_case).order_by(gate_exception.c.id)
    ).all()
    ends = {row.revokes: row for row in rows if row.revokes is not None}
    return [
        GateException(
            id=row.id,
            use_case=row.use_case,
            rule=row.rule,
            attribute=row.attribute,
            by=row.by,
            reason=row.reason,
            granted_at=row.at,
            expires_at=row.expires_at,
            revoked_at=ends[row.id].at if row.id in ends else None,
            revoked_by=ends[row.id].by if row.id in ends else None,
            revocation=ends[row.id].reason if row.id in ends else None,
        )
        for row in rows
        if row.revokes is None
    ]
