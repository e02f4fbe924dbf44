"""Approvals: what a person decides about a version that waits.

The name of the person is what they say it is: a record, not an access control.
"""

from datetime import datetime

from sqlalchemy import Connection, insert, select

from mlops_pipeline.errors import StateError
from mlops_pipeline.stores.opsdb.audit import NewAuditEvent, append
from mlops_pipeline.stores.opsdb.records import Approval, Rollout, Verdict
from mlops_pipeline.stores.opsdb.rollouts import (
    Change,
    RolloutRows,
    get,
    in_state,
    make_room,
    move,
    rollout_scope,
)
from mlops_pipeline.stores.opsdb.tables import approval, rollout


class ApprovalRows(RolloutRows):
    """What a person can do with rollouts."""

    def approve(
        self,
        use_case: str,
        version: int,
        *,
        by: str,
        reason: str,
        stage: str = "production",
        now: datetime,
    ) -> Rollout:
        """Make a waiting version the champion.

        Parameters
        ----------
        by, reason : str
            Who says so and why; neither may be blank.
        stage : str
            The stage that is approved; kept with the approval.

        Raises
        ------
        NotFoundError
            If the version has no rollout; the message lists those that have.
        StateError
            If the version is not waiting for approval, or `by` or `reason` is blank.
        """
        change = signed(by, reason, now)
        with self._write(rollout_scope(use_case)) as connection:
            waiting = _get_waiting(connection, use_case, version, "approved")
            _write_approval(connection, waiting, stage, "approved", change)
            make_room(connection, use_case, version, change)
            move(connection, waiting, "full", change)
            return get(connection, use_case, version)

    def reject(
        self,
        use_case: str,
        version: int,
        *,
        by: str,
        reason: str,
        stage: str = "production",
        now: datetime,
    ) -> Rollout:
        """Refuse a waiting version; the champion stays. Parameters and errors as in `approve`."""
        change = signed(by, reason, now)
        with self._write(rollout_scope(use_case)) as connection:
            waiting = _get_waiting(connection, use_case, version, "rejected")
            _write_approval(connection, waiting, stage, "rejected", change)
            move(connection, waiting, "rejected", change)
            return get(connection, use_case, version)

    def approvals(self, use_case: str) -> list[Approval]:
        """List approvals and rejections in the order they were given."""
        query = (
            select(approval, rollout.c.use_case, rollout.c.version)
            .join(rollout, rollout.c.id == approval.c.rollout_id)
            .where(rollout.c.use_case == use_case)
            .order_by(approval.c.id)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        return [Approval(**row._mapping) for row in rows]


def signed(by: str, reason: str, now: datetime) -> Change:
    """Return what a person says; StateError if who or why is blank."""
    for name, text in (("by", by), ("reason", reason)):
        if not text.strip():
            raise StateError(
                f"What a person decides needs {name!r}.",
                expected="who decides, and why",
                found="a blank text",
                way_out=f"Say it with --{name}.",
            )
    return Change(actor=by.strip(), reason=reason.strip(), now=now)


def _get_waiting(connection: Connection, use_case: str, version: int, verdict: Verdict) -> Rollout:
    found = get(connection, use_case, version)
    if found.state == "awaiting_approval":
        return found
    waiting = [str(other.version) for other in in_state(connection, use_case, "awaiting_approval")]
    raise StateError(
        f"Version {version} of {use_case} cannot be {verdict} now.",
        expected="state awaiting_approval",
        found=f"state {found.state}, since {found.changed_at.isoformat()}",
        way_out=f"Waiting for a decision: version {', '.join(waiting)}."
        if waiting
        else "No version is waiting; run the lifecycle to make one.",
    )


def _write_approval(
    connection: Connection, decided: Rollout, stage: str, verdict: Verdict, change: Change
) -> None:
    said = {"stage": stage, "verdict": verdict, "reason": change.reason}
    row = {**said, "rollout_id": decided.id, "by": change.actor, "at": change.now}
    new_id = connection.execute(insert(approval).values(row).returning(approval.c.id))
    detail = {"id": new_id.scalar_one(), "version": decided.version, **said}
    event = NewAuditEvent("approval", detail, decided.use_case, change.actor, change.now)
    append(connection, [event])
