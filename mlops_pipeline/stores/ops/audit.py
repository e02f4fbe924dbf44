"""Reading what the audit chain vouches for as it is stored, whatever somebody made of it."""

from collections.abc import Iterator, Mapping
from typing import Any

from mlops_pipeline.core.audit.anchors import canonical
from mlops_pipeline.core.audit.chain import AuditEvent, Place, StoredEvent, StoredRecord, row_digest
from mlops_pipeline.core.rollout.records import RolloutEvent
from mlops_pipeline.errors import StateError
from mlops_pipeline.stores.ops.declarations import Declared, is_coded
from mlops_pipeline.stores.ops.engine import guards, reading_damaged
from mlops_pipeline.stores.ops.ledger import OpsDatabase, canonical_detail
from mlops_pipeline.stores.ops.tables import ROLLOUT, TABLES

ROWS_AT_ONCE = 1_000
TIMES = ("at", "recorded_at")  # of an event


def stored_events(ops: OpsDatabase) -> Iterator[StoredEvent]:
    """Read the chain as it is stored, in order, a thousand rows at once."""
    declared = TABLES[AuditEvent]
    query = declared.as_stored().order_by(declared.table.c.seq)
    with reading_damaged(ops.engine) as connection:
        streaming = connection.execution_options(yield_per=ROWS_AT_ONCE)
        for row in streaming.execute(query).mappings():
            values = {f"{name}_us" if name in TIMES else name: row[name] for name in row}
            yield StoredEvent(**values)


def stored_records(ops: OpsDatabase) -> Iterator[StoredRecord]:
    """Yield every audited row; one that cannot be read is like no event."""
    with reading_damaged(ops.engine) as connection:
        for declared in TABLES.values():
            if declared.audited:
                for row in connection.execute(declared.as_stored()).mappings():
                    yield _record(declared, dict(row))


def stored_digests(ops: OpsDatabase) -> dict[Place, str | None]:
    """Return the digest of every row of the tables whose every change is recorded."""
    found = {}
    with reading_damaged(ops.engine) as connection:
        for declared in TABLES.values():
            if declared.recorded:
                for row in connection.execute(declared.as_stored()).mappings():
                    key = (row[name] for name in declared.key)
                    texts = [str(part) if isinstance(part, bytes) else part for part in key]
                    found[declared.table.name, canonical(texts)] = row_digest(dict(row))
    return found


def altered_guards(ops: OpsDatabase) -> list[str]:
    """Say which triggers, and on SQLite which indexes, are not as this package makes them."""
    expected, found = guards(ops.engine)
    names = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    return [
        f"{name} of the database is "
        + ("gone" if name not in found else "altered" if name in expected else "not ours")
        for name in names
    ]


def recorded_changes(ops: OpsDatabase) -> list[tuple[Any, list[tuple[Any, Any]]]]:
    """Return every rollout's row, as stored, with its recorded changes (from, to) in order."""
    rollout, events = ROLLOUT.table, TABLES[RolloutEvent].table
    query = (  # one statement, so that both are of one time
        ROLLOUT.as_stored()
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


def _record(declared: Declared, row: Mapping[str, Any]) -> StoredRecord:
    place, values = (declared.table.name, row["id"]), dict(row)
    try:
        for name, column in declared.columns.items():
            kind: Any = column.type
            if is_coded(kind):
                values[name] = kind.process_result_value(row[name], None)
        event = declared.event(values)
        detail = canonical_detail(event.detail)
    except (ValueError, TypeError, OverflowError, StateError):
        return StoredRecord(*place, None)
    return StoredRecord(*place, event.kind, event.use_case, event.actor or None, event.at, detail)
