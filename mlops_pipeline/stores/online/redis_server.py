"""Talking to a Redis server: one time limit for a whole exchange, typed errors, no second try.

The client's own limit is for each piece that arrives: a server that sends a byte now and then would
hold a reader for ever. Belongs here: what does not depend on what is stored.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import hiredis
from redis.asyncio.connection import ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from mlops_pipeline.errors import (
    OnlineCorruptError,
    OnlineFullError,
    OnlineStoreError,
    OnlineTimeoutError,
    OnlineUnavailableError,
)

IDLE_SECONDS = 1.0  # after which the server may have hung up
PACK: Any = hiredis.pack_command  # Any: it is declared for one argument
Command = tuple[str | bytes | int, ...]
Found = TypeVar("Found")


class RedisServer:
    """Exchanges commands and answers with a server: one time limit for the whole, no second try.

    It takes as many connections as there are callers at once. Each has a loop of its own that runs
    in the thread of its caller: handing over to the thread of a common loop would double the time
    of a short read.
    """

    def __init__(self, url: str, *, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        parts = urlsplit(url)
        self._shown = f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}{parts.path}"
        # protocol 2 needs no greeting; of the pool, only the making of connections is used
        self._pool: Any = ConnectionPool.from_url(
            url, retry=Retry(NoBackoff(), 0), protocol=2, driver_info=None
        )
        self._idle = deque[_Line]()

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one exchange and return their answers."""
        try:
            line = self._idle.pop()
        except IndexError:
            line = _Line(self._pool.make_connection())
        try:
            answers = line.run(self._exchange(line, commands))
        except BaseException as error:
            line.close()  # a late answer would be taken for that of the next call
            if isinstance(error, (RedisError, OSError)):
                raise self._failure(error) from error
            raise
        self._idle.append(line)
        for answer in answers:
            for item in answer if isinstance(answer, list) else [answer]:
                if isinstance(item, RedisError):
                    raise self._failure(item) from item
        return answers

    def close(self) -> None:
        """Close every connection that nobody uses now."""
        while self._idle:
            self._idle.pop().close()

    async def _exchange(self, line: "_Line", commands: Sequence[Command]) -> list[Any]:
        packed = b"".join(map(PACK, commands))
        answers: list[Any] = []
        if isinstance(line.connection, SSLConnection):
            line.connection.ssl_context.get()  # reads files once: no part of the exchange
        async with asyncio.timeout(self._timeout_ms / 1000):
            await line.refresh()
            await line.connection.send_packed_command(packed)
            for _ in commands:
                try:
                    answer = await line.connection.read_response(disconnect_on_error=False)
                except ResponseError as error:  # the other answers are on their way
                    answer = error
                answers.append(answer)
        return answers

    def _failure(self, error: RedisError | OSError) -> OnlineStoreError:
        found = str(error) or type(error).__name__
        if isinstance(error, (TimeoutError, RedisTimeoutError)):
            return OnlineTimeoutError(
                "the online store did not answer in time",
                where=self._shown,
                expected=f"an answer within {self._timeout_ms} ms",
                found=found,
            )
        if isinstance(error, OutOfMemoryError):
            return OnlineFullError(
                "the online store is full",
                where=self._shown,
                found=found,
                way_out="give the server more memory, or drop tables that nothing reads",
            )
        if isinstance(error, ResponseError) and found.startswith("WRONGTYPE"):
            return OnlineCorruptError(
                "a key of the online store holds something else",
                where=self._shown,
                found=found,
                way_out="give the store a database of its own",
            )
        return OnlineUnavailableError(
            "the online store is not available",
            where=self._shown,
            found=found,
            way_out="see that the server runs and MLOPS_ONLINE_URL names it",
        )


class _Line:
    """A connection and the loop that waits on it, lent to one call at a time."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection  # Any: most of its methods have no types
        self._runner = asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)
        self._used_at = time.monotonic()

    def run(self, work: Coroutine[Any, Any, Found]) -> Found:
        """Run to the end in this thread."""
        return _apart(partial(self._runner.get_loop().run_until_complete, work))

    async def refresh(self) -> None:
        """Hang up where the server has done so while nobody called: it may be back."""
        now = time.monotonic()
        idle_seconds, self._used_at = now - self._used_at, now
        if idle_seconds < IDLE_SECONDS or not self.connection.is_connected:
            return
        await asyncio.sleep(0)  # the loop learns what has arrived
        try:
            has_more = await self.connection.can_read_destructive()
        except RedisConnectionError:
            has_more = True
        if has_more:
            await self._hang_up()

    def close(self) -> None:
        """Hang up."""
        self.run(self._hang_up())
        _apart(self._runner.close)

    async def _hang_up(self) -> None:
        writer = self.connection._writer
        if writer is not None:  # the client waits for a farewell, of TLS for half a minute
            writer.transport.abort()
        await self.connection.disconnect(nowait=True)


def _apart(call: Callable[[], Found]) -> Found:
    """Run a loop in this thread, or in one beside it where a loop of the caller's runs."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    with ThreadPoolExecutor(1) as beside:
        return beside.submit(call).result()
