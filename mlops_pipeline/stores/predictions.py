"""The log of predictions: what was answered to whom, on what features, by which version.

A database of its own: a SQLite file by default, PostgreSQL by URL. Rows are written by one thread
in transactions that take all that waits (group commit), so many answers share one sync of the disk.

Promises: `append` is done when its rows will survive: a cut of power (`disk`), or the end of this
process (`process`). One call's rows are stored together or not at all; a `request_id` of a caller
is stored once, whoever comes second is told.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Select, Table, delete, event, func, select
from sqlalchemy.exc import SQLAlchemyError

from mlops_pipeline.errors import PredictionLogError, RequestConflictError
from mlops_pipeline.stores import Closing
from mlops_pipeline.stores.group_insert import GroupInsert, Row, rows_of
from mlops_pipeline.stores.log_tables import (
    PREDICTION,
    REVIEW,
    SHADOW,
    LoggedPrediction,
    Role,
    ShadowScore,
    metadata,
)
from mlops_pipeline.stores.ops.declarations import UnstorableValueError
from mlops_pipeline.stores.ops.engine import WRITES, add_columns, make_engine, shown, take_turn

__all__ = ["PREDICTION", "SHADOW", "LoggedPrediction", "PredictionLog", "Role", "ShadowScore"]

Durability = Literal["disk", "process"]
REQUESTS_AT_ONCE = 256  # in one transaction: later ones do not wait long
SETTING = "MLOPS_PREDICTIONS_URL"

logger = logging.getLogger(__name__)


_row_of, _shadow_row_of = rows_of(PREDICTION), rows_of(SHADOW)
Tell = Callable[[Exception | None], None]


class _Waiting(NamedTuple):
    """The rows of a request, and who is told what became of them, in which event loop if in one."""

    table: Table
    rows: Sequence[Row]
    tell: Tell
    loop: asyncio.AbstractEventLoop | None


class PredictionLog(Closing):
    """See the module; may be shared by threads. It is made where there is none."""

    def __init__(self, url: str, *, durability: Durability = "disk") -> None:
        self._engine = make_engine(url, setting=SETTING, what="log of predictions")
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _with_rare_checkpoints)
        self._shown = shown(self._engine.url)
        self._insert = GroupInsert(self._engine)
        if durability == "process":
            event.listen(self._engine, "connect", _without_sync)
        self._waiting: SimpleQueue[list[_Waiting] | None] = SimpleQueue()
        self._is_away = False
        self._collected: list[_Waiting] = []  # of one event loop
        self._writer = threading.Thread(target=self._write, name="prediction log", daemon=True)
        is_file = self._engine.dialect.name == "sqlite"
        self._file = Path(str(self._engine.url.database)) if is_file else None
        self._inode: int | None = None
        with self._reported():
            self._prepare()
        self._writer.start()

    def append(self, rows: Sequence[LoggedPrediction]) -> Future[None]:
        """Store rows; the future is done when they will survive.

        It fails with RequestConflictError when their request is stored already, with
        PredictionLogError when nothing could be stored.
        """
        done: Future[None] = Future()

        def tell(failed: Exception | None) -> None:
            if failed is None:
                done.set_result(None)
            else:
                done.set_exception(failed)

        self.append_then(rows, tell, None)
        return done

    def append_then(
        self,
        rows: Sequence[LoggedPrediction],
        tell: Tell,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        """Store rows as `append` does, and tell why they are not stored, or None, in the loop."""
        self._check_open()
        try:
            stored = [_row_of(row) for row in rows]
        except UnstorableValueError as error:
            tell(error)
            return
        if loop is None:
            self._waiting.put([_Waiting(PREDICTION, stored, tell, None)])
        else:
            self._collected.append(_Waiting(PREDICTION, stored, tell, loop))
            if len(self._collected) == 1:
                loop.call_soon(self._hand_over)

    def append_shadows(self, rows: Sequence[ShadowScore]) -> Future[None]:
        """Store shadow scores, in one transaction with answers that wait.

        Left out is one whose answer has one already, or was removed meanwhile.
        """
        self._check_open()
        done: Future[None] = Future()

        def tell(failed: Exception | None) -> None:
            if done.done():
                return
            if failed is None or isinstance(failed, RequestConflictError):
                done.set_result(None)
            else:
                done.set_exception(failed)

        self._waiting.put([_Waiting(SHADOW, [_shadow_row_of(row)], tell, None) for row in rows])
        return done

    def _check_open(self) -> None:
        if not self._writer.is_alive():
            raise PredictionLogError("the log of predictions is closed", where=self._shown)

    def _hand_over(self) -> None:
        """Wake the writer once for all that came in one turn of the event loop."""
        collected, self._collected = self._collected, []
        self._waiting.put(collected)

    @property
    def waiting(self) -> int:
        """How many requests the writer has not taken yet."""
        return self._waiting.qsize()

    @property
    def is_away(self) -> bool:
        """Whether the database did not answer when it was looked at last."""
        return self._is_away

    def look(self) -> None:
        """Ask the database for nothing, and remember whether it answered."""
        try:
            with self.transaction() as connection:
                connection.exec_driver_sql("SELECT 1")
        except PredictionLogError as error:
            if not self._is_away:
                logger.error("%s", error)
            self._is_away = True
        else:
            self._is_away = False

    def find(self, prediction_id: str) -> LoggedPrediction | None:
        """Return an answer by its id; None if there is none."""
        found = self._rows(PREDICTION.c.id == prediction_id)
        return found[0] if found else None

    def of_request(self, use_case: str, caller: str, request_id: str) -> list[LoggedPrediction]:
        """Return what a request was answered, in its order; nothing when it is new."""
        return self._rows(
            PREDICTION.c.use_case == use_case,
            PREDICTION.c.caller == caller,
            PREDICTION.c.request_id == request_id,
        )

    def shadows(self, use_case: str, *where: Any) -> list[ShadowScore]:
        """Return the shadow scores of a use case, by the id of their answer."""
        query = select(SHADOW).where(SHADOW.c.use_case == use_case, *where)
        with self.transaction() as connection:
            found = connection.execute(query.order_by(SHADOW.c.prediction_id)).mappings()
            return [ShadowScore(**row) for row in found]

    def count(self, use_case: str, entity: str) -> int:
        """Return how many answers about an entity are stored."""
        query = select(func.count()).where(*_of_entity(PREDICTION, use_case, entity))
        with self.transaction() as connection:
            return connection.scalar(query) or 0

    def forget(self, use_case: str, entity: str) -> int:
        """Remove all about an entity: answers with reviews and scores; return how many answers."""
        with self.transaction(writes=True) as connection:
            connection.execute(delete(REVIEW).where(*_of_entity(REVIEW, use_case, entity)))
            return connection.execute(
                delete(PREDICTION).where(*_of_entity(PREDICTION, use_case, entity))
            ).rowcount

    @contextmanager
    def transaction(self, *, writes: bool = False) -> Iterator[Connection]:
        """Yield a connection in a transaction; what the database says is a PredictionLogError."""
        with self._reported(), self._engine.connect() as connection:
            connection.execution_options(**{WRITES: writes})
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Store what waits, and close the database."""
        if self._writer.is_alive():
            self._waiting.put(None)
            self._writer.join()
        self._insert.disconnect()
        self._engine.dispose()

    def select(self, query: Select[Any]) -> list[LoggedPrediction]:
        """Return the answers that a query of PREDICTION finds."""
        with self.transaction() as connection:
            return [LoggedPrediction(**row) for row in connection.execute(query).mappings()]

    def _rows(self, *where: Any) -> list[LoggedPrediction]:
        return self.select(select(PREDICTION).where(*where).order_by(PREDICTION.c.place))

    def _prepare(self) -> None:
        """Make the table where there is none, and note which file it is in."""
        with self._engine.connect() as connection:
            if self._file is not None:
                connection.exec_driver_sql("COMMIT")
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            take_turn(connection, "log of predictions")
            metadata.create_all(connection)
            add_columns(connection, metadata.sorted_tables)
            connection.commit()
        if self._file is not None:
            self._inode = self._file.stat().st_ino

    def _open_replaced(self) -> None:
        """Open the file anew where it was replaced: SQLite would go on writing to the old one."""
        if self._file is not None and not (
            self._file.exists() and self._file.stat().st_ino == self._inode
        ):
            logger.warning("the file of the log of predictions was replaced: %s", self._file)
            self._insert.disconnect()
            self._engine.dispose()
            self._prepare()

    def _write(self) -> None:
        """Store what waits, many requests in one transaction, until None comes."""
        is_open = True
        while is_open:
            found = [self._waiting.get()]
            while len(found) < REQUESTS_AT_ONCE and not self._waiting.empty():
                found.append(self._waiting.get())
            is_open = None not in found
            self._store([item for group in found if group is not None for item in group])

    def _store(self, taken: Sequence[_Waiting]) -> None:
        failures: Sequence[Exception | None]
        if not taken:
            return
        try:
            with self._reported():
                self._open_replaced()
                are_new = self._insert.insert([(item.table, item.rows) for item in taken])
            failures = [None if is_new else _conflict() for is_new in are_new]
        except Exception as error:  # noqa: BLE001 # whoever waits is told, whatever it is
            failures = [error] * len(taken)
        in_loops: dict[asyncio.AbstractEventLoop, list[tuple[Tell, Exception | None]]] = {}
        for item, failed in zip(taken, failures, strict=True):
            if item.loop is None:
                item.tell(failed)
            else:
                in_loops.setdefault(item.loop, []).append((item.tell, failed))
        for loop, found in in_loops.items():  # one call for all: each wakes the loop
            loop.call_soon_threadsafe(_tell, found)

    def _reported(self) -> "_Reported":
        return _Reported(self._shown, self._engine.dialect.loaded_dbapi.Error)


@dataclass(frozen=True)
class _Reported:
    """Turns what the database says into a PredictionLogError."""

    where: str
    driver_error: type[Exception]

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (SQLAlchemyError, OSError, self.driver_error)):
            raise PredictionLogError(
                "the log of predictions cannot be used",
                where=self.where,
                found=str(getattr(error, "orig", error)),
                way_out=f"see that the database runs, has room, and {SETTING} names it",
            ) from error


def _tell(found: Sequence[tuple[Tell, Exception | None]]) -> None:
    for tell, failed in found:
        tell(failed)


def _conflict() -> RequestConflictError:
    return RequestConflictError("a request with this id is stored already", where="request_id")


def _of_entity(table: Table, use_case: str, entity: str) -> tuple[Any, ...]:
    return table.c.use_case == use_case, table.c.entity == entity


def _with_rare_checkpoints(connection: Any, record: object) -> None:  # noqa: ARG001 - fixed by SQLAlchemy
    """Copy the write-ahead log back every 16 MB: fewer requests wait for that."""
    connection.execute("PRAGMA wal_autocheckpoint = 4096")


def _without_sync(connection: Any, record: object) -> None:  # noqa: ARG001 - fixed by SQLAlchemy
    """Leave the sync to the operating system: what is committed survives this process."""
    if hasattr(connection, "execute") and type(connection).__module__.startswith("sqlite3"):
        connection.execute("PRAGMA synchronous = OFF")
    else:
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = off")
