"""Tombstones: whom a use case has forgotten, as keyed hashes that ingestion compares rows with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from mlops_pipeline.core.audit.chain import NewAuditEvent
from mlops_pipeline.stores.ops import Ledger, Tombstone

EVERY = "*"  # of every use case that has the entity, also those to come


def set_tombstone(
    ops: Ledger,
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

    `use_case` is a name, or `EVERY`; `model_versions` those made from data that held the person.
    """
    key = {"entity": entity, "pseudonym": pseudonym, "use_case": use_case}
    with ops.write(f"tombstone:{entity}") as tx:
        found = tx.find(Tombstone, **key)
        before = {} if found is None else found.model_versions
        named = {
            name: sorted({*before.get(name, ()), *model_versions.get(name, ())})
            for name in {*before, *model_versions}
        }
        row = found or Tombstone(entity, pseudonym, use_case, named, by, reason, now, None)
        row = replace(row, model_versions=named, finished_at=None)
        tx.replace(row)
        detail = {**key, "reason": reason, "model_versions": named}
        tx.append([_event("forget", detail, use_case, by, now)])
        return row


def finish_tombstone(
    ops: Ledger, held: Tombstone, detail: Mapping[str, Any], *, by: str, now: datetime
) -> Tombstone:
    """Say that every store was cleaned, with an audit event that has `detail`."""
    key = {"entity": held.entity, "pseudonym": held.pseudonym, "use_case": held.use_case}
    with ops.write(f"tombstone:{held.entity}") as tx:
        done = tx.change(held, finished_at=now)
        tx.append([_event("forgotten", {**key, **detail}, held.use_case, by, now)])
        return done


def get_tombstone(ops: Ledger, entity: str, pseudonym: str, use_case: str) -> Tombstone | None:
    """Return the tombstone that was set with just this scope."""
    return ops.find(Tombstone, entity=entity, pseudonym=pseudonym, use_case=use_case)


def forgotten_pseudonyms(ops: Ledger, use_case: str, entity: str) -> frozenset[str]:
    """Return the pseudonyms that a use case keeps out."""
    rows = ops.all(Tombstone, entity=entity, use_case=(use_case, EVERY))
    return frozenset(row.pseudonym for row in rows)


def _event(
    kind: str, detail: Mapping[str, Any], scope: str, by: str, now: datetime
) -> NewAuditEvent:
    return NewAuditEvent(kind, detail, None if scope == EVERY else scope, by, now)
