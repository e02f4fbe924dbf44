"""Scoring beside the answers: what the version that did not answer says of the same rows.

Off the hot path: rows whose answers are stored wait in a bounded queue, which a thread empties;
their scores are stored with the log's next answers. Where it cannot follow, the oldest rows are
dropped and counted.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from mlops_pipeline.core.modelling.row_scorer import Decision
from mlops_pipeline.errors import PredictionLogError
from mlops_pipeline.lifecycle.deciding import NS_OF_US, Beside
from mlops_pipeline.lifecycle.follow import Repeating
from mlops_pipeline.lifecycle.live_models import NoModel
from mlops_pipeline.stores import Closing
from mlops_pipeline.stores.predictions import LoggedPrediction, PredictionLog, ShadowScore

ROWS_WAITING = 10_000
ROWS_AT_ONCE = 256  # handed to the log
LOOK_SECONDS = 0.25
ROWS_A_PAUSE, PAUSE_SECONDS = 8, 0.000_05  # an answer waits for so many rows at most
CLOSING_SECONDS = 2.0

Row = tuple[Beside, LoggedPrediction]
logger = logging.getLogger(__name__)


class Shadow(Closing):
    """The rows that wait, and the thread that scores them; `note` is told of each score.

    `default` is the decision where a version fails or may not decide.
    """

    def __init__(
        self,
        log: PredictionLog,
        default: bool,
        note: Callable[[Beside, LoggedPrediction, ShadowScore], None],
    ) -> None:
        self._log, self._default, self._note = log, default, note
        self._rows: deque[Row] = deque()
        self._turn = threading.Lock()
        self._until = float("inf")
        self.dropped = 0
        failure = "answers are not scored beside"
        self._thread = Repeating(self.flush, failure, seconds=LOOK_SECONDS)

    @property
    def waiting(self) -> int:
        """How many rows are not scored yet."""
        return len(self._rows)

    def put(self, rows: Sequence[Row]) -> None:
        """Let rows wait whose answers are stored."""
        self._rows.extend(rows)
        self._drop(len(self._rows) - ROWS_WAITING)

    def flush(self) -> None:
        """Score and store what waits."""
        with self._turn:
            while self._rows and time.monotonic() < self._until:
                self._store_next()

    def close(self) -> None:
        """Score and store what can be in a moment; the rest is dropped."""
        self._until = time.monotonic() + CLOSING_SECONDS
        self._thread.close()
        self.flush()
        self._drop(len(self._rows))

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._rows.popleft()
            self.dropped += 1

    def _store_next(self) -> None:
        """Score some rows, for a moment at most, and store what was said."""
        scores: list[ShadowScore] = []
        until = time.monotonic() + LOOK_SECONDS
        while self._rows and len(scores) < ROWS_AT_ONCE and time.monotonic() < until:
            beside, logged = self._rows.popleft()
            score = shadow_of(beside, logged, default=self._default)
            self._note(beside, logged, score)
            scores.append(score)
            if len(scores) % ROWS_A_PAUSE == 0:
                time.sleep(PAUSE_SECONDS)
        try:
            self._log.append_shadows(scores).result()
        except PredictionLogError as error:
            self.dropped += len(scores)
            logger.error("scores beside the answers are not stored: %s", error)


def shadow_of(beside: Beside, logged: LoggedPrediction, *, default: bool) -> ShadowScore:
    """Return what a version says of a logged row that another one answered."""
    began, model = time.perf_counter_ns(), beside.model
    failure: str | None = None
    decision: Decision | None = None
    if beside.is_failed:
        failure = "it failed when it was asked to decide"
    elif isinstance(model, NoModel):
        failure = model.reason
    elif not beside.reasons:
        try:
            decision = model.score(logged.features)
        except Exception as error:  # noqa: BLE001 # a failure of the version, and counted
            failure = f"it failed: {type(error).__name__}"
    return ShadowScore(
        prediction_id=logged.id,
        use_case=logged.use_case,
        entity=logged.entity,
        at_us=logged.at_us,
        version=beside.version,
        probability=None if decision is None else decision.probability,
        decision=default if decision is None else decision.decision,
        threshold=None if decision is None else decision.threshold,
        is_default=decision is None and failure is None,
        failure=failure,
        latency_us=beside.ready_us + (time.perf_counter_ns() - began) // NS_OF_US,
    )
