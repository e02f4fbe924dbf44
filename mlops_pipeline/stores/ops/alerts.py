"""Alerts: raised once, counted while they last, resolved with a reason."""

from datetime import datetime

from sqlalchemy import insert, select, update

from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.stores.ops.records import Alert
from mlops_pipeline.stores.ops.tables import alert
from mlops_pipeline.stores.ops.transactions import Transactions


class AlertRows(Transactions):
    """What can be done with alerts."""

    def raise_alert(
        self,
        use_case: str,
        kind: str,
        severity: str,
        message: str,
        action: str,
        *,
        now: datetime,
        run_id: str | None = None,
        dedupe_key: str | None = None,
    ) -> int:
        """Raise an alert and return its id.

        Parameters
        ----------
        action : str
            The diagnostic next step for whoever is on call.
        dedupe_key : str, optional
            While an alert of the use case with this key is open, that one is counted up and its
            id returned. None always makes a new one.
        """
        with self._write(f"alert:{use_case}") as connection:
            if dedupe_key is not None:
                again = (
                    update(alert)
                    .where(alert.c.use_case == use_case, alert.c.dedupe_key == dedupe_key)
                    .where(alert.c.resolved_at.is_(None))
                    .values(times_raised=alert.c.times_raised + 1, last_raised_at=now)
                    .returning(alert.c.id)
                )
                open_id = connection.execute(again).scalar_one_or_none()
                if open_id is not None:
                    return int(open_id)
            row = {
                "use_case": use_case,
                "kind": kind,
                "severity": severity,
                "message": message,
                "action": action,
                "run_id": run_id,
                "dedupe_key": dedupe_key,
                "raised_at": now,
                "last_raised_at": now,
                "times_raised": 1,
            }
            new_id = connection.execute(insert(alert).values(row).returning(alert.c.id))
            return int(new_id.scalar_one())

    def resolve_alert(
        self, use_case: str, alert_id: int, *, by: str, reason: str, now: datetime
    ) -> Alert:
        """Close an alert; one that is closed already stays as it is.

        Raises
        ------
        NotFoundError
            If the use case has no such alert.
        """
        is_this = (alert.c.use_case == use_case) & (alert.c.id == alert_id)
        closing = {"resolved_at": now, "resolved_by": by, "resolution": reason}
        with self._write(f"alert:{use_case}") as connection:
            still_open = is_this & alert.c.resolved_at.is_(None)
            connection.execute(update(alert).where(still_open).values(closing))
            row = connection.execute(select(alert).where(is_this)).one_or_none()
        if row is None:
            raise NotFoundError(
                f"There is no alert {alert_id} of {use_case}.",
                way_out="List the open alerts for their ids.",
            )
        return Alert(**row._mapping)

    def resolve_alerts_by_key(
        self, use_case: str, dedupe_key: str, *, by: str, reason: str, now: datetime
    ) -> int:
        """Close the open alert with this key, because its condition is over.

        Returns
        -------
        int
            1 if one was open, otherwise 0.
        """
        with self._write(f"alert:{use_case}") as connection:
            closed = connection.execute(
                update(alert)
                .where(alert.c.use_case == use_case, alert.c.dedupe_key == dedupe_key)
                .where(alert.c.resolved_at.is_(None))
                .values(resolved_at=now, resolved_by=by, resolution=reason)
            )
            return closed.rowcount

    def list_alerts(self, use_case: str, open_only: bool = False) -> list[Alert]:
        """List alerts, the last raised first."""
        query = select(alert).where(alert.c.use_case == use_case)
        if open_only:
            query = query.where(alert.c.resolved_at.is_(None))
        with self._read() as connection:
            rows = connection.execute(query.order_by(alert.c.id.desc())).all()
        return [Alert(**row._mapping) for row in rows]
