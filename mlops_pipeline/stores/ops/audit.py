"""Reading what the audit chain vouches for as it is stored, whatever somebody made of it."""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import type_coerce

from mlops_pipeline.core.audit.chain import AuditEvent, StoredEvent, StoredRecord
from mlops_pipeline.core.rollout.records import RolloutEvent
from mlops_pipeline.errors import StateError
from mlops_pipeline.stores.ops.declarations import Declared, JsonText, UtcTimestamp
from mlops_pipeline.stores.ops.engine import reading_damaged
from mlops_pipeline.stores.ops.ledger import OpsDatabase, canonical_detail
from mlops_pipeline.stores.ops.tables import ROLLOUT, TABLES

ROWS_AT_ONCE = 1_000


def stored_events(ops: OpsDatabase) -> Iterator[StoredEvent]:
    """Read the chain as it is stored, in order, a thousand rows at once."""
    declared = TABLES[AuditEvent]
    query = _as_stored(declared).order_by(declared.table.c.seq)
    with reading_damaged(ops.engine) as connection:
        streaming = connection.execution_options(yield_per=ROWS_AT_ONCE)
        for row in streaming.execute(query).mappings():
            values = {"at_us" if name == "at" else name: value for name, value in row.items()}
            yield StoredEvent(**values)


def stored_records(ops: OpsDatabase) -> Iterator[StoredRecord]:
    """Yield every audited row; one that cannot be read is like no event."""
    with reading_damaged(ops.engine) as connection:
        for declared in TABLES.values():
            if declared.audited:
                for row in connection.execute(_as_stored(declared)).mappings():
                    yield _record(declared, dict(row))


def unexplained_states(ops: OpsDatabase) -> list[str]:
    """Say of every rollout whose state is not that of its newest event."""
    found = []
    for row, changes in recorded_changes(ops):
        newest = changes[-1][1] if changes else None
        if row.state != newest:
            found.append(f"version {row.version} of {row.use_case} is in state {row.state}, its "
                         f"newest event says {newest}: the state was altered")  # fmt: skip
    return found


def recorded_changes(ops: OpsDatabase) -> list[tuple[Any, list[tuple[Any, Any]]]]:
    """Return every rollout's row, as stored, with its recorded changes (from, to) in order."""
    rollout, events = ROLLOUT.table, TABLES[RolloutEvent].table
    query = (  # one statement, so that both are of one time
        _as_stored(ROLLOUT)
        .add_columns(events.c.id.label("event_id"), events.c.from_state, events.c.to_state)
        .select_from(rollout.outerjoin(events, events.c.rollout_id == rollout.c.id))
        .order_by(rollout.c.id, events.c.id)
    )
    found: dict[Any, tuple[Any, list[tuple[Any, Any]]]] = {}
    with reading_damaged(ops.engine) as connection:
        for row in connection.execute(query):
            _, changes = found.setdefault(row.id, (row, []))
            if row.event_id is not None:
                changes.append((row.from_state, row.to_state))
    return list(found.values())


def _as_stored(declared: Declared) -> Any:
    """Return the query of the stored values: what is damaged must not fail the reading."""
    plain = []
    for name, column in declared.columns.items():
        kind: Any = column.type
        plain.append(type_coerce(column, kind.impl if _is_coded(kind) else kind).label(name))
    return declared.select().with_only_columns(*plain, maintain_column_froms=True)


def _is_coded(kind: Any) -> bool:
    return isinstance(kind, UtcTimestamp | JsonText)


def _record(declared: Declared, row: Mapping[str, Any]) -> StoredRecord:
    place, values = (declared.table.name, row["id"]), dict(row)
    try:
        for name, column in declared.columns.items():
            kind: Any = column.type
            if _is_coded(kind):
                values[name] = kind.process_result_value(row[name], None)
        event = declared.event(values)
        detail = canonical_detail(event.detail)
    except (ValueError, TypeError, OverflowError, StateError):
        return StoredRecord(*place, None)
    return StoredRecord(*place, event.kind, event.use_case, event.actor or None, event.at, detail)
