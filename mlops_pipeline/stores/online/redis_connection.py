"""Talking to a Redis server: one time limit for a whole exchange, typed errors, no second try.

The client's own limit is for each piece that arrives, so that a server which sends a byte now and
then would hold a reader for ever. Belongs here: what does not depend on what is stored.
"""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from mlops_pipeline.errors import (
    OnlineCorruptError,
    OnlineFullError,
    OnlineStoreError,
    OnlineTimeoutError,
    OnlineUnavailableError,
)

_limit = threading.local()  # .ends_at: when the exchange of this thread has to be over


class _Bounded(socket.socket):
    """Makes each wait on a socket as long as the rest of the exchange."""

    def recv_into(self, *args: Any, **options: Any) -> int:
        self._wait_for_the_rest()
        return super().recv_into(*args, **options)

    def recv(self, *args: Any, **options: Any) -> bytes:
        self._wait_for_the_rest()
        return super().recv(*args, **options)

    def sendall(self, *args: Any, **options: Any) -> None:
        self._wait_for_the_rest()
        super().sendall(*args, **options)

    def _wait_for_the_rest(self) -> None:
        if self.gettimeout():  # not while the client only looks whether something is there
            self.settimeout(_rest_seconds())


class _BoundedSocket(_Bounded):
    pass


class _BoundedTlsSocket(_Bounded, ssl.SSLSocket):
    pass


class _BoundedTlsConnection(redis.SSLConnection):
    def _connect(self) -> socket.socket:
        self.socket_connect_timeout = self.socket_timeout = _rest_seconds()
        made: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
        # the context that wraps sockets is made inside the client, and cannot be given a class
        made.__class__ = _BoundedTlsSocket
        return made


class _BoundedConnection(redis.Connection):
    def _connect(self) -> socket.socket:
        self.socket_connect_timeout = _rest_seconds()
        made: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
        family, kind, protocol = made.family, made.type, made.proto
        bounded = _BoundedSocket(family, kind, protocol, fileno=made.detach())
        bounded.settimeout(self.socket_timeout)
        return bounded


class RedisServer:
    """A client, and the frame in which it is used.

    Parameters
    ----------
    url : str
        ``redis://user:password@host:port/db``, or ``rediss`` for TLS. Of the greeting of a new TLS
        connection the limit holds for each piece that arrives, not for the whole.
    timeout_ms : int
        The longest exchange.
    """

    def __init__(self, url: str, *, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        parts = urlsplit(url)
        self._shown = f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}{parts.path}"
        pool = redis.ConnectionPool.from_url(
            url,
            connection_class=_BoundedTlsConnection
            if parts.scheme == "rediss"
            else _BoundedConnection,
            socket_timeout=timeout_ms / 1000,
            socket_connect_timeout=timeout_ms / 1000,
            retry=Retry(NoBackoff(), 0),
            protocol=2,  # needs no greeting
            driver_info=None,
        )
        # Any: its types are of the synchronous and the asynchronous client at once
        self.client: Any = redis.Redis(connection_pool=pool)

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """Begin the time limit, and report what fails as an `OnlineStoreError`."""
        _limit.ends_at = time.monotonic() + self._timeout_ms / 1000
        try:
            yield
        except RedisError as error:
            raise self._failure(error) from error

    def send(self, pipeline: Any) -> list[Any]:
        """Send the commands of a pipeline in one exchange and return the answers."""
        with self.exchange():
            answers: list[Any] = pipeline.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers

    def close(self) -> None:
        """Close every connection."""
        self.client.close()
        self.client.connection_pool.disconnect()

    def _failure(self, error: RedisError) -> OnlineStoreError:
        found = str(error)
        if isinstance(error, RedisTimeoutError):
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


def _rest_seconds() -> float:
    rest: float = _limit.ends_at - time.monotonic()
    if rest <= 0:
        raise TimeoutError("the time limit is over")
    return rest
