"""Who may ask what: every request passes here before anything of it is read.

    /health/, /v2/health/         anybody
    POST /v1/labels               label
    POST, and PUT, DELETE ...     predict
    GET                           read: features and receipts of people, metrics, descriptions

One ASGI middleware, because each layer costs every request. What a client may take (time, size,
connections) is in limits.py; keys themselves are lifecycle/api_keys.py's.
"""

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_pipeline.errors import ConfigError
from mlops_pipeline.lifecycle.api_keys import KeyRing, list_keys
from mlops_pipeline.serving.problems import KEY_LACKS_SCOPE, KEY_UNKNOWN, answer
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

OPEN_PATHS = ("/health/", "/v2/health/")
LABELS = "/v1/labels"
READING = ("GET", "HEAD")
CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True)
class Gate:
    """What the app protects itself with, from its start to its end."""

    keys: KeyRing
    settings: Settings
    asks_for_keys: bool

    def admit(self, scope: "Scope") -> "Response | None":
        """Note who asks; return why they may not."""
        shown = _shown_key(scope)
        if shown is None and not self.asks_for_keys:
            return None
        key = None if shown is None else self.keys.find(shown, self.settings.now())
        if key is None:
            return answer(KEY_UNKNOWN, headers=CHALLENGE)
        needed = needed_scope(scope["method"], scope["path"])
        if not key.allows(needed):
            return answer(KEY_LACKS_SCOPE, more={"expected": needed})
        scope["state"]["caller"] = key.name
        return None


class Protected:
    """Middleware: lets a request pass to the app, or answers it with a problem."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            scope.setdefault("state", {})
            gate: Gate = scope["app"].state.gate
            refused = None if scope["path"].startswith(OPEN_PATHS) else gate.admit(scope)
            if refused is not None:
                await refused(scope, receive, send)
                return
        await self._app(scope, receive, send)


def needed_scope(method: str, path: str) -> str:
    """Return the scope that a key needs for a request."""
    if path == LABELS:
        return "label"
    return "read" if method in READING else "predict"


def keys_asked(
    settings: Settings, host: str, *, is_insecure: bool = False, is_strict: bool = False
) -> bool:
    """Return whether a server on this address asks for keys; ConfigError if it may not start.

    On loopback it does when `is_strict`; on any other address unless `is_insecure`.
    """
    if is_insecure or (_is_loopback(host) and not is_strict):
        return False
    with OpsDatabase.open(settings.database_url) as ops:
        is_openable = any(key.is_valid(settings.now()) for key in list_keys(ops))
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
