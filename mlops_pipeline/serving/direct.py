"""POST /v1/predict as it comes from a connection, answered without a task or a thread.

ASGI, FastAPI and a thread cost several times what a prediction costs. So uvicorn's protocol hands
a request for a prediction over when it has arrived; one entity's features are read and scored at
once, and the answer is written when the log says that it is stored. Lists, and features that come
over a network, take a thread. All other requests go their usual way, and so does one of an unusual
form: protection, counting and problems are the same functions.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.concurrency import run_in_threadpool

from mlops_pipeline.errors import RequestConflictError
from mlops_pipeline.serving.key_uses import caller, count
from mlops_pipeline.serving.limits import LimitedProtocol
from mlops_pipeline.serving.predict import PredictBody, named
from mlops_pipeline.serving.problems import TIMED_OUT, answer, refusal
from mlops_pipeline.serving.protection import HTTPS_ONLY, SECURITY_HEADERS

if TYPE_CHECKING:
    from starlette.datastructures import State
    from starlette.responses import Response

    from mlops_pipeline.lifecycle.entity_rows import EntityRow
    from mlops_pipeline.lifecycle.serve import Made, PredictionService
    from mlops_pipeline.serving.protection import Gate
    from mlops_pipeline.stores.predictions import LoggedPrediction

PATH = "/v1/predict"
URL = PATH.encode()
BODY_BYTES = 65_536  # of a request that is answered here
JSON = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
Headers = Sequence[tuple[bytes, bytes]]

_encode = msgspec.json.Encoder().encode


class Direct:
    """What answers need of an app."""

    def __init__(self, state: "State") -> None:
        self.state = state
        self.gate: Gate = state.gate
        self.loop = asyncio.get_running_loop()
        self.tasks: set[asyncio.Task[None]] = set()


class _Prediction:
    """A request under way, as uvicorn's protocol sees one: in place of its cycle, and its event."""

    __slots__ = ("_began", "_direct", "_made", "_protocol", "_scope", "_timer", "body",
                 "disconnected", "keep_alive", "more_body", "response_complete")  # fmt: skip

    def __init__(self, direct: Direct, protocol: "ServingProtocol", scope: Any) -> None:
        self._direct, self._protocol, self._scope = direct, protocol, scope
        self.keep_alive = protocol.parser.should_keep_alive()
        self.body, self.more_body = b"", True
        self.response_complete = self.disconnected = False
        self._began = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._made: Sequence[LoggedPrediction] = ()

    @property
    def message_event(self) -> "_Prediction":
        """What the protocol sets when something has come."""
        return self

    def set(self) -> None:
        """Begin when the body is whole; what comes later is the end of the connection."""
        if self.more_body or self._began or self.disconnected:
            return
        self._began = time.monotonic()
        gate = self._direct.gate
        refused = gate.refusal(self._scope)
        if refused is not None:
            self._reply(refused)
            return
        gate.load.requests += 1
        self._timer = self._direct.loop.call_later(gate.settings.request_timeout_s, self._expire)
        self._answer()

    def _answer(self) -> None:
        try:
            body = PredictBody.model_validate_json(self.body)
            service: PredictionService = named(self._direct.state.services, body.use_case)
            rows = body.entity_rows()
            if len(rows) == 1 and service.is_local:
                known = caller(self._scope)
                made = service.answers(rows, caller=known, request_id=body.request_id)
                self._store(made, body, service)
            else:
                self._begin(self._answer_in_thread(body, service, rows))
        except Exception as error:  # noqa: BLE001 # each is answered
            self._fail(error)

    async def _answer_in_thread(
        self, body: PredictBody, service: "PredictionService", rows: "Sequence[EntityRow]"
    ) -> None:
        known = caller(self._scope)
        try:
            made = await run_in_threadpool(
                service.answers, rows, caller=known, request_id=body.request_id
            )
            self._store(made, body, service)
        except Exception as error:  # noqa: BLE001 # each is answered
            self._fail(error)

    def _store(self, made: "Made", body: PredictBody, service: "PredictionService") -> None:
        self._made = made.logged
        service.store(made, self._stored(body, service), self._direct.loop)

    def _stored(
        self, body: PredictBody, service: "PredictionService"
    ) -> Callable[[Exception | None], None]:
        def stored(failed: Exception | None) -> None:
            if failed is None:
                self._say(body)
            elif isinstance(failed, RequestConflictError):
                self._begin(self._repeat(body, service))
            else:
                self._fail(failed)

        return stored

    async def _repeat(self, body: PredictBody, service: "PredictionService") -> None:
        try:
            self._made = await run_in_threadpool(service.stored, self._made)
            self._say(body)
        except Exception as error:  # noqa: BLE001 # each is answered
            self._fail(error)

    def _begin(self, work: Any) -> None:
        task = self._direct.loop.create_task(work)
        self._direct.tasks.add(task)
        task.add_done_callback(self._direct.tasks.discard)

    def _say(self, body: PredictBody) -> None:
        self._direct.state.metrics.decided(self._made)
        self._end(200, JSON, _encode(body.document(self._made)))

    def _fail(self, error: Exception) -> None:
        refused = refusal(error)
        self._end(refused.status_code, refused.raw_headers, bytes(refused.body))

    def _expire(self) -> None:
        """Answer that it is late; what is said afterwards is dropped."""
        self._reply(answer(TIMED_OUT))

    def _end(self, status: int, headers: Headers, content: bytes) -> None:
        """Count what is under way no longer, and answer unless it is too late."""
        self._direct.gate.load.ended(time.monotonic() - self._began)
        if self._timer is not None:
            self._timer.cancel()
        if not self.response_complete:
            self._write(status, headers, content)

    def _reply(self, response: "Response") -> None:
        self._write(response.status_code, response.raw_headers, bytes(response.body))

    def _write(self, status: int, headers: Headers, content: bytes) -> None:
        self.response_complete = True
        count(self._direct.state, self._scope, PATH, status, self._began)
        if not self.disconnected:
            self._protocol.respond(status, headers, content, is_kept=self.keep_alive)


@lru_cache(maxsize=64)
def _head(status: int, headers: Headers, is_secure: bool) -> bytes:
    """Return the part of an answer's head that many answers share."""
    lines = [b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode())]
    named = (*headers, *SECURITY_HEADERS, *(HTTPS_ONLY if is_secure else ()))
    lines += [b"%b: %b" % one for one in named if one[0] != b"content-length"]
    return b"\r\n".join(lines) + b"\r\n"


class ServingProtocol(LimitedProtocol):
    """The protocol of the server: predictions are answered here, the rest by the app."""

    def on_headers_complete(self) -> None:
        """Choose the way of a request."""
        if self.url != URL or not self._is_plain():
            super().on_headers_complete()
            return
        self._head_bytes = 0
        self.scope["method"], self.scope["path"] = "POST", PATH
        self.scope["raw_path"], self.scope["query_string"] = URL, b""
        self.cycle = _Prediction(self.config.app.state.direct, self, self.scope)  # type: ignore[assignment, union-attr] # in its place

    def respond(self, status: int, headers: Headers, content: bytes, *, is_kept: bool) -> None:
        """Write an answer in one piece, and keep the connection or close it."""
        head = _head(status, tuple(headers), self.scheme == "https")
        ours = b"".join(b"%b: %b\r\n" % one for one in self.server_state.default_headers)
        close = b"" if is_kept else b"connection: close\r\n"
        length = b"content-length: %d\r\n\r\n" % len(content)
        self.transport.write(b"".join((head, ours, close, length, content)))
        if not is_kept:
            self.transport.close()
        self.on_response_complete()

    def _is_plain(self) -> bool:
        """Whether nothing is under way, and this is JSON of a known, small length."""
        is_json = is_short = False
        for name, value in self.headers:
            if name == b"content-type":
                is_json = value == b"application/json"
            elif name == b"content-length":
                is_short = int(value) <= BODY_BYTES
        is_free = self.cycle is None or self.cycle.response_complete
        is_free = is_free and not self.flow.write_paused  # the app waits until answers are taken
        return (
            (is_json and is_short and is_free and not self.expect_100_continue)
            and self.parser.get_method() == b"POST"
            and not self.parser.should_upgrade()
        )
