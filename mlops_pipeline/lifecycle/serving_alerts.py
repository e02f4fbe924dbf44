"""Alerts of the service: what inputs were refused, by reason and window, and open breakers.

Requests are counted in memory; the ledger is written to by a thread, once for each reason and
window, however many requests there were. The times are the machine's: this is about the service.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from mlops_pipeline.errors import shape
from mlops_pipeline.lifecycle.alerts import NewAlert, raise_alert, resolve_alerts_by_key
from mlops_pipeline.lifecycle.follow import Repeating
from mlops_pipeline.lifecycle.live_models import LiveModel, NoModel
from mlops_pipeline.stores import Closing
from mlops_pipeline.stores.ops import Ledger
from mlops_pipeline.stores.predictions import LoggedPrediction

WINDOW_SECONDS = 300.0
LOOK_SECONDS = 5.0  # an open breaker is seen: it stays open for 30
INPUTS, BREAKER = "inputs", "breaker"  # kinds
SHOWN_VALUES = 4
BY = "service"


class ServingAlerts(Closing):
    """What one process has to tell of a use case, of the versions `models` names; for threads."""

    def __init__(
        self,
        ops: Ledger,
        use_case: str,
        models: Callable[[], Iterable[LiveModel | NoModel]],
        clock: Callable[[], datetime],
    ) -> None:
        self._ops, self._use_case, self._models, self._clock = ops, use_case, models, clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._began = time.monotonic()
        self._raised: set[str] = set()  # by this process, and not resolved
        self._thread = Repeating(
            self._look, "alerts of the service are not written; tried again", seconds=LOOK_SECONDS
        )

    def note(self, made: Sequence[LoggedPrediction]) -> None:
        """Count the answers where no model decided, by their reasons."""
        for one in made:
            if one.role == "default":
                with self._lock:
                    for reason in one.reasons:
                        self._counts[reason] += 1
                        if reason not in self._examples:
                            self._examples[reason] = _example(one, reason)

    def end_window(self) -> None:
        """Raise an alert for each reason of the window, and resolve those that have ended."""
        with self._lock:
            counts, examples = dict(self._counts), dict(self._examples)
        minutes = f"{WINDOW_SECONDS / 60:g} minutes"
        for reason, count in counts.items():
            self._raise(
                f"{INPUTS}:{reason}",
                f"{count:,} answers within {minutes} were the default: {reason} "
                f"({examples[reason]})",
                "look at the receipt of the example, and at who sends such requests or fills the "
                "online store; docs/serving.md#post-v1predict",
            )
        ended = {key for key in self._raised if key.startswith(f"{INPUTS}:")}
        for key in ended - {f"{INPUTS}:{reason}" for reason in counts}:
            self._resolve(key, f"no such answer of this process within {minutes}")
        with self._lock:  # what came meanwhile counts for the next window
            self._counts.subtract(counts)
            self._counts = +self._counts
            self._examples = {name: self._examples[name] for name in self._counts}
            self._began = time.monotonic()

    def look_at_breakers(self) -> None:
        """Raise an alert while the circuit breaker of a version is open."""
        asked = {f"{BREAKER}:{one.version}": one for one in self._models()}
        gone = {key for key in self._raised if key.startswith(BREAKER)} - asked.keys()
        for key in gone:
            self._resolve(key, "the version is not asked any more")
        for key, model in asked.items():
            if isinstance(model, LiveModel):
                state = model.guard.state
                if state == "open" and key not in self._raised:
                    self._raise(
                        key,
                        f"version {model.version} fails: its circuit breaker is open, and the "
                        "version before it, or the default, answers",
                        "read the log of the service; if it goes on: mlops rollback "
                        f"{self._use_case}",
                        severity="error",
                    )
                elif state == "closed" and key in self._raised:
                    self._resolve(key, f"version {model.version} answers again")

    def close(self) -> None:
        """Tell what was counted, and stop."""
        self._thread.close()
        if self._counts:
            self.end_window()

    def _look(self) -> None:
        self.look_at_breakers()
        if time.monotonic() - self._began >= WINDOW_SECONDS:
            self.end_window()

    def _raise(self, key: str, message: str, action: str, *, severity: str = "warning") -> None:
        kind = key.partition(":")[0]
        alert = NewAlert(kind, severity, message, action, dedupe_key=key)
        raise_alert(self._ops, self._use_case, alert, now=self._clock())
        self._raised.add(key)

    def _resolve(self, key: str, reason: str) -> None:
        now = self._clock()
        resolve_alerts_by_key(self._ops, self._use_case, key, by=BY, reason=reason, now=now)
        self._raised.discard(key)


def _example(one: LoggedPrediction, reason: str) -> str:
    """Return an example without what it holds: how the values that the reason names look."""
    named = [name for name in one.features if reason.startswith(f"{name} ")][:SHOWN_VALUES]
    values = "".join(f", {name} like {shape(one.features[name])}" for name in named)
    return f"for example prediction {one.id}{values}"
