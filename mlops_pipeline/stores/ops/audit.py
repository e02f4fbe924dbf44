"""The audit chain in the database: what happened, each event hashed together with the one before.

An event that tells of a change is appended in the transaction of that change (`append`), so that
there is none without the other. The turn of scope `audit` is the last that a transaction takes:
two of them can never wait for each other.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, insert, select, type_coerce

from mlops_pipeline.core.audit.anchors import GENESIS, canonical
from mlops_pipeline.core.audit.chain import StoredEvent, event_hash, time_text
from mlops_pipeline.stores.ops.records import AuditEvent
from mlops_pipeline.stores.ops.tables import UnstorableValueError, audit_event
from mlops_pipeline.stores.ops.transactions import Transactions, take_turn

AUDIT = "audit"
ROWS_AT_ONCE = 1_000
UNKNOWN = "unknown"  # an actor who did not say who they are


@dataclass(frozen=True)
class NewAuditEvent:
    """An event that is to be appended; `use_case` is None where it concerns none or all."""

    kind: str
    detail: Mapping[str, Any]
    use_case: str | None
    actor: str
    at: datetime


def utc_text(moment: datetime | None) -> str | None:
    """Write a time of a detail: the same for a moment as it was given and as it was stored."""
    return None if moment is None else moment.astimezone(UTC).isoformat()


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

    def audit_hash(self, seq: int) -> str | None:
        """Return the stored hash of an event; None if there is no such event."""
        with self._read() as connection:
            query = select(audit_event.c.hash).where(audit_event.c.seq == seq)
            return connection.execute(query).scalar_one_or_none()

    @contextmanager
    def anchoring(self) -> Iterator[tuple[int, str]]:
        """Give the count and the head hash to one process at a time, to write them elsewhere."""
        with self._write("audit_anchor") as connection:
            yield _head(connection)

    def stored_events(self) -> Iterator[StoredEvent]:
        """Read the chain as it is stored, in order, a thousand rows at once.

        Raises
        ------
        StateError
            If the database is too damaged to be read.
        """
        raw = audit_event.columns
        at_us = type_coerce(raw.at, BigInteger).label("at_us")
        query = select(*(at_us if column is raw.at else column for column in raw))
        with self._read_damaged() as connection:
            streaming = connection.execution_options(yield_per=ROWS_AT_ONCE)
            for row in streaming.execute(query.order_by(raw.seq)):
                yield StoredEvent(**row._mapping)


def append(connection: Connection, events: Sequence[NewAuditEvent]) -> list[AuditEvent]:
    """Append events in the caller's transaction, as the last thing that it waits for."""
    if not events:
        return []
    details = [canonical_detail(event.detail) for event in events]
    take_turn(connection, AUDIT)
    seq, previous = _head(connection)
    rows: list[dict[str, Any]] = []
    for event, detail in zip(events, details, strict=True):
        seq += 1
        row = {**vars(event), "seq": seq, "detail": detail, "previous_hash": previous}
        previous = event_hash(**{**row, "at": time_text(event.at)})
        rows.append({**row, "hash": previous})
    connection.execute(insert(audit_event), rows)
    return [AuditEvent(**{**row, "detail": json.loads(row["detail"])}) for row in rows]


def _head(connection: Connection) -> tuple[int, str]:
    newest = select(audit_event.c.seq, audit_event.c.hash).order_by(audit_event.c.seq.desc())
    row = connection.execute(newest.limit(1)).one_or_none()
    return (0, GENESIS) if row is None else (row.seq, row.hash)


def canonical_detail(detail: Mapping[str, Any]) -> str:
    """Return the canonical JSON of what a reader gets back (keys are text there)."""
    try:
        return canonical(json.loads(canonical(dict(detail))))
    except (TypeError, ValueError) as error:
        raise UnstorableValueError(
            "The detail of an audit event is not plain JSON.",
            expected="dict, list, str, int, finite float, bool or None",
            found=str(error),
            way_out="Convert arrays and dates first; write a missing number as None.",
        ) from error
