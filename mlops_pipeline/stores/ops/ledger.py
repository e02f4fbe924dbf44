"""The ledger: one way to read, insert, change and audit the rows of every table.

    with OpsDatabase.open(url) as ops:
        ops.all(Alert, use_case="churn", resolved_at=None)
        with ops.write("churn") as tx:  # read -> decide -> write, alone in this scope
            found = tx.find(Rollout, use_case="churn", version=3)
            tx.change(found, state="archived")

Functions that decide take a `Ledger`: the database, where each call is a transaction, or a
transaction that was handed in, where all are one. The audit event of a row is written with it.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Self, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, Text, insert, select, type_coerce, update
from sqlalchemy.exc import DatabaseError

from mlops_pipeline.core.audit.anchors import GENESIS, canonical
from mlops_pipeline.core.audit.chain import (
    RECORD,
    AuditEvent,
    NewAuditEvent,
    event_hash,
    row_digest,
    time_text,
)
from mlops_pipeline.errors import ConfigError, StateError
from mlops_pipeline.stores import Closing
from mlops_pipeline.stores.clock import machine_now
from mlops_pipeline.stores.ops.declarations import Declared, plain_json
from mlops_pipeline.stores.ops.engine import (
    create,
    make_engine,
    shown,
    take_turn,
    write_transaction,
)
from mlops_pipeline.stores.ops.tables import TABLES

NEW = 0  # the id of a row that is to be inserted
AUDIT = "audit"
AUDIT_EVENT = TABLES[AuditEvent].table
R = TypeVar("R", bound=Any)
Detail = Mapping[str, Any]  # of an audit event


class Ledger(ABC):
    """What can be done in one transaction, or in one for each call."""

    @abstractmethod
    def read(self) -> "AbstractContextManager[Transaction]":
        """One consistent look; takes no lock."""

    @abstractmethod
    def write(self, scope: str) -> "AbstractContextManager[Transaction]":
        """All or nothing, alone in `scope`: the use case, as a rule."""

    def all(
        self,
        record: type[R],
        *where: ColumnElement[bool],
        order: Sequence[str] = (),
        limit: int | None = None,
        **equal: Any,
    ) -> list[R]:
        """Return rows with these values (None: NULL), by key or `order` (``-``: descending)."""
        declared = TABLES[record]
        query = declared.select().where(*where, *_equal(declared, equal)).limit(limit)
        for name in order or declared.key:
            column = declared.columns[name.removeprefix("-")]
            query = query.order_by(column.desc() if name.startswith("-") else column)
        with self.read() as tx:
            found = tx.connection.execute(query).mappings()
            return [declared.restored(dict(row)) for row in found]

    def find(
        self, record: type[R], *where: ColumnElement[bool], order: Sequence[str] = (), **equal: Any
    ) -> R | None:
        """Return the first such row, or None."""
        found = self.all(record, *where, order=order, limit=1, **equal)
        return found[0] if found else None

    def put(self, row: Any) -> None:
        """Write a row of a table without an id: the one with its key is replaced."""
        declared = TABLES[type(row)]
        with self.write(f"{declared.table.name}:{getattr(row, declared.key[0])}") as tx:
            tx.replace(row)

    def append_audit(
        self, kind: str, detail: Detail, *, use_case: str | None, actor: str, now: datetime
    ) -> AuditEvent:
        """Append one audit event that has no row."""
        return self.append([NewAuditEvent(kind, detail, use_case, actor, now)])[0]

    def append(self, events: Sequence[NewAuditEvent]) -> list[AuditEvent]:
        """Append audit events in this order, all or none: what a transaction waits for last."""
        if not events:
            return []
        details = [canonical_detail(event.detail) for event in events]
        rows: list[dict[str, Any]] = []
        with self.write(AUDIT) as tx:
            (seq, previous), machine = tx.audit_head(), machine_now()
            for event, detail in zip(events, details, strict=True):
                seq += 1
                row = {**vars(event), "seq": seq, "detail": detail, "previous_hash": previous}
                row["recorded_at"] = machine
                times = {"at": time_text(event.at), "recorded_at": time_text(machine)}
                previous = event_hash({**row, **times})
                rows.append({**row, "detail": json.loads(detail), "hash": previous})
            tx.connection.execute(insert(AUDIT_EVENT), rows)
        return [AuditEvent(**row) for row in rows]

    def audit_head(self) -> tuple[int, str]:
        """Return the number of events and the hash of the newest, whatever else it holds."""
        columns = AUDIT_EVENT.c.seq, AUDIT_EVENT.c.hash
        with self.read() as tx:
            query = select(*columns).order_by(AUDIT_EVENT.c.seq.desc()).limit(1)
            newest = tx.connection.execute(query).first()
        return (0, GENESIS) if newest is None else (newest.seq, newest.hash)

    def audit_hash(self, seq: int) -> str | None:
        """Return the hash of an event, whatever else it holds; None if there is no such event."""
        with self.read() as tx:
            query = select(AUDIT_EVENT.c.hash).where(AUDIT_EVENT.c.seq == seq)
            found: str | None = tx.connection.execute(query).scalar_one_or_none()
        return found

    def audit_events(
        self, *, use_case: str | None = None, kind: str | None = None, limit: int = 100
    ) -> list[AuditEvent]:
        """List events, the newest first."""
        wanted = {name: value for name, value in (("use_case", use_case), ("kind", kind)) if value}
        return self.all(AuditEvent, order=("-seq",), limit=limit, **wanted)

    def is_vouched_for(self, row: Any) -> bool:
        """Whether the events of a row tell of it as it is."""
        declared, detail = TABLES[type(row)], type_coerce(AUDIT_EVENT.c.detail, Text)
        with self.read() as tx:
            told = [declared.event(vars(row))] if declared.audited else []
            states = tx._states(row)
            found = [
                tx.find(AuditEvent, detail == canonical_detail(event.detail), kind=event.kind)
                for event in told
            ]
            for event in states:
                place = f'{{"key":{canonical(event.detail["key"])},%"{event.detail["table"]}"}}'
                newest = tx.find(AuditEvent, detail.like(place), order=("-seq",), kind=RECORD)
                found.append(newest if newest and newest.detail == event.detail else None)
        return None not in found

    def events_after(self, seq: int, **equal: Any) -> list[AuditEvent]:
        """List the events after one, oldest first: what a process that follows has not seen."""
        return self.all(AuditEvent, AUDIT_EVENT.c.seq > seq, **equal)


class Transaction(Ledger):
    """An open transaction, and the scopes whose turn it has; a nested one is the same."""

    def __init__(self, connection: Connection, *scopes: str) -> None:
        self.connection = connection
        self._scopes = set(scopes)

    @contextmanager
    def read(self) -> "Iterator[Transaction]":
        """Go on in this transaction."""
        yield self

    @contextmanager
    def write(self, scope: str) -> "Iterator[Transaction]":
        """Go on in this transaction in one more scope; `audit` comes last: none waits for ever."""
        if scope not in self._scopes:
            if AUDIT in self._scopes:
                raise StateError(
                    "A transaction takes its scopes before it writes an audit event.",
                    expected=f"one of {', '.join(sorted(self._scopes))}",
                    found=scope,
                )
            take_turn(self.connection, scope)
            self._scopes.add(scope)
        yield self

    def insert(self, row: R, *, actor: str | None = None) -> R:
        """Write a new row, and its audit event if its table is audited; return it with its id."""
        declared = TABLES[type(row)]
        values = declared.stored(vars(row))
        if values.pop("id", None) is None:
            self.connection.execute(insert(declared.table).values(values))
        else:
            statement = insert(declared.table).values(values).returning(declared.table.c.id)
            row = replace(row, id=self.connection.execute(statement).scalar_one())
        told = [declared.event(vars(row), actor)] if declared.audited else []
        self.append([*told, *self._states(row)])
        return row

    def change(self, row: R, **values: Any) -> R:
        """Change columns that are still as they were read (or StateError); return the row."""
        declared = TABLES[type(row)]
        same = [
            declared.table.c[name].is_not_distinct_from(getattr(row, name))
            for name in (*declared.key, *values)
        ]
        changed = self.connection.execute(update(declared.table).where(*same).values(values))
        if changed.rowcount != 1:
            key = ", ".join(str(getattr(row, name)) for name in declared.key)
            raise StateError(
                f"{declared.table.name} {key} was changed by another process meanwhile.",
                way_out="Look at it again, and decide again.",
            )
        row = replace(row, **values)
        self.append(self._states(row))
        return row

    def replace(self, row: Any) -> None:
        """Write a row in place of the one with its key, or as a new one."""
        declared = TABLES[type(row)]
        same = _equal(declared, {name: getattr(row, name) for name in declared.key})
        values = declared.stored(vars(row))
        changed = self.connection.execute(update(declared.table).where(*same).values(values))
        if changed.rowcount == 0:
            self.connection.execute(insert(declared.table).values(values))
        self.append(self._states(row))

    def record_all(self) -> None:
        """Vouch for every row of a database whose rows were not recorded before."""
        for declared in TABLES.values():
            rows: list[Any] = self.all(declared.record) if declared.recorded else []
            for row in rows:
                self.append(self._states(row))

    def _states(self, row: Any) -> list[NewAuditEvent]:
        """Return the event that vouches for a row as it is stored now, if its table has such."""
        declared = TABLES[type(row)]
        if not declared.recorded:
            return []
        key = {name: getattr(row, name) for name in declared.key}
        query = declared.as_stored().where(*_equal(declared, key))
        digest = row_digest(dict(self.connection.execute(query).mappings().one()))
        detail = {"table": declared.table.name, "key": [*key.values()], "sha256": digest}
        times = (getattr(row, name) for name in declared.recorded)
        at = next(time for time in times if time is not None)
        return [NewAuditEvent(RECORD, detail, getattr(row, "use_case", None), "mlops", at)]


class OpsDatabase(Ledger, Closing):
    """The ledger in its database: survives a killed run; shared by threads, not by processes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, url: str) -> Self:
        """Connect, and create the tables if needed.

        `url` is ``sqlite:///path/to/file.db`` (its folder is created) or
        ``postgresql+psycopg://user@host:port/database``. ConfigError if it is wrong or cannot be
        reached, StateError if another version of this package wrote the database.
        """
        engine = make_engine(url)
        try:
            create(engine, lambda connection: Transaction(connection).record_all())
        except DatabaseError as error:
            engine.dispose()
            raise ConfigError(
                "The ops database cannot be opened.",
                where=shown(engine.url),
                found=str(error.orig),
                way_out="Check MLOPS_DATABASE_URL, and that the server runs or the file is ours.",
            ) from error
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    @property
    def url(self) -> str:
        """The URL, with its password: for opening the database again, not for showing."""
        return self.engine.url.render_as_string(hide_password=False)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """One consistent look; takes no lock."""
        with self.engine.begin() as connection:
            yield Transaction(connection)

    @contextmanager
    def write(self, scope: str) -> Iterator[Transaction]:
        """All or nothing, alone in `scope`."""
        with write_transaction(self.engine, scope) as connection:
            yield Transaction(connection, scope)


def canonical_detail(detail: Mapping[str, Any]) -> str:
    """Return the canonical JSON of what a reader gets back (keys are text there)."""
    with plain_json("The detail of an audit event"):
        return canonical(json.loads(canonical(dict(detail))))


def _equal(declared: Declared, equal: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    for name, value in equal.items():
        column = declared.columns[name]
        if isinstance(value, Collection) and not isinstance(value, str | Mapping):
            found.append(column.in_(value))
        else:
            found.append(column.is_(None) if value is None else column == value)
    return found
