"""Compares audited rows - rollouts, approvals, exceptions - with the events of the audit chain.

The chain (chain.py) shows that nobody changed the events. This shows that the rows which the
program goes by still say what their events say, and that each has one.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlops_pipeline.core.audit.chain import EPOCH, MICROSECOND, StoredEvent


@dataclass(frozen=True)
class StoredRecord:
    """A row as it is stored, and what its event has to say.

    `kind` is None when the row cannot be read, `actor` when it does not hold it; `detail` is
    canonical JSON.
    """

    table: str
    id: int
    kind: str | None
    use_case: str | None = None
    actor: str | None = None
    at: datetime | None = None
    detail: str = ""

    @property
    def name(self) -> str:
        """Return what a person calls the row by."""
        return f"{self.table} {self.id}"

    def differs_from(self, event: StoredEvent) -> bool:
        """Whether the row says something else than its event."""
        return (
            (event.kind, event.use_case, event.detail) != (self.kind, self.use_case, self.detail)
            or self.at is None
            or event.at_us != (self.at - EPOCH) // MICROSECOND
            or self.actor not in (None, event.actor)
        )


class RecordCheck:
    """Reads the events of a chain once and says which rows they do not agree with.

    `records` are the rows that have to have an event, read before the events are; `known` is how
    many events there were then, for later ones may tell of later rows; `tables` says by kind where
    the row of an event is. `report` takes what is wrong, and the event that says otherwise.
    """

    def __init__(
        self,
        records: Iterable[StoredRecord],
        known: int,
        tables: Mapping[str, str],
        report: Callable[[str, StoredEvent | None], None],
    ) -> None:
        self._without_event = {(record.table, record.id): record for record in records}
        self._known, self._tables, self._report = known, tables, report

    def add(self, event: StoredEvent) -> None:
        """Compare an event with its row."""
        table = self._tables.get(str(event.kind))
        row_id = None if table is None else _id(event.detail)
        if table is None or row_id is None:
            return
        record = self._without_event.pop((table, row_id), None)
        if record is None:
            if event.seq <= self._known:
                self._report(f"{table} {row_id}, of which it tells, is gone", event)
        elif record.differs_from(event):
            self._report(f"{record.name} does not say what it says: the row was altered", event)

    def finish(self) -> None:
        """Say which rows no event tells of."""
        for record in self._without_event.values():
            self._report(f"{record.name} has no event: the row was put there", None)


def _id(detail: Any) -> int | None:
    """Return the id in a detail; None when it cannot be read, which the chain's hashes show."""
    try:
        document = json.loads(detail)
    except (TypeError, ValueError):
        return None
    found = document.get("id") if isinstance(document, dict) else None
    return found if isinstance(found, int) else None
