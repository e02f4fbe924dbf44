"""The rows that the audit chain tells of, each with the event that has to be there for it.

The writers of those rows make their events by the same functions (`*_told`), so that the two can
be held against each other: core/audit/records.py does.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import BigInteger, Select, Text, func, select, type_coerce

from mlops_pipeline.core.audit.records import StoredRecord
from mlops_pipeline.errors import StateError
from mlops_pipeline.stores.ops.approvals import approval_told
from mlops_pipeline.stores.ops.audit import NewAuditEvent, canonical_detail
from mlops_pipeline.stores.ops.decisions import decision_told
from mlops_pipeline.stores.ops.exceptions import exception_told
from mlops_pipeline.stores.ops.lifecycles import run_told
from mlops_pipeline.stores.ops.rollouts import rollout_told
from mlops_pipeline.stores.ops.tables import (
    JsonText,
    UtcTimestamp,
    approval,
    decision,
    gate_exception,
    lifecycle_run,
    rollout,
    rollout_event,
)
from mlops_pipeline.stores.ops.transactions import Transactions

Row = Mapping[str, Any]
OF_ROLLOUT = (rollout.c.use_case, rollout.c.version)
TOLD: tuple[tuple[Select[Any], Callable[[Row], NewAuditEvent]], ...] = (
    (select(rollout_event, *OF_ROLLOUT).outerjoin(rollout), rollout_told),
    (select(approval, *OF_ROLLOUT).outerjoin(rollout), approval_told),
    (select(decision), lambda row: decision_told({**row, "actor": None})),
    (select(gate_exception), exception_told),
    (select(lifecycle_run), run_told),
)


class ToldRows(Transactions):
    """Reading what the chain tells of, whatever somebody made of it."""

    def stored_records(self) -> Iterator[StoredRecord]:
        """Yield every row that has an event; one that cannot be read is like no event."""
        with self._read_damaged() as connection:
            for query, told in TOLD:
                for row in connection.execute(_as_stored(query)):
                    yield _record(row._asdict(), query, told)

    def states_untold(self) -> list[str]:
        """Say of every rollout whose state is not that of its newest event."""
        newest = select(func.max(rollout_event.c.id)).group_by(rollout_event.c.rollout_id)
        query = (
            select(*OF_ROLLOUT, rollout.c.state, rollout_event.c.to_state)
            .outerjoin(
                rollout_event,
                (rollout_event.c.rollout_id == rollout.c.id) & rollout_event.c.id.in_(newest),
            )
            .where(rollout.c.state.is_distinct_from(rollout_event.c.to_state))
        )
        with self._read_damaged() as connection:
            return [
                f"version {row.version} of {row.use_case} is in state {row.state}, its newest "
                f"event says {row.to_state}: the state was altered"
                for row in connection.execute(query)
            ]


def _as_stored(query: Select[Any]) -> Select[Any]:
    """Return the query of the stored values: what is damaged must not fail the reading."""
    columns = (
        type_coerce(column, _plain(column.type)).label(column.name)
        for column in query.selected_columns
    )
    return query.with_only_columns(*columns, maintain_column_froms=True)


def _plain(kind: Any) -> Any:
    return {UtcTimestamp: BigInteger(), JsonText: Text()}.get(type(kind), kind)


def _record(row: Row, query: Select[Any], told: Callable[[Row], NewAuditEvent]) -> StoredRecord:
    columns = {column.name: column for column in query.selected_columns}
    place = columns["id"].table.name, row["id"]
    try:
        event = told({key: _read(columns[key].type, value) for key, value in row.items()})
        detail = canonical_detail(event.detail)
    except (ValueError, TypeError, OverflowError, StateError):
        return StoredRecord(*place, None)
    return StoredRecord(*place, event.kind, event.use_case, event.actor, event.at, detail)


def _read(kind: Any, stored: Any) -> Any:
    is_coded = isinstance(kind, UtcTimestamp | JsonText)
    return kind.process_result_value(stored, None) if is_coded else stored
