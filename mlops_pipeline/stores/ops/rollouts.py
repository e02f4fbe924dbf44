"""Rollouts: which version is in which state of deployment. This is the truth about deployment.

    (opened) -> awaiting_approval -> full -> previous -> archived
                    |      |
                    |      +-> superseded   a newer version began to wait
                    +-> rejected

Belongs here: opening, reading, and the one way to change a state (always with its event row and
its audit event). What a person decides is in approvals.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select, update

from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.stores.ops.audit import NewAuditEvent, append
from mlops_pipeline.stores.ops.records import (
    OpeningState,
    Rollout,
    RolloutEvent,
    RolloutState,
)
from mlops_pipeline.stores.ops.tables import rollout, rollout_event
from mlops_pipeline.stores.ops.transactions import Transactions


@dataclass(frozen=True)
class Change:
    """Who changes states in this transaction, why and when."""

    actor: str
    reason: str
    now: datetime


class RolloutRows(Transactions):
    """What can be done with rollouts, short of approving them."""

    def open_rollout(  # noqa: PLR0913 - a rollout records where its model came from
        self,
        use_case: str,
        version: int,
        *,
        mlflow_run_id: str,
        dagster_run_id: str,
        fingerprint: str,
        stages: Sequence[str],
        state: OpeningState,
        reason: str,
        waiting_for: str | None,
        now: datetime,
    ) -> Rollout:
        """Open the rollout of a version; a second call changes nothing and returns the first.

        ``full`` makes it champion at once: the champion becomes ``previous`` and the previous one
        ``archived``. ``awaiting_approval`` supersedes the versions that were waiting.

        Parameters
        ----------
        stages : sequence of str
            The stages it is to pass, for example ``["full"]``.
        state : {"awaiting_approval", "full"}
            Where it begins.
        waiting_for : str or None
            What it waits for, if it does.

        Raises
        ------
        StateError
            If the version already has a rollout, of a model with another fingerprint.
        """
        change = Change(actor=f"run {dagster_run_id}", reason=reason, now=now)
        with self._write(rollout_scope(use_case)) as connection:
            present = find(connection, use_case, version)
            if present is not None:
                _refuse_other_model(present, fingerprint)
                return present
            if state == "full":
                make_room(connection, use_case, version, change)
            else:
                for older in in_state(connection, use_case, "awaiting_approval"):
                    newer = Change(change.actor, f"version {version} is waiting instead", now)
                    move(connection, older, "superseded", newer)
            row = {
                "use_case": use_case,
                "version": version,
                "state": state,
                "stages": list(stages),
                "mlflow_run_id": mlflow_run_id,
                "dagster_run_id": dagster_run_id,
                "fingerprint": fingerprint,
                "reason": reason,
                "waiting_for": waiting_for,
                "opened_at": now,
                "changed_at": now,
            }
            new_id = connection.execute(insert(rollout).values(row).returning(rollout.c.id))
            _write_event(connection, new_id.scalar_one(), None, state, change)
            return get(connection, use_case, version)

    def champion(self, use_case: str) -> Rollout | None:
        """Return the rollout in state ``full``; None if nothing is deployed."""
        with self._read() as connection:
            found = in_state(connection, use_case, "full")
        return found[0] if found else None

    def rollout(self, use_case: str, version: int) -> Rollout:
        """Return the rollout of a version.

        Raises
        ------
        NotFoundError
            If the version has none; the message lists those that have.
        """
        with self._read() as connection:
            return get(connection, use_case, version)

    def list_rollouts(self, use_case: str) -> list[Rollout]:
        """List the rollouts, the highest version first."""
        with self._read() as connection:
            rows = connection.execute(_of(use_case).order_by(rollout.c.version.desc())).all()
        return [_rollout(row) for row in rows]

    def rollout_events(self, use_case: str, version: int | None = None) -> list[RolloutEvent]:
        """List the changes of state of a use case, or of one version, in the order they happened.

        Raises
        ------
        NotFoundError
            If a version is given that has no rollout.
        """
        query = (
            select(rollout_event, rollout.c.use_case, rollout.c.version)
            .join(rollout, rollout.c.id == rollout_event.c.rollout_id)
            .where(rollout.c.use_case == use_case)
            .order_by(rollout_event.c.id)
        )
        with self._read() as connection:
            if version is not None:
                query = query.where(rollout.c.id == get(connection, use_case, version).id)
            rows = connection.execute(query).all()
        return [RolloutEvent(**row._mapping) for row in rows]


def rollout_scope(use_case: str) -> str:
    """Name the scope in which changes of rollouts happen one at a time."""
    return f"rollout:{use_case}"


def find(connection: Connection, use_case: str, version: int) -> Rollout | None:
    """Return the rollout of a version, or None."""
    row = connection.execute(_of(use_case).where(rollout.c.version == version)).one_or_none()
    return None if row is None else _rollout(row)


def get(connection: Connection, use_case: str, version: int) -> Rollout:
    """Return the rollout of a version, or raise NotFoundError listing the known ones."""
    found = find(connection, use_case, version)
    if found is not None:
        return found
    versions = select(rollout.c.version).where(rollout.c.use_case == use_case)
    known = connection.scalars(versions.order_by(rollout.c.version)).all()
    raise NotFoundError(
        f"Version {version} of {use_case} has no rollout.",
        expected=f"one of {', '.join(map(str, known))}" if known else None,
        found=None if known else f"no rollout of {use_case} at all",
        way_out=None if known else "Run the lifecycle to make a version.",
    )


def in_state(connection: Connection, use_case: str, state: RolloutState) -> list[Rollout]:
    """List the rollouts in one state, the lowest version first."""
    query = _of(use_case).where(rollout.c.state == state).order_by(rollout.c.version)
    return [_rollout(row) for row in connection.execute(query)]


def move(connection: Connection, moved: Rollout, to_state: RolloutState, change: Change) -> None:
    """Change the state of a rollout and write the event, in the caller's transaction."""
    connection.execute(
        update(rollout)
        .where(rollout.c.id == moved.id)
        .values(state=to_state, waiting_for=None, changed_at=change.now)
    )
    _write_event(connection, moved.id, moved.state, to_state, change)


def make_room(connection: Connection, use_case: str, version: int, change: Change) -> None:
    """Move the champion to ``previous`` and the previous one to ``archived``.

    This comes before the new champion is written: an index allows one ``full`` at any moment.
    """
    because = Change(change.actor, f"version {version} became full", change.now)
    champions = in_state(connection, use_case, "full")
    if champions:
        for older in in_state(connection, use_case, "previous"):
            move(connection, older, "archived", because)
    for older in champions:
        move(connection, older, "previous", because)


def _of(use_case: str) -> Select[Any]:
    return select(rollout).where(rollout.c.use_case == use_case)


def _rollout(row: Row[Any]) -> Rollout:
    return Rollout(**{**row._mapping, "stages": tuple(row.stages)})


def _write_event(
    connection: Connection,
    rollout_id: int,
    from_state: RolloutState | None,
    to_state: RolloutState,
    change: Change,
) -> None:
    row = {
        "rollout_id": rollout_id,
        "at": change.now,
        "from_state": from_state,
        "to_state": to_state,
        "actor": change.actor,
        "reason": change.reason,
    }
    new_id = connection.execute(insert(rollout_event).values(row).returning(rollout_event.c.id))
    moved = connection.execute(select(rollout).where(rollout.c.id == rollout_id)).one()
    told = {"id": new_id.scalar_one(), "use_case": moved.use_case, "version": moved.version}
    append(connection, [rollout_told({**row, **told})])


def rollout_told(row: Mapping[str, Any]) -> NewAuditEvent:
    """Return the audit event of a row of rollout_event, with use case and version."""
    detail = {name: row[name] for name in ("id", "version", "from_state", "to_state", "reason")}
    return NewAuditEvent("rollout", detail, row["use_case"], row["actor"], row["at"])


def _refuse_other_model(present: Rollout, fingerprint: str) -> None:
    if present.fingerprint != fingerprint:
        raise StateError(
            f"Version {present.version} of {present.use_case} already has a rollout, "
            "of another model.",
            expected=f"fingerprint {present.fingerprint}",
            found=f"fingerprint {fingerprint}",
            way_out="Registry and ops database do not belong together: was one of them reset?",
        )
