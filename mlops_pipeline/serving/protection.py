"""Who may ask what: every request passes here before anything of it is read.

    /health/, /v2/health/         anybody
    POST /v1/labels               label
    /v1/reviews                   review: they show features of people, as receipts do
    POST, and PUT, DELETE ...     predict
    GET                           read: features and receipts of people, metrics, descriptions

One ASGI middleware, because each layer costs every request. It also bounds how many requests are
under way, and the size and time of each; the counting is limits.py's, keys are
lifecycle/api_keys.py's.
"""

import asyncio
import ipaddress
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from mlops_pipeline.errors import ConfigError
from mlops_pipeline.lifecycle.api_keys import KeyRing, list_keys
from mlops_pipeline.lifecycle.follow import Repeating
from mlops_pipeline.serving.limits import BODY_BYTES, HEADER_BYTES, Load, RateLimit
from mlops_pipeline.serving.problems import (
    HEADERS_TOO_LARGE,
    KEY_LACKS_SCOPE,
    KEY_UNKNOWN,
    OVERLOADED,
    RATE_LIMITED,
    TIMED_OUT,
    TOO_LARGE,
    answer,
)
from mlops_pipeline.stores import Closing
from mlops_pipeline.stores.clock import machine_now
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = ("/health/", "/v2/health/")
LABELS, REVIEWS = "/v1/labels", "/v1/reviews"
READING = ("GET", "HEAD")
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
CHALLENGE = {"WWW-Authenticate": "Bearer"}
SHARED = ("redis://", "rediss://")
SHARE_SECONDS = 0.2
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
HTTPS_ONLY = ((b"strict-transport-security", b"max-age=31536000"),)


class Gate(Closing):
    """What the app protects itself with, from its start to its end."""

    def __init__(self, keys: KeyRing, settings: Settings, asks_for_keys: bool) -> None:
        self.keys, self.settings, self.asks_for_keys = keys, settings, asks_for_keys
        self.rates, self.load = RateLimit(settings.rate_limit), Load()
        self._stack = ExitStack()
        if settings.online_url.startswith(SHARED):
            self._share_rates()

    def _share_rates(self) -> None:
        from mlops_pipeline.stores.online.redis_server import SharedRates

        shared = self._stack.enter_context(SharedRates(self.settings.online_url))
        per_minute = self.settings.rate_limit
        self._stack.enter_context(
            Repeating(
                lambda: self.rates.settle(
                    lambda taken: shared.exchange(taken, per_minute), time.monotonic()
                ),
                "rates are not shared with other processes now; each counts by itself",
                seconds=SHARE_SECONDS,
            )
        )

    def close(self) -> None:
        """Count no longer."""
        self._stack.close()

    def refusal(self, scope: "Scope") -> "Response | None":
        """Note who asks; return why they are not answered."""
        refused = _too_large(scope) or self._not_admitted(scope)
        return answer(OVERLOADED) if refused is None and not self.load.has_room() else refused

    def _not_admitted(self, scope: "Scope") -> "Response | None":
        shown = _shown_key(scope)
        if shown is None and not self.asks_for_keys:
            return None
        key = None if shown is None else self.keys.find(shown, machine_now())
        if key is None:
            return answer(KEY_UNKNOWN, headers=CHALLENGE)
        needed = needed_scope(scope["method"], scope["path"])
        if not key.allows(needed):
            return answer(KEY_LACKS_SCOPE, more={"expected": needed})
        scope["state"]["caller"] = key.name
        wait_s = self.rates.take(key.name, time.monotonic())
        if wait_s:
            return answer(RATE_LIMITED, headers={"Retry-After": str(wait_s)})
        return None


class Protected:
    """Middleware: lets a request pass to the app, or answers it with a problem."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})
        gate: Gate = scope["app"].state.gate
        exchange = _Exchange(scope, receive, send)
        if scope["path"].startswith(OPEN_PATHS):
            await self._app(scope, exchange.receive, exchange.send)
            return
        refused = gate.refusal(scope)
        if refused is not None:
            await refused(scope, receive, exchange.send)
            return
        began = time.monotonic()
        gate.load.requests += 1
        exchange.expect_within(gate.settings.request_timeout_s)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            await exchange.end()
            gate.load.ended(time.monotonic() - began)


class _Exchange:
    """A request and its answer: bounded in size and time.

    A thread cannot be stopped: when the time is over the problem is answered, and what the thread
    says later is dropped. It counts as under way until it ends.
    """

    __slots__ = ("_is_over", "_left", "_received", "_said", "_scope", "_sent", "_timer")

    def __init__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        self._scope, self._received, self._sent = scope, receive, send
        self._left, self._is_over = BODY_BYTES, False
        self._timer: asyncio.TimerHandle | None = None
        self._said: asyncio.Task[None] | None = None

    def expect_within(self, seconds: float) -> None:
        """Answer with a problem when nothing else was answered by then."""
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    async def receive(self) -> "Message":
        """Hand on a piece of the body."""
        message = await self._received()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise HTTPException(TOO_LARGE.status)
        return message

    async def send(self, message: "Message") -> None:
        """Hand on a piece of the answer, its start with the headers of every answer."""
        if self._is_over:
            return
        if message["type"] == "http.response.start":
            self._cancel()
            secure = HTTPS_ONLY if self._scope.get("scheme") == "https" else ()
            message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS, *secure]
        await self._sent(message)

    async def end(self) -> None:
        """Wait for what is being said."""
        self._cancel()
        if self._said is not None:
            await self._said

    def _expire(self) -> None:
        self._is_over = True
        late = answer(TIMED_OUT)
        late.raw_headers.extend(SECURITY_HEADERS)
        self._said = asyncio.ensure_future(late(self._scope, self._received, self._sent))

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _too_large(scope: "Scope") -> "Response | None":
    """Refuse headers, or a body by what it says of itself; what arrives is counted too."""
    left = HEADER_BYTES
    for name, value in scope["headers"]:
        left -= len(name) + len(value)
        if name == b"content-length" and int(value) > BODY_BYTES:
            return answer(TOO_LARGE)
    return answer(HEADERS_TOO_LARGE) if left < 0 else None


def needed_scope(method: str, path: str) -> str:
    """Return the scope that a key needs for a request."""
    if path == LABELS:
        return "label"
    if path == REVIEWS or path.startswith(f"{REVIEWS}/"):
        return "review"
    return "read" if method in READING else "predict"


def describe_keys(document: dict[str, Any], asks_for_keys: bool) -> None:
    """Say in an OpenAPI document which endpoints need a key, of which scope, and where it is."""
    document["components"]["securitySchemes"] = SCHEMES
    optional: list[dict[str, Any]] = (
        [] if asks_for_keys else [{}]
    )  # on loopback, who shows none is answered too
    shown: list[dict[str, Any]] = [{name: []} for name in SCHEMES]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if path.startswith(OPEN_PATHS):
                operation["security"] = []
            else:
                operation["security"] = [*shown, *optional]
                operation["x-scope"] = needed_scope(method.upper(), path)


def requires_keys(
    settings: Settings, host: str, *, is_insecure: bool = False, is_strict: bool = False
) -> bool:
    """Return whether a server on this address asks for keys; ConfigError if it may not start.

    On loopback it does when `is_strict`; on any other address unless `is_insecure`.
    """
    if is_insecure or (_is_loopback(host) and not is_strict):
        return False
    with OpsDatabase.open(settings.database_url) as ops:
        is_openable = any(key.is_valid(machine_now()) for key in list_keys(ops))
    if not is_openable:
        raise ConfigError(
            "nobody could be answered: there is no valid key of the service",
            where=host,
            expected="a key, or an address of this machine only (127.0.0.1)",
            way_out="mlops keys create NAME --scopes predict,read; or --insecure, where the "
            "network itself keeps strangers out",
        )
    return True


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name: it may be reached from anywhere


def _shown_key(scope: Any) -> str | None:
    """Return the key of a request's headers: `Authorization: Bearer KEY`, or `X-API-Key: KEY`."""
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            return str(value.decode("latin-1"))
        if name == b"authorization":
            kind, _, key = value.decode("latin-1").partition(" ")
            return key.strip() if kind.lower() == "bearer" else ""
    return None
