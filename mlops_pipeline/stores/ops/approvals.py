"""Approvals: what a person says about a version, and the approval state that follows from it.

    candidate    registered, waiting: it may not score anybody
    staging      waiting, and a person approved stage `staging`: trial scores, never decisions
    production   the champion, and the one before it, kept for a rollback
    archived     rejected, superseded, replaced: never loaded for scoring again

The states are a projection of the rollout's state and of approvals; nothing stores them. The name
of the person is what they say it is: a record, not an access control.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from mlops_pipeline.errors import StateError
from mlops_pipeline.stores.ops.audit import UNKNOWN, NewAuditEvent, append, utc_text
from mlops_pipeline.stores.ops.records import (
    Approval,
    ApprovalState,
    Rollout,
    RolloutState,
    Stage,
    Verdict,
)
from mlops_pipeline.stores.ops.rollouts import (
    Change,
    RolloutRows,
    get,
    in_state,
    make_room,
    move,
    rollout_scope,
)
from mlops_pipeline.stores.ops.tables import approval, lifecycle_run, rollout

IN_PRODUCTION: tuple[RolloutState, ...] = ("full", "previous")


class ApprovalRows(RolloutRows):
    """What a person can do with rollouts."""

    def approve(
        self,
        use_case: str,
        version: int,
        *,
        by: str,
        reason: str,
        stage: Stage = "production",
        expires_at: datetime | None = None,
        four_eyes: bool = False,
        now: datetime,
    ) -> Rollout:
        """Approve a waiting version: for production it becomes the champion.

        A champion whose approval has an end may be approved again: that renews it.

        Parameters
        ----------
        by, reason : str
            Who says so and why; neither may be blank.
        stage : {"staging", "production"}
            For `staging` it goes on waiting, and may make trial scores.
        expires_at : datetime, optional
            From then on the version may not score until a person approves again.
        four_eyes : bool
            Refuse the one who triggered the run that made the version.

        Raises
        ------
        NotFoundError
            If the version has no rollout; the message lists those that have.
        StateError
            If the version is not waiting for approval, `by` or `reason` is blank, the end is
            past, or the four eyes are two.
        """
        change = signed(by, reason, now)
        if expires_at is not None and expires_at <= now:
            raise StateError(
                "An approval cannot end before it begins.",
                expected=f"a time after {now.isoformat()}",
                found=expires_at.isoformat(),
                way_out="Give --expires a later date.",
            )
        with self._write(rollout_scope(use_case)) as connection:
            found = get(connection, use_case, version)
            renewed = (
                stage == "production"
                and found.state == "full"
                and _has_end(_of(connection, use_case), found)
            )
            if not renewed:
                found = _get_waiting(connection, use_case, version, "approved")
            if four_eyes:
                _refuse_two_eyes(connection, found, change)
            _write_approval(connection, found, stage, "approved", change, expires_at=expires_at)
            if stage == "production" and not renewed:
                make_room(connection, use_case, version, change)
                move(connection, found, "full", change)
            return get(connection, use_case, version)

    def reject(
        self,
        use_case: str,
        version: int,
        *,
        by: str,
        reason: str,
        stage: Stage = "production",
        now: datetime,
    ) -> Rollout:
        """Refuse a waiting version; the champion stays. Parameters and errors as in `approve`.

        For `staging` it goes on waiting, and may no longer make trial scores.
        """
        change = signed(by, reason, now)
        with self._write(rollout_scope(use_case)) as connection:
            waiting = _get_waiting(connection, use_case, version, "rejected")
            _write_approval(connection, waiting, stage, "rejected", change)
            if stage == "production":
                move(connection, waiting, "rejected", change)
            return get(connection, use_case, version)

    def roll_back(
        self, use_case: str, *, by: str, reason: str, now: datetime
    ) -> tuple[Rollout, Rollout]:
        """Take the champion out of use and make the one before it champion again; return both.

        Raises
        ------
        StateError
            If there is no champion, or none before it, or who or why is blank.
        """
        change = signed(by, reason, now)
        with self._write(rollout_scope(use_case)) as connection:
            champions = in_state(connection, use_case, "full")
            before = in_state(connection, use_case, "previous")
            if not champions or not before:
                missing = "version before the champion" if champions else "champion"
                raise StateError(
                    f"{use_case} has no {missing} to roll back.",
                    expected="a champion, and a version in state previous",
                    found=f"champion {champions[0].version}" if champions else "no champion",
                    way_out="Make a version on data and code that you trust, and approve it.",
                )
            move(connection, champions[0], "rolled_back", change)
            move(connection, before[-1], "full", change)
            versions = champions[0].version, before[-1].version
            removed, restored = (get(connection, use_case, version) for version in versions)
            return removed, restored

    def approvals(self, use_case: str) -> list[Approval]:
        """List approvals and rejections in the order they were given."""
        with self._read() as connection:
            return _of(connection, use_case)


def approval_state(
    found: Rollout, approvals: Iterable[Approval], *, now: datetime
) -> ApprovalState:
    """Return what a version may be used for; see the table above."""
    if found.state in IN_PRODUCTION:
        return "production"
    if found.state != "awaiting_approval":
        return "archived"
    last = last_approval(found, approvals, "staging")
    is_staging = last is not None and last.verdict == "approved" and not has_ended(last, now)
    return "staging" if is_staging else "candidate"


def last_approval(found: Rollout, approvals: Iterable[Approval], stage: Stage) -> Approval | None:
    """Return what was said last about a version and a stage; None if nothing was."""
    said = [item for item in approvals if (item.version, item.stage) == (found.version, stage)]
    return said[-1] if said else None


def has_ended(said: Approval | None, now: datetime) -> bool:
    """Whether an approval had an end, and it is past."""
    return said is not None and said.expires_at is not None and said.expires_at <= now


def _of(connection: Connection, use_case: str) -> list[Approval]:
    query = (
        select(approval, rollout.c.use_case, rollout.c.version)
        .join(rollout, rollout.c.id == approval.c.rollout_id)
        .where(rollout.c.use_case == use_case)
        .order_by(approval.c.id)
    )
    return [Approval(**row._mapping) for row in connection.execute(query)]


def _has_end(approvals: Iterable[Approval], found: Rollout) -> bool:
    said = last_approval(found, approvals, "production")
    return said is not None and said.expires_at is not None


def _refuse_two_eyes(connection: Connection, found: Rollout, change: Change) -> None:
    query = select(lifecycle_run.c.triggered_by).filter_by(
        use_case=found.use_case, run_id=found.dagster_run_id
    )
    trigger = connection.execute(query).scalar_one_or_none() or UNKNOWN
    if _same_name(trigger) not in {_same_name(change.actor), UNKNOWN}:
        return
    raise StateError(
        f"Version {found.version} of {found.use_case} needs the approval of somebody else.",
        where="rollout.four_eyes",
        expected="an approver who did not trigger the run that made the version",
        found=f"approver {change.actor}, run triggered by {trigger}",
        way_out="Ask a colleague to approve it."
        if trigger != UNKNOWN
        else "Nobody said who triggered it: make the version with `mlops run --by NAME`.",
    )


def _same_name(name: str) -> str:
    """Return what two spellings of one name share: no case, single blanks, one form of letters."""
    return " ".join(unicodedata.normalize("NFKC", name).split()).casefold()


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
    connection: Connection,
    decided: Rollout,
    stage: Stage,
    verdict: Verdict,
    change: Change,
    *,
    expires_at: datetime | None = None,
) -> None:
    row = {
        "rollout_id": decided.id,
        "stage": stage,
        "verdict": verdict,
        "by": change.actor,
        "reason": change.reason,
        "at": change.now,
        "expires_at": expires_at,
    }
    new_id = connection.execute(insert(approval).values(row).returning(approval.c.id))
    told = {"id": new_id.scalar_one(), "use_case": decided.use_case, "version": decided.version}
    append(connection, [approval_told({**row, **told})])


def approval_told(row: Mapping[str, Any]) -> NewAuditEvent:
    """Return the audit event of a row of approval, with use case and version."""
    detail = {name: row[name] for name in ("id", "version", "stage", "verdict", "reason")}
    detail["expires_at"] = utc_text(row["expires_at"])
    return NewAuditEvent("approval", detail, row["use_case"], row["by"], row["at"])
