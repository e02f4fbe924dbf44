"""Who used the service: one audit event for each key and minute, and never a write in a request.

A request is counted by route and status, and its line goes into a running hash; so an access log
kept elsewhere can be held against the audit chain. A line is

    2025-01-01T12:00:00.000001+00:00 /features/{entity}/{entity_id} 200 <pseudonym of the id>

(of a list of people the pseudonyms with commas between them; `-` of nobody).

Belongs here: counting and flushing. A process that is killed loses at most what was not flushed:
the minute that was not over, and the five seconds until it is written.
"""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from mlops_pipeline.lifecycle.follow import Repeating
from mlops_pipeline.stores.clock import machine_now
from mlops_pipeline.stores.settings import Settings, pseudonymiser

if TYPE_CHECKING:
    from starlette.datastructures import State
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from mlops_pipeline.serving.metrics import Metrics

NO_KEY = "(none)"
NO_ROUTE = "(no route)"
UNCOUNTED = ("/health/", "/openapi.json")  # they read no data
FLUSH_SECONDS = 5.0


class KeyUses:
    """Counts requests in memory and appends the minutes that are over; may be shared by threads.

    `clock` is the time, timezone-aware; default the machine's.
    """

    def __init__(self, settings: Settings, clock: Callable[[], datetime] | None = None) -> None:
        self._settings = settings
        self._clock = clock or machine_now
        self._pseudonym = pseudonymiser(settings)
        self._lock = threading.Lock()
        self._minutes: dict[tuple[datetime, str], tuple[Counter[str], Any]] = {}

    def __enter__(self) -> Self:
        failure = "the use of keys is not in the audit chain yet; it is tried again"
        self._flusher = Repeating(self.flush, failure, seconds=FLUSH_SECONDS)
        return self

    def __exit__(self, *raised: object) -> None:
        self._flusher.close()
        self.flush(everything=True)

    def note(
        self, route: str, status: int, entity_id: str | Sequence[str] | None, key: str = NO_KEY
    ) -> None:
        """Count a request about one entity, several or none."""
        whose = (entity_id,) if isinstance(entity_id, str) else entity_id
        whom = ",".join(map(self._pseudonym, whose or ())) or "-"
        with self._lock:
            now = self._clock()  # inside: lines are in the order of their times
            minute = now.replace(second=0, microsecond=0)
            if (minute, key) not in self._minutes:
                self._minutes[minute, key] = (Counter(), hashlib.sha256())
            counts, digest = self._minutes[minute, key]
            counts[f"{route} {status}"] += 1
            digest.update(f"{now.isoformat()} {route} {status} {whom}\n".encode())

    def flush(self, *, everything: bool = False) -> int:
        """Append the minutes that are over, or all; return how many. What fails is kept."""
        from mlops_pipeline.core.audit.chain import NewAuditEvent
        from mlops_pipeline.stores.ops import OpsDatabase

        now = self._clock()
        with self._lock:
            ended = sorted(
                name
                for name in self._minutes
                if everything or name[0] < now.replace(second=0, microsecond=0)
            )
            taken = {name: self._minutes.pop(name) for name in ended}
        at = self._settings.now()
        events = [
            NewAuditEvent("key_use", _detail(*name, *found), None, "service", at)
            for name, found in taken.items()
        ]
        if events:
            try:
                with OpsDatabase.open(self._settings.database_url) as ops:
                    ops.append(events)
            except BaseException:
                with self._lock:  # no request is counted in a minute that is over
                    self._minutes |= taken
                raise
        return len(events)


class CountedRequests:
    """Middleware: counts every request in the app's `KeyUses` when it has been answered."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on."""
        if scope["type"] != "http" or scope["path"].startswith(UNCOUNTED):
            await self._app(scope, receive, send)
            return
        status, began = 500, time.monotonic()

        async def observe(message: "Message") -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observe)
        finally:
            route = getattr(scope.get("route"), "path", NO_ROUTE)
            count(scope["app"].state, scope, route, status, began)


def count(state: "State", scope: "Scope", route: str, status: int, began: float) -> None:
    """Count a request that was answered, in the key's uses and the figures of the app."""
    asked = scope.get("state", {})
    entity_id = scope.get("path_params", {}).get("entity_id") or asked.get("entity_id")
    key = caller(scope)
    uses: KeyUses = state.key_uses
    uses.note(route, status, entity_id, key)
    metrics: Metrics = state.metrics
    metrics.request(route, status, key, time.monotonic() - began)


def caller(scope: "Scope") -> str:
    """Return the name of the key that a request came with."""
    name: str = scope.get("state", {}).get("caller", NO_KEY)
    return name


def _detail(minute: datetime, key: str, counts: Counter[str], digest: Any) -> dict[str, Any]:
    return {
        "key": key,
        "minute": minute.isoformat(),
        "requests": counts.total(),
        "counts": dict(counts),
        "sha256": digest.hexdigest(),
    }
