"""Decisions: every one is kept with its evidence, also the decisions not to act."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select

from mlops_pipeline.stores.ops.audit import NewAuditEvent, append
from mlops_pipeline.stores.ops.records import Decision
from mlops_pipeline.stores.ops.tables import decision
from mlops_pipeline.stores.ops.transactions import Transactions


class DecisionRows(Transactions):
    """What can be done with decisions."""

    def record_decision(
        self,
        use_case: str,
        kind: str,
        action: str,
        reason: str,
        evidence: Mapping[str, Any],
        *,
        now: datetime,
        run_key: str | None = None,
        actor: str = "mlops",
    ) -> int:
        """Keep a decision and return its id.

        Parameters
        ----------
        kind : str
            What it was about, for example ``retraining``.
        action : str
            What was decided, for example ``retrain`` or ``wait``.
        run_key : str, optional
            Key of the run that was asked for, if one was.
        actor : str
            Who decided, for the audit event: a person, a run; by default the program itself.
        """
        row = {
            "use_case": use_case,
            "kind": kind,
            "action": action,
            "reason": reason,
            "evidence": dict(evidence),
            "run_key": run_key,
            "at": now,
        }
        with self._write(f"decision:{use_case}") as connection:
            new_id = connection.execute(insert(decision).values(row).returning(decision.c.id))
            decision_id = int(new_id.scalar_one())
            append(connection, [decision_told({**row, "id": decision_id, "actor": actor})])
            return decision_id

    def list_decisions(
        self, use_case: str, kind: str | None = None, limit: int = 100
    ) -> list[Decision]:
        """List decisions, the last recorded first."""
        query = select(decision).where(decision.c.use_case == use_case)
        if kind is not None:
            query = query.where(decision.c.kind == kind)
        with self._read() as connection:
            rows = connection.execute(query.order_by(decision.c.id.desc()).limit(limit)).all()
        return [Decision(**row._mapping) for row in rows]


def decision_told(row: Mapping[str, Any]) -> NewAuditEvent:
    """Return the audit event of a row of decision, with the actor, whom only the event names."""
    names = ("id", "kind", "action", "reason", "evidence", "run_key")
    detail = {name: row[name] for name in names}
    return NewAuditEvent("decision", detail, row["use_case"], row["actor"], row["at"])
