"""The audit chain in the database: what happened, each event hashed together with the one before.

An event that tells of a change is appended in the transaction of that change (`append`), so that
there is none without the other. The turn of scope `audit` is the last that a transaction takes:
two of them can never wait for each other.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from mlops_pipeline.governance.audit_chain import GENESIS, canonical, event_document, hash_of
from mlops_pipeline.stores.opsdb.records import AuditEvent
from mlops_pipeline.stores.opsdb.tables import UnstorableValueError, audit_event
from mlops_pipeline.stores.opsdb.transactions import Transactions, take_turn

AUDIT = "audit"


@dataclass(frozen=True)
class NewAuditEvent:
    """An event that is to be appended; `use_case` is None where it concerns none or all."""

    kind: str
    detail: Mapping[str, Any]
    use_case: str | None
    actor: str
    at: datetime


class AuditRows(Transactions):
    """What can be done with the audit chain: append, and read. Nothing changes an event."""

    def append_audit(
        self,
        kind: str,
        detail: Mapping[str, Any],
        *,
        use_case: str | None,
        actor: str,
        now: datetime,
    ) -> AuditEvent:
        """Append one event.

        Parameters
        ----------
        detail : mapping
            Plain JSON; no personal data, for an event is never erased.
        actor : str
            Who did it: a person's self-asserted name, or ``run <id>``.
        """
        return self.append_audits([NewAuditEvent(kind, detail, use_case, actor, now)])[0]

    def append_audits(self, events: Sequence[NewAuditEvent]) -> list[AuditEvent]:
        """Append events in this order, all or none."""
        with self._write(AUDIT) as connection:
            return append(connection, events)

    def audit_head(self) -> tuple[int, str]:
        """Return the number of events and the hash of the newest."""
        with self._read() as connection:
            return _head(connection)

    def audit_events(
        self, *, use_case: str | None = None, kind: str | None = None, limit: int = 100
    ) -> list[AuditEvent]:
        """List events, the newest first."""
        wanted = {name: value for name, value in (("use_case", use_case), ("kind", kind)) if value}
        query = select(audit_event).filter_by(**wanted).order_by(audit_event.c.seq.desc())
        with self._read() as connection:
            rows = connection.execute(query.limit(limit)).all()
        return [AuditEvent(**{**row._mapping, "detail": json.loads(row.detail)}) for row in rows]


def append(connection: Connection, events: Sequence[NewAuditEvent]) -> list[AuditEvent]:
    """Append events in the caller's transaction, as the last thing that it waits for."""
    if not events:
        return []
    details = [_plain(event.detail) for event in events]
    take_turn(connection, AUDIT)
    seq, previous = _head(connection)
    appended = []
    for event, detail in zip(events, details, strict=True):
        seq += 1
        document = event_document(
            seq,
            event.at,
            use_case=event.use_case,
            kind=event.kind,
            actor=event.actor,
            detail=detail,
            previous_hash=previous,
        )
        previous = hash_of(document)
        appended.append(AuditEvent(**{**document, "at": event.at, "hash": previous}))
    rows = [{**vars(event), "detail": canonical(event.detail)} for event in appended]
    connection.execute(insert(audit_event), rows)
    return appended


def _head(connection: Connection) -> tuple[int, str]:
    newest = select(audit_event.c.seq, audit_event.c.hash).order_by(audit_event.c.seq.desc())
    row = connection.execute(newest.limit(1)).one_or_none()
    return (0, GENESIS) if row is None else (row.seq, row.hash)


def _plain(detail: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document as it comes back from JSON: what is hashed is what can be read."""
    try:
        plain: dict[str, Any] = json.loads(canonical(dict(detail)))
    except (TypeError, ValueError) as error:
        raise UnstorableValueError(
            "The detail of an audit event is not plain JSON.",
            expected="dict, list, str, int, finite float, bool or None",
            found=str(error),
            way_out="Convert arrays and dates first; write a missing number as None.",
        ) from error
    return plain
