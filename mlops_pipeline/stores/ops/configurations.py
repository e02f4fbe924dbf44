"""Configurations: which one a use case ran with, and every change between two lifecycles."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update

from mlops_pipeline.stores.ops.audit import NewAuditEvent, append
from mlops_pipeline.stores.ops.tables import pointer
from mlops_pipeline.stores.ops.transactions import Transactions

CONFIGURATION = "configuration"  # the name of the pointer, and the kind of the event


class ConfigurationRows(Transactions):
    """What can be done with the record of configurations."""

    def record_configuration(
        self, use_case: str, document: Mapping[str, Any], *, by: str, now: datetime
    ) -> dict[str, Any]:
        """Note the configuration in force; return the changed keys with old and new values.

        Every asset and every verdict of a person does, before it goes by the configuration: `by`
        says which found the change (``run <id>``, ``approval``), not who made it.

        The first configuration is an audit event with the whole document, each later change one
        with what changed: thresholds of gates, features, costs. So the chain alone tells every
        configuration by which something was made or decided.
        """
        key = (pointer.c.use_case == use_case) & (pointer.c.name == CONFIGURATION)
        values = {"value": dict(document), "run_id": by, "updated_at": now}
        with self._write(f"pointer:{use_case}") as connection:
            before = connection.execute(select(pointer.c.value).where(key)).scalar_one_or_none()
            changed = {} if before is None else dict(_changes(before, document))
            if before is None:
                new = {"use_case": use_case, "name": CONFIGURATION, **values}
                connection.execute(insert(pointer).values(new))
            elif changed:
                connection.execute(update(pointer).where(key).values(values))
            if before is None or changed:
                detail = {"changed": changed} if changed else {"document": dict(document)}
                event = NewAuditEvent(CONFIGURATION, detail, use_case, by, now)
                append(connection, [event])
        return changed


def _changes(before: Any, after: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each key, with dots, whose value differs; a list of another length is one value."""
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        before, after = dict(enumerate(before)), dict(enumerate(after))
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(name for name in after if name not in before)]:
            where = f"{place}.{name}" if place else str(name)
            yield from _changes(before.get(name), after.get(name), where)
    elif before != after:
        yield place, {"old": before, "new": after}
