"""What a client may take of the server: time for a request, lines of its log.

uvicorn ends a connection that is idle between two requests; here one also ends that sends no
request, or one in drips.
"""

import asyncio
import logging
import time

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 10.0  # from its first byte, or the opening of the connection, to its last byte
IDLE_SECONDS = 5  # between two requests
LINES_A_MINUTE = 10  # about requests that are no HTTP


class LimitedProtocol(H11Protocol):
    """uvicorn's protocol, with a limit to the time that a request takes to arrive."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Expect a request."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request; what comes after an answer is a new one."""
        if self._late is None:
            self._expect()
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._arrived()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing any more."""
        self._arrived()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Leave the connection to the limit of idle ones."""
        self._arrived()
        super().on_response_complete()

    def _expect(self) -> None:
        self._late = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _arrived(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


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
