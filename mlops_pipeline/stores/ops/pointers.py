"""Pointers: named JSON documents that say which version is in force."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update

from mlops_pipeline.stores.ops.records import Pointer
from mlops_pipeline.stores.ops.tables import pointer
from mlops_pipeline.stores.ops.transactions import Transactions


class PointerRows(Transactions):
    """What can be done with pointers."""

    def set_pointer(
        self, use_case: str, name: str, value: Mapping[str, Any], *, run_id: str, now: datetime
    ) -> None:
        """Move a pointer: every later reader sees the whole new document."""
        key = (pointer.c.use_case == use_case) & (pointer.c.name == name)
        values = {"value": dict(value), "run_id": run_id, "updated_at": now}
        with self._write(f"pointer:{use_case}") as connection:
            if connection.execute(update(pointer).where(key).values(values)).rowcount == 0:
                connection.execute(insert(pointer).values(use_case=use_case, name=name, **values))

    def get_pointer(self, use_case: str, name: str) -> Pointer | None:
        """Read a pointer; None if it was never set."""
        key = (pointer.c.use_case == use_case) & (pointer.c.name == name)
        with self._read() as connection:
            row = connection.execute(select(pointer).where(key)).one_or_none()
        return None if row is None else Pointer(**row._mapping)
