"""Tombstones: whom a use case has forgotten, as keyed hashes that ingestion holds rows against."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.stores.ops.audit import NewAuditEvent, append
from mlops_pipeline.stores.ops.records import Tombstone
from mlops_pipeline.stores.ops.tables import tombstone
from mlops_pipeline.stores.ops.transactions import Transactions

EVERY = "*"  # of every use case that has the entity, also those to come


class TombstoneRows(Transactions):
    """What can be done with tombstones."""

    def set_tombstone(
        self,
        entity: str,
        pseudonym: str,
        *,
        use_case: str,
        model_versions: Mapping[str, Sequence[int]],
        by: str,
        reason: str,
        now: datetime,
    ) -> Tombstone:
        """Say that a person is being forgotten, with an audit event; again adds model versions.

        Parameters
        ----------
        use_case : str
            A name, or `EVERY`.
        model_versions : mapping of use case to versions
            Those made from data that held the person.
        """
        key = {"entity": entity, "pseudonym": pseudonym, "use_case": use_case}
        with self._write(f"tombstone:{entity}") as connection:
            held = _find(connection, key)
            if held is None:
                named = {name: sorted(found) for name, found in model_versions.items()}
                values = {"model_versions": named, "by": by, "reason": reason, "at": now}
                connection.execute(insert(tombstone).values(**key, **values))
            else:
                named = {
                    name: sorted(
                        {*held.model_versions.get(name, ()), *model_versions.get(name, ())}
                    )
                    for name in {*held.model_versions, *model_versions}
                }
                again = {"model_versions": named, "finished_at": None}
                connection.execute(update(tombstone).filter_by(**key).values(again))
            detail = {**key, "reason": reason, "model_versions": named}
            append(connection, [_event("forget", detail, use_case, by, now)])
            return _get(connection, key)

    def finish_tombstone(
        self,
        held: Tombstone,
        detail: Mapping[str, Any],
        *,
        by: str,
        now: datetime,
    ) -> Tombstone:
        """Say that every store was cleaned, with an audit event that holds `detail`."""
        key = {"entity": held.entity, "pseudonym": held.pseudonym, "use_case": held.use_case}
        with self._write(f"tombstone:{held.entity}") as connection:
            connection.execute(update(tombstone).filter_by(**key).values(finished_at=now))
            done = {**key, **detail}
            append(connection, [_event("forgotten", done, held.use_case, by, now)])
            return _get(connection, key)

    def get_tombstone(self, entity: str, pseudonym: str, use_case: str) -> Tombstone | None:
        """Return the tombstone that was set with just this scope."""
        key = {"entity": entity, "pseudonym": pseudonym, "use_case": use_case}
        with self._read() as connection:
            return _find(connection, key)

    def forgotten(self, use_case: str, entity: str) -> frozenset[str]:
        """Return the pseudonyms that a use case keeps out."""
        query = select(tombstone.c.pseudonym).where(
            tombstone.c.entity == entity, tombstone.c.use_case.in_([use_case, EVERY])
        )
        with self._read() as connection:
            return frozenset(connection.scalars(query))


def _find(connection: Connection, key: Mapping[str, str]) -> Tombstone | None:
    row = connection.execute(select(tombstone).filter_by(**key)).one_or_none()
    return None if row is None else Tombstone(**row._mapping)


def _get(connection: Connection, key: Mapping[str, str]) -> Tombstone:
    found = _find(connection, key)
    if found is None:
        raise NotFoundError("there is no such tombstone", where=str(dict(key)))
    return found


def _event(
    kind: str, detail: Mapping[str, Any], scope: str, by: str, now: datetime
) -> NewAuditEvent:
    return NewAuditEvent(kind, detail, None if scope == EVERY else scope, by, now)
