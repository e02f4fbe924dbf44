"""From a record to its table: columns, types and checks follow from the annotations.

    int, float, str, datetime        BIGINT (INTEGER for a key), DOUBLE, TEXT, microseconds UTC
    Literal["a", "b"]                TEXT, checked
    mappings, sequences, tuples      JSON as text
    X | None                         nullable

A declaration adds what annotations cannot say; tables.py has one for each table.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import sqlalchemy as sa
from sqlalchemy.exc import DontWrapMixin

from mlops_pipeline.core.audit.anchors import canonical
from mlops_pipeline.core.audit.chain import EPOCH, MICROSECOND, UNKNOWN, NewAuditEvent
from mlops_pipeline.errors import StateError

Row = Mapping[str, Any]
metadata = sa.MetaData()


class UnstorableValueError(StateError, DontWrapMixin):
    """A value that both databases cannot give back as it was."""


class UtcTimestamp(sa.TypeDecorator[datetime]):
    """A timestamp, stored as whole microseconds since 1970 in UTC: exact in both databases."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:  # noqa: ARG002 - fixed by SQLAlchemy
        """Turn a timezone-aware datetime into microseconds."""
        if value is None:
            return None
        if value.utcoffset() is None:
            raise UnstorableValueError(
                "A timestamp without a time zone cannot be stored.",
                expected="a timezone-aware datetime",
                found=repr(value),
                way_out="Pass datetime(..., tzinfo=UTC).",
            )
        return (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: int | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002 - fixed by SQLAlchemy
        """Turn microseconds into a datetime in UTC."""
        return None if value is None else EPOCH + value * MICROSECOND


class JsonText(sa.TypeDecorator[Any]):
    """A JSON document as text: the same bytes in both databases, NaN refused in both."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:  # noqa: ARG002 - fixed by SQLAlchemy
        """Write the document."""
        with plain_json("A document"):
            return None if value is None else json.dumps(value, allow_nan=False)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:  # noqa: ARG002 - fixed by SQLAlchemy
        """Read the document."""
        return None if value is None else json.loads(value)


class CanonicalJson(JsonText):
    """A JSON document in the one way that is hashed."""

    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:  # noqa: ARG002 - fixed by SQLAlchemy
        """Write the document."""
        return canonical(value)


@contextmanager
def plain_json(what: str) -> Iterator[None]:
    """Say what is not plain JSON."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UnstorableValueError(
            f"{what} is not plain JSON.",
            expected="dict, list, str, int, finite float, bool or None",
            found=str(error),
            way_out="Convert arrays and dates first; write a missing number as None.",
        ) from error


_TYPES: Mapping[Any, Any] = {
    int: sa.BigInteger,
    float: sa.Double,
    str: sa.Text,
    datetime: UtcTimestamp,
}


@dataclass(frozen=True)
class Audited:
    """What the audit event of a row says; `at`, `actor` and `where` are columns."""

    kind: str
    detail: tuple[str, ...]
    at: str = "at"
    actor: str | None = None  # None: the writer names one
    where: str | None = None  # the first event of which it is set, or that has none, is the row's


class Owner(NamedTuple):
    """The table that a row belongs to by `column`, and the fields that are read there."""

    column: str
    declared: "Declared"
    fields: tuple[str, ...]


@dataclass(eq=False)
class Declared:
    """A table: what its record and annotations say, and what not; `columns` also the owner's."""

    record: type
    name: str
    _: KW_ONLY
    key: Sequence[str] = ("id",)  # an `id` is given by the database
    owner: Owner | None = None
    refers: Mapping[str, str] = field(default_factory=dict)  # foreign keys besides the owner's
    unique: Sequence[str] = ()
    index: Sequence[str] = ()
    append_only: bool = False  # rows cannot be changed, removed or replaced
    audited: Sequence[Audited] = ()  # a row has an event, written with it
    recorded: Sequence[str] = ()  # each change is an event with a digest, at the first that is set
    uncovered: str = ""  # why no event covers its rows
    people: Sequence[str] = ()  # columns with names or pseudonyms of people
    types: Mapping[str, Any] = field(default_factory=dict)  # that no annotation gives

    def __post_init__(self) -> None:
        hints = get_type_hints(self.record)
        own = [name for name in hints if self.owner is None or name not in self.owner.fields]
        foreign = dict(self.refers)
        if self.owner is not None:
            foreign[self.owner.column] = f"{self.owner.declared.name}.id"
        columns: list[Any] = []
        for name in own:
            kind, is_nullable, allowed = _kind(hints[name])
            kind = self.types.get(name, kind)
            links = [sa.ForeignKey(foreign[name])] if name in foreign else []
            if name in self.key:
                kind = sa.Integer if kind is sa.BigInteger else kind  # all that SQLite counts up
                counted: Any = "auto" if name == "id" else False
                columns.append(
                    sa.Column(name, kind, *links, primary_key=True, autoincrement=counted)
                )
            else:
                columns.append(sa.Column(name, kind, *links, nullable=is_nullable))
            if allowed:
                check = f"{name} IN ({', '.join(map(repr, allowed))})"
                columns.append(sa.CheckConstraint(check, name=f"ck_{self.name}_{name}"))
        self.table = sa.Table(self.name, metadata, *columns)
        if self.unique:
            self.table.append_constraint(sa.UniqueConstraint(*self.unique, name=f"uq_{self.name}"))
        if self.index:
            sa.Index(f"ix_{self.name}", *(self.table.c[column] for column in self.index))
        read = {} if self.owner is None else self.owner.declared.columns
        self.columns: Mapping[str, sa.Column[Any]] = {
            name: self.table.c[name] if name in own else read[name] for name in hints
        }
        self.tuples = [name for name in own if get_origin(hints[name]) is tuple]
        every = [{*item.detail, item.at, item.actor} for item in self.audited]
        told = {"use_case", *(name for name in own if all(name in event for event in every))}
        is_covered = bool(self.recorded) or (bool(self.audited) and told >= {*own} - {*foreign})
        if is_covered == bool(self.uncovered):
            raise TypeError(f"{self.name}: every column is covered by events, or `uncovered`")

    def select(self) -> sa.Select[Any]:
        """Return the query of every field of the record."""
        query = sa.select(*(column.label(name) for name, column in self.columns.items()))
        if self.owner is None:
            return query
        owner = self.owner.declared.table
        return query.select_from(
            self.table.outerjoin(owner, owner.c.id == self.table.c[self.owner.column])
        )

    def as_stored(self) -> sa.Select[Any]:
        """Return the query of the stored values: what is damaged must not fail the reading."""
        plain = []
        for name, column in self.columns.items():
            kind: Any = column.type
            plain.append(sa.type_coerce(column, kind.impl if is_coded(kind) else kind).label(name))
        return self.select().with_only_columns(*plain, maintain_column_froms=True)

    def restored(self, row: Row) -> Any:
        """Return a row as its record."""
        lists = {name: tuple(row[name]) for name in self.tuples if row[name] is not None}
        return self.record(**{**row, **lists})

    def stored(self, values: Row) -> dict[str, Any]:
        """Return the values that have a column of this table."""
        return {name: value for name, value in values.items() if name in self.table.c}

    def event(self, row: Row, actor: str | None = None) -> NewAuditEvent:
        """Return the audit event of a row."""
        found = next(item for item in self.audited if not item.where or row[item.where] is not None)
        detail = {name: _plain(row[name]) for name in found.detail}
        who = (row[found.actor] or UNKNOWN) if found.actor else (actor or "")
        return NewAuditEvent(found.kind, detail, row.get("use_case"), who, row[found.at])


def is_coded(kind: Any) -> bool:
    """Whether a type of a column stores something else than the value."""
    return isinstance(kind, UtcTimestamp | JsonText)


def _kind(hint: Any) -> tuple[Any, bool, tuple[str, ...]]:
    """Return the type of a column, whether it may be NULL, and the only values it may have."""
    if get_origin(hint) in (UnionType, Union):
        (inner,) = (item for item in get_args(hint) if item is not type(None))
        kind, _, allowed = _kind(inner)
        return kind, True, allowed
    if get_origin(hint) is Literal:
        return sa.Text, False, get_args(hint)
    return _TYPES.get(hint, JsonText), False, ()


def _plain(value: Any) -> Any:
    """Write a time of a detail: the same for a time as it was given and as it was stored."""
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
