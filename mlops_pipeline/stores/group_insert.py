"""Inserting what many callers want stored in one transaction, on a connection that is kept.

Beside the time of a synced transaction what the ORM would do for each row counts, so rows are
tuples, and one statement inserts many. Belongs here: text, transactions, and reconnecting. Who
waits for what is the log's.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import Engine, Table

from mlops_pipeline.stores.ops.declarations import JsonText, plain_json

Row = Sequence[Any]
Rows = tuple[Table, Sequence[Row]]
ROWS_AT_ONCE = 64  # in one statement; others have powers of 2, so that few texts are prepared

_encode = msgspec.json.Encoder().encode


class GroupInsert:
    """Inserts into tables; for one thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._dialect = engine, engine.dialect
        self._mark = "?" if self._dialect.name == "sqlite" else "%s"
        self._kept: Any = None

    def insert(self, requests: Sequence[Rows]) -> list[bool]:
        """Insert the rows of each request or none of them; return which were new.

        DBAPI errors, after which nothing is stored, or, where the commit itself failed, nobody
        knows. A connection that broke while it was idle is replaced.
        """
        is_fresh = self._kept is None
        try:
            return self._inserted(requests)
        except self._dialect.loaded_dbapi.Error as error:
            driver = self._kept and self._kept.driver_connection
            is_broken = self._dialect.is_disconnect(error, driver, None)
            self.disconnect()
            if is_fresh or not is_broken or self._is_committing:
                raise
        return self._inserted(requests)

    def disconnect(self) -> None:
        """Give the connection up."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.invalidate()

    def _inserted(self, requests: Sequence[Rows]) -> list[bool]:
        by_table: dict[Table, list[Row]] = {}
        for table, rows in requests:
            by_table.setdefault(table, []).extend(rows)
        try:
            with self._transaction() as cursor:
                for table, rows in by_table.items():
                    self._insert(cursor, table, rows)
            return [True] * len(requests)
        except self._dialect.loaded_dbapi.IntegrityError:  # some are stored already
            with self._transaction() as cursor:
                return [self._insert_apart(cursor, *request) for request in requests]

    def _insert(self, cursor: Any, table: Table, rows: Sequence[Row]) -> None:
        names = [column.name for column in table.c]
        into = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES "
        marks = f"({', '.join([self._mark] * len(names))})"
        begin = 0
        while begin < len(rows):
            count = min(ROWS_AT_ONCE, 1 << ((len(rows) - begin).bit_length() - 1))
            text = into + ", ".join([marks] * count)
            cursor.execute(text, [value for row in rows[begin : begin + count] for value in row])
            begin += count

    def _insert_apart(self, cursor: Any, table: Table, rows: Sequence[Row]) -> bool:
        cursor.execute("SAVEPOINT apart")
        try:
            self._insert(cursor, table, rows)
        except self._dialect.loaded_dbapi.IntegrityError:
            cursor.execute("ROLLBACK TO SAVEPOINT apart")
            return False
        cursor.execute("RELEASE SAVEPOINT apart")
        return True

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        self._is_committing = False
        if self._kept is None:
            self._kept = self._engine.raw_connection()
        cursor = self._kept.cursor()
        if self._dialect.name == "sqlite":  # the others begin by themselves
            cursor.execute("BEGIN IMMEDIATE")
        try:
            yield cursor
        except BaseException:
            self._kept.rollback()
            raise
        self._is_committing = True
        self._kept.commit()


def rows_of(table: Table) -> Callable[[object], Row]:
    """Return what makes a record a row of a table: JSON as text, else UnstorableValueError."""
    values = attrgetter(*(column.name for column in table.c))
    documents = [place for place, one in enumerate(table.c) if isinstance(one.type, JsonText)]

    def row_of(record: object) -> Row:
        row = [*values(record)]
        for place in documents:
            row[place] = _text(row[place])
        return row

    return row_of


def _text(value: Any) -> str:
    """Return JSON; what is not finite is refused, where the encoder would write null."""
    with plain_json("A document"):
        text = _encode(value)
        if b"null" in text and isinstance(value, Mapping):
            for one in value.values():
                if isinstance(one, float) and not math.isfinite(one):
                    return json.dumps(value, allow_nan=False)
    return text.decode()
