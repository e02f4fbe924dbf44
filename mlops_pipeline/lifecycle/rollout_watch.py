"""The fast guardrails of a version in trial, judged by the service itself.

Each second every process writes what it counted in this minute into the ledger, sums up what all
did, and takes the version out where that is harm: no daemon has to run. Minutes are the machine's.
What takes labels or days is judged by rollout_evidence.py.
"""

import os
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from mlops_pipeline.core.documents.records import plain
from mlops_pipeline.core.rollout.evidence import Counts, GuardrailResult
from mlops_pipeline.core.rollout.guardrails import judge_fast
from mlops_pipeline.core.rollout.machine import Event
from mlops_pipeline.core.rollout.records import Rollout
from mlops_pipeline.errors import StateError
from mlops_pipeline.lifecycle.alerts import NewAlert, raise_alert
from mlops_pipeline.lifecycle.bookkeeping import NewDecision, record_decision
from mlops_pipeline.lifecycle.follow import Repeating
from mlops_pipeline.lifecycle.rollouts import Trial, get_rollout, send
from mlops_pipeline.stores import Closing
from mlops_pipeline.stores.clock import machine_now
from mlops_pipeline.stores.ops import Ledger, OpsDatabase, RolloutWindow

LOOK_SECONDS = 1.0
WINDOW_SECONDS = 60
US_OF_MS = 1_000
KIND, BY = "rollout", "service"  # of decisions and alerts; the actor
SIDES = ("challenger", "champion")
COLUMNS = [f"{side}_{item.name}" for side in SIDES for item in fields(Counts)]


class RolloutWatch(Closing):
    """What one process counts of a trial; may be shared by threads.

    `trial` returns what is watched now, `dropped` how many rows were never scored, `clock` the
    Clock's time; `rolled_back` is called when the version was taken out.
    """

    def __init__(
        self,
        ops: OpsDatabase,
        *,
        trial: Callable[[], Trial | None],
        dropped: Callable[[], int],
        rolled_back: Callable[[], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._ops, self._clock = ops, clock
        self._find_trial, self._dropped, self._rolled_back = trial, dropped, rolled_back
        self._process = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._version: int | None = None
        self._counts: Counter[str] = Counter()  # of this minute, by column
        self._told: Counter[str] = Counter()  # at the last look
        self._window = self._first = 0
        failure = "the version in trial is not watched; tried again"
        self._thread = Repeating(self.look, failure, seconds=LOOK_SECONDS)

    def count(
        self,
        entity: str,
        version: int,
        latency_us: int,
        *,
        is_error: bool = False,
        is_default: bool = False,
    ) -> None:
        """Count what a version made of a request, whether it answered or not."""
        with self._lock:
            trial = self._watched()
            if trial is None or entity in trial.policy.test_entities:
                return
            side = SIDES[version != trial.rollout.version]
            is_slow = latency_us > trial.policy.guardrails.latency_ms * US_OF_MS
            self._counts[f"{side}_requests"] += 1
            self._counts[f"{side}_errors"] += is_error
            self._counts[f"{side}_slow"] += is_slow
            self._counts[f"{side}_defaults"] += is_default

    def look(self, at: datetime | None = None) -> None:
        """Write what was counted, and judge what all processes did; `at` is the machine's time."""
        at = at or machine_now()
        with self._lock:
            trial = self._watched()
            if trial is None:
                return
            row = self._row(trial, at)
        self._ops.put(row)
        rows = self._ops.all(RolloutWindow, use_case=row.use_case, version=row.version)
        number = row.window - min(one.first_window for one in rows) + 1
        present = [one for one in rows if one.window == row.window]
        counts = [_summed(present, side) for side in SIDES]
        results = judge_fast(number, counts[0], counts[1], trial.policy)
        if any(one.outcome == "harm" for one in results):
            self._roll_back(trial, number, counts, results)

    def close(self) -> None:
        """Stop looking."""
        self._thread.close()

    def _watched(self) -> Trial | None:
        """Return what is watched; another version is counted anew."""
        trial = self._find_trial()
        version = None if trial is None else trial.rollout.version
        if version != self._version:
            self._version, self._window, self._first = version, 0, 0
            self._counts, self._told = Counter(), Counter()
        return trial

    def _row(self, trial: Trial, at: datetime) -> RolloutWindow:
        """Return what this process counted: in a new minute, what came since the last look."""
        window = int(at.timestamp()) // WINDOW_SECONDS
        if window != self._window:
            self._counts -= self._told
            self._window, self._first = window, self._first or window
        self._told = self._counts.copy()
        rollout = trial.rollout
        return RolloutWindow(
            rollout.use_case,
            rollout.version,
            self._process,
            self._first,
            window,
            **{name: self._told[name] for name in COLUMNS},
            dropped=self._dropped(),
            beat_at=at,
        )

    def _roll_back(
        self,
        trial: Trial,
        number: int,
        counts: Sequence[Counts],
        results: Sequence[GuardrailResult],
    ) -> None:
        """Take the version out, unless its rollout was changed meanwhile: then judge it anew."""
        rollout, now = trial.rollout, self._clock()
        reason = "; ".join(f"{one.name}: {one.reason}" for one in results if one.outcome == "harm")
        evidence = {
            "version": rollout.version,
            "state": rollout.state,
            "stage": trial.stage.name,
            "requests": counts[0].requests,
            "minute": number,
            "counts": plain(dict(zip(SIDES, counts, strict=True))),
            "results": [plain(one) for one in results],
        }
        try:
            with self._ops.write(rollout.use_case) as tx:
                take_out(tx, rollout, reason, evidence, by=BY, now=now)
        except StateError:
            if get_rollout(self._ops, rollout.use_case, rollout.version) == rollout:
                raise  # nobody else was first
        self._rolled_back()


def take_out(
    tx: Ledger, rollout: Rollout, reason: str, evidence: dict[str, Any], *, by: str, now: datetime
) -> None:
    """Write that a version broke a guardrail: its end, the decision and the alert."""
    name, version = rollout.use_case, rollout.version
    send(tx, rollout, Event("breach", by, reason, now, evidence=evidence))
    record_decision(tx, name, NewDecision(KIND, "breach", reason, evidence, actor=by), now=now)
    alert = NewAlert(
        KIND,
        "error",
        f"version {version} was rolled back: {reason}",
        f"mlops rollout status {name}; docs/runbook.md#rollout",
        dedupe_key=f"{KIND}:{version}",
    )
    raise_alert(tx, name, alert, now=now)


def _summed(rows: Sequence[RolloutWindow], side: str) -> Counts:
    names = [item.name for item in fields(Counts)]
    return Counts(*(sum(getattr(row, f"{side}_{name}") for row in rows) for name in names))
