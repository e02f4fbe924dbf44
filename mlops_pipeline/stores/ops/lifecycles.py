"""Lifecycle runs: when they began, how they ended, where the time went."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, insert, select, update

from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.stores.ops.audit import UNKNOWN, NewAuditEvent, append, utc_text
from mlops_pipeline.stores.ops.records import LifecycleRun
from mlops_pipeline.stores.ops.tables import lifecycle_run, lifecycle_step
from mlops_pipeline.stores.ops.transactions import Transactions


class LifecycleRows(Transactions):
    """What can be done with lifecycle runs."""

    def start_lifecycle(
        self,
        use_case: str,
        run_id: str,
        *,
        as_of: datetime,
        trigger: str,
        triggered_by: str | None = None,
        now: datetime,
    ) -> LifecycleRun:
        """Note that a run began; a second call changes nothing and returns the first.

        Parameters
        ----------
        trigger : str
            What started it, for example ``manual`` or ``monthly``.
        triggered_by : str, optional
            Who started it: a self-asserted name, ``sensor`` or ``schedule``. None: not known.
        """
        with self._write(f"lifecycle:{use_case}") as connection:
            present = _find(connection, use_case, run_id)
            if present is not None:
                return present
            row = {
                "use_case": use_case,
                "run_id": run_id,
                "as_of": as_of,
                "trigger": trigger,
                "triggered_by": triggered_by,
                "started_at": now,
            }
            new_id = connection.execute(
                insert(lifecycle_run).values(row).returning(lifecycle_run.c.id)
            )
            append(connection, [run_told({**row, "id": new_id.scalar_one()})])
            return _get(connection, use_case, run_id)

    def finish_lifecycle(
        self,
        use_case: str,
        run_id: str,
        *,
        verdict: str,
        fingerprint: str | None,
        summary: Mapping[str, Any],
        now: datetime,
    ) -> LifecycleRun:
        """Note how a run ended; a second call with the same verdict changes nothing.

        Raises
        ------
        NotFoundError
            If the run never started.
        StateError
            If the run already ended with another verdict.
        """
        with self._write(f"lifecycle:{use_case}") as connection:
            present = _get(connection, use_case, run_id)
            if present.finished_at is not None:
                if present.verdict != verdict:
                    raise StateError(
                        f"Run {run_id} of {use_case} already ended with another verdict.",
                        expected=f"an unfinished run, or verdict {present.verdict!r} again",
                        found=f"verdict {verdict!r}",
                        way_out="Start a new run; a finished one is not rewritten.",
                    )
                return present
            connection.execute(
                update(lifecycle_run)
                .where(_is_run(use_case, run_id))
                .values(
                    verdict=verdict,
                    fingerprint=fingerprint,
                    summary=dict(summary),
                    finished_at=now,
                )
            )
            return _get(connection, use_case, run_id)

    def last_finished_lifecycle(self, use_case: str) -> LifecycleRun | None:
        """Return the run that ended last, whatever its verdict; None if none has."""
        finished = _runs(use_case).where(lifecycle_run.c.finished_at.is_not(None))
        latest = finished.order_by(lifecycle_run.c.finished_at.desc(), lifecycle_run.c.id.desc())
        return self._first(latest)

    def last_lifecycle(self, use_case: str) -> LifecycleRun | None:
        """Return the run that started last, finished or not; None if there is none."""
        return self._first(_newest_first(use_case))

    def list_lifecycles(self, use_case: str, limit: int = 20) -> list[LifecycleRun]:
        """List runs, the one that started last first."""
        with self._read() as connection:
            rows = connection.execute(_newest_first(use_case).limit(limit)).all()
        return [LifecycleRun(**row._mapping) for row in rows]

    def record_step_seconds(self, use_case: str, run_id: str, asset: str, seconds: float) -> None:
        """Add time spent on an asset; the attempts of one run add up."""
        step = {"use_case": use_case, "run_id": run_id, "asset": asset}
        with self._write(f"lifecycle_step:{use_case}:{run_id}") as connection:
            added = connection.execute(
                update(lifecycle_step)
                .filter_by(**step)
                .values(seconds=lifecycle_step.c.seconds + seconds)
            )
            if added.rowcount == 0:
                connection.execute(insert(lifecycle_step).values(**step, seconds=seconds))

    def step_seconds(self, use_case: str, run_id: str) -> dict[str, float]:
        """Return the seconds spent by asset; empty if nothing was recorded."""
        query = select(lifecycle_step).filter_by(use_case=use_case, run_id=run_id)
        with self._read() as connection:
            rows = connection.execute(query.order_by(lifecycle_step.c.asset)).all()
        return {row.asset: row.seconds for row in rows}

    def seconds_by_run(self, use_case: str) -> dict[str, dict[str, float]]:
        """Return {run id: {asset: seconds}} of every run, lifecycle or not."""
        query = select(lifecycle_step).where(lifecycle_step.c.use_case == use_case)
        found: dict[str, dict[str, float]] = {}
        with self._read() as connection:
            for row in connection.execute(query.order_by(lifecycle_step.c.run_id)):
                found.setdefault(row.run_id, {})[row.asset] = row.seconds
        return found

    def _first(self, query: Select[Any]) -> LifecycleRun | None:
        with self._read() as connection:
            row = connection.execute(query.limit(1)).one_or_none()
        return None if row is None else LifecycleRun(**row._mapping)


def _is_run(use_case: str, run_id: str) -> ColumnElement[bool]:
    return (lifecycle_run.c.use_case == use_case) & (lifecycle_run.c.run_id == run_id)


def _runs(use_case: str) -> Select[Any]:
    return select(lifecycle_run).where(lifecycle_run.c.use_case == use_case)


def _newest_first(use_case: str) -> Select[Any]:
    return _runs(use_case).order_by(lifecycle_run.c.started_at.desc(), lifecycle_run.c.id.desc())


def _find(connection: Connection, use_case: str, run_id: str) -> LifecycleRun | None:
    row = connection.execute(select(lifecycle_run).where(_is_run(use_case, run_id))).one_or_none()
    return None if row is None else LifecycleRun(**row._mapping)


def _get(connection: Connection, use_case: str, run_id: str) -> LifecycleRun:
    found = _find(connection, use_case, run_id)
    if found is None:
        raise NotFoundError(
            f"There is no lifecycle run {run_id!r} of {use_case}.",
            way_out="Call start_lifecycle when the run begins.",
        )
    return found


def run_told(row: Mapping[str, Any]) -> NewAuditEvent:
    """Return the audit event of a row of lifecycle_run: that the run began."""
    detail = {name: row[name] for name in ("id", "run_id", "trigger")}
    detail["as_of"] = utc_text(row["as_of"])
    actor = row["triggered_by"] or UNKNOWN
    return NewAuditEvent("run", detail, row["use_case"], actor, row["started_at"])
