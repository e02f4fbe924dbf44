"""Reading what the audit chain vouches for as it is stored, whatever somebody made of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import BigInteger, Text, func, select, type_coerce

from mlops_pipeline.core.audit.chain import StoredEvent
from mlops_pipeline.core.audit.records import AuditEvent
from mlops_pipeline.core.audit.rows import StoredRecord
from mlops_pipeline.core.rollout.records import RolloutEvent
from mlops_pipeline.errors import StateError
from mlops_pipeline.stores.ops.declarations import Declared, JsonText, UtcTimestamp
from mlops_pipeline.stores.ops.engine import reading_damaged
from mlops_pipeline.stores.ops.ledger import OpsDatabase, canonical_detail
from mlops_pipeline.stores.ops.tables import ROLLOUT, TABLES

ROWS_AT_ONCE = 1_000


@contextmanager
def anchoring(ops: OpsDatabase) -> Iterator[tuple[int, str]]:
    """Give the count and the head hash to one process at a time, to write them elsewhere."""
    with ops.write("audit_anchor") as tx:
        yield tx.audit_head()


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
    rollout, events = ROLLOUT.table, TABLES[RolloutEvent].table
    newest = select(func.max(events.c.id)).group_by(events.c.rollout_id)
    query = (
        select(rollout.c.use_case, rollout.c.version, rollout.c.state, events.c.to_state)
        .outerjoin(events, (events.c.rollout_id == rollout.c.id) & events.c.id.in_(newest))
        .where(rollout.c.state.is_distinct_from(events.c.to_state))
    )
    with reading_damaged(ops.engine) as connection:
        return [
            f"version {row.version} of {row.use_case} is in state {row.state}, its newest "
            f"event says {row.to_state}: the state was altered"
            for row in connection.execute(query)
        ]


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
    plain = (
        type_coerce(column, _plain(column.type)).label(name)
        for name, column in declared.columns.items()
    )
    return declared.select().with_only_columns(*plain, maintain_column_froms=True)


def _plain(kind: Any) -> Any:
    if isinstance(kind, JsonText):
        return Text()
    return BigInteger() if isinstance(kind, UtcTimestamp) else kind


def _record(declared: Declared, row: Mapping[str, Any]) -> StoredRecord:
    place = declared.table.name, row["id"]
    try:
        event = declared.event(
            {name: _read(declared.columns[name].type, value) for name, value in row.items()}
        )
        detail = canonical_detail(event.detail)
    except (ValueError, TypeError, OverflowError, StateError):
        return StoredRecord(*place, None)
    return StoredRecord(*place, event.kind, event.use_case, event.actor or None, event.at, detail)


def _read(kind: Any, stored: Any) -> Any:
    is_coded = isinstance(kind, UtcTimestamp | JsonText)
    return kind.process_result_value(stored, None) if is_coded else stored
