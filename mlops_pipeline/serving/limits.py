"""What a client may take of the server: requests a minute, time, size, connections, log lines.

uvicorn ends a connection that is idle between two requests; here one also ends that sends no
request, or one in drips. Who may ask at all is protection.py's.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REQUEST_SECONDS = 10.0  # from its first byte, or the opening of the connection, to its last byte
IDLE_SECONDS = 5  # between two requests
BODY_BYTES = 2_000_000  # a thousand entities with all their features
HEADER_BYTES = 16_384
CONNECTIONS = 1_000
WORKERS = 40  # threads that answer: anyio's
REQUESTS_AT_ONCE = 240  # answered or waiting for a thread
PATIENCE_SECONDS = 1.0  # beyond this mean time of an answer, nobody waits for a thread
WEIGHT = 0.05  # of the newest answer in that mean
MINUTE = 60.0
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"Content-Length: 0\r\n\r\n"
)
LINES_A_MINUTE = 10  # about requests that are no HTTP


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with limits to the time that a request takes to arrive, and its head."""

    _late: asyncio.TimerHandle | None = None
    _is_whole = False  # the request that is under way has arrived
    _head_bytes = 0  # received of a head that is not complete
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Expect a request, unless there are too many connections."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            self.transport.write(REFUSAL)
            self.transport.close()
            return
        if transport.get_extra_info("sslcontext") is None:  # asyncio's TLS has a buffer of its own
            transport.set_write_buffer_limits(0)  # so that whatever is not taken is known
        self._expect()

    def pause_writing(self) -> None:
        """End a connection whose other end does not take the answer."""
        super().pause_writing()
        self._unread = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: it was taken."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request; what comes after an answer is a new one."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._is_whole:
            self._arrived()
        elif self._head_bytes > 4 * HEADER_BYTES:  # what is less is refused with a problem
            self.transport.abort()
        elif self._late is None:
            self._expect()

    def on_headers_complete(self) -> None:
        """Count no longer: what follows is the body, which is counted where it is read."""
        super().on_headers_complete()
        self._head_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        super().on_body(body)
        self._head_bytes = 0

    def on_message_complete(self) -> None:
        """Expect nothing more of this request."""
        super().on_message_complete()
        self._is_whole, self._head_bytes = True, 0

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing any more."""
        self._arrived()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Leave the connection to the limit of idle ones."""
        self._arrived()
        self._is_whole = False
        super().on_response_complete()

    def _expect(self) -> None:
        self._late = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _arrived(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class RateLimit:
    """A token bucket for each client: so many requests at once, refilled over a minute.

    Thread-safe. `now` is seconds of any clock that does not go back.
    """

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, and when they were counted
        self._taken: dict[str, int] = {}  # since the last exchange with other processes

    def take(self, client: str, now: float) -> int:
        """Take a token; return 0, or after how many whole seconds there is one again."""
        rate = self.per_minute / MINUTE
        with self._lock:
            tokens, at = self._buckets.get(client, (float(self.per_minute), now))
            tokens = min(tokens + (now - at) * rate, self.per_minute)
            if tokens < 1:
                self._buckets[client] = (tokens, now)
                return math.ceil((1 - tokens) / rate)
            self._buckets[client] = (tokens - 1, now)
            self._taken[client] = self._taken.get(client, 0) + 1
            return 0

    def settle(
        self, exchange: Callable[[Mapping[str, int]], Mapping[str, float]], now: float
    ) -> None:
        """Say what was taken here, and go on with what is left among all processes."""
        with self._lock:
            taken, self._taken = self._taken, {}
        if not taken:
            return
        try:
            left = exchange(taken)
        except BaseException:
            with self._lock:  # it is said next time
                for client, count in taken.items():
                    self._taken[client] = self._taken.get(client, 0) + count
            raise
        with self._lock:
            for client, tokens in left.items():
                self._buckets[client] = (tokens - self._taken.get(client, 0), now)


class Load:
    """How much is under way; refuses early what would wait long. For one event loop."""

    def __init__(self) -> None:
        self.requests = 0
        self._mean_seconds = 0.0

    def has_room(self) -> bool:
        """Whether one more is answered soon: by a free thread, or after a short wait."""
        if self.requests < WORKERS:
            return True
        return self.requests < REQUESTS_AT_ONCE and self._mean_seconds < PATIENCE_SECONDS

    def ended(self, seconds: float) -> None:
        """Count the time that an answer took, waiting included."""
        self.requests -= 1
        self._mean_seconds += WEIGHT * (seconds - self._mean_seconds)


class FewLines(logging.Filter):
    """Lets some warnings a minute pass; errors always."""

    def __init__(self) -> None:
        super().__init__()
        self._minute, self._lines = 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line is written."""
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._lines = minute, 0
        self._lines += 1
        return record.levelno > logging.WARNING or self._lines <= LINES_A_MINUTE
