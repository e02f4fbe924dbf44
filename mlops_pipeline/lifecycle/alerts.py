"""Alerts: raised once, counted while they last, resolved with a reason."""

from dataclasses import dataclass
from datetime import datetime

from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.stores.ops import NEW, Alert, Ledger


@dataclass(frozen=True)
class NewAlert:
    """What an alert says; `action` is the diagnostic next step."""

    kind: str
    severity: str
    message: str
    action: str
    run_id: str | None = None
    dedupe_key: str | None = None


def raise_alert(ops: Ledger, use_case: str, alert: NewAlert, *, now: datetime) -> int:
    """Raise an alert and return its id; an open one with its `dedupe_key` is counted up."""
    with ops.write(use_case) as tx:
        key = alert.dedupe_key
        present = key and tx.find(Alert, use_case=use_case, dedupe_key=key, resolved_at=None)
        if present:
            times = present.times_raised + 1
            tx.change(present, times_raised=times, last_raised_at=now, message=alert.message)
            return present.id
        row = Alert(
            NEW, use_case, **vars(alert), raised_at=now, last_raised_at=now, times_raised=1,
            resolved_at=None, resolved_by=None, resolution=None,
        )  # fmt: skip
        return tx.insert(row).id


def resolve_alert(
    ops: Ledger, use_case: str, alert_id: int, *, by: str, reason: str, now: datetime
) -> Alert:
    """Close an alert; one that is closed already stays as it is."""
    with ops.write(use_case) as tx:
        found = tx.find(Alert, use_case=use_case, id=alert_id)
        if found is None:
            raise NotFoundError(
                f"There is no alert {alert_id} of {use_case}.",
                way_out="List the open alerts for their ids.",
            )
        if found.resolved_at is not None:
            return found
        return tx.change(found, resolved_at=now, resolved_by=by, resolution=reason)


def resolve_alerts_by_key(
    ops: Ledger, use_case: str, dedupe_key: str, *, by: str, reason: str, now: datetime
) -> int:
    """Close the open alert with this key, because its condition is over; return how many (0, 1)."""
    with ops.write(use_case) as tx:
        found = tx.all(Alert, use_case=use_case, dedupe_key=dedupe_key, resolved_at=None)
        for item in found:
            tx.change(item, resolved_at=now, resolved_by=by, resolution=reason)
        return len(found)


def alert_while(
    holds: bool, ops: Ledger, use_case: str, alert: NewAlert, *, by: str, over: str, now: datetime
) -> None:
    """Raise an alert with a key while a condition holds; `over` is why it is resolved after."""
    key = alert.dedupe_key
    if holds:
        raise_alert(ops, use_case, alert, now=now)
    elif key and ops.find(Alert, use_case=use_case, dedupe_key=key, resolved_at=None):
        resolve_alerts_by_key(ops, use_case, key, by=by, reason=over, now=now)


def list_alerts(ops: Ledger, use_case: str, open_only: bool = False) -> list[Alert]:
    """List alerts, the last raised first."""
    wanted = {"resolved_at": None} if open_only else {}
    return ops.all(Alert, order=("-id",), use_case=use_case, **wanted)
