"""The versions that a serving process may ask: loaded whole, and guarded by a circuit breaker."""

import logging
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.modelling.row_scorer import Decision, RowScorer
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.core.rollout.breaker import Breaker, admit, record
from mlops_pipeline.errors import DataError
from mlops_pipeline.lifecycle.features.history import select_features

logger = logging.getLogger(__name__)


class Guard:
    """The circuit breaker of a version, shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._breaker = Breaker(since=time.monotonic())

    @property
    def state(self) -> str:
        """Whether the version is asked: closed, half_open or open."""
        return self._breaker.state

    def admits(self) -> bool:
        """Whether the version is asked now."""
        if self._breaker.state == "closed":
            return True
        with self._lock:
            self._breaker, is_asked = admit(self._breaker, time.monotonic())
        return is_asked

    def record(self, is_error: bool) -> None:
        """Count how an answer ended."""
        with self._lock:
            before = self._breaker.state
            self._breaker = record(self._breaker, is_error, time.monotonic())
        if before != self._breaker.state:
            logger.error("circuit breaker: %s -> %s", before, self._breaker.state)


@dataclass(frozen=True)
class LiveModel:
    """A version that answers, and what it needs; `views` of each feature, `online` of them."""

    version: int
    fingerprint: str
    model: ScoringModel
    use_case: UseCase
    readable: tuple[str, ...]
    guard: Guard = field(default_factory=Guard, compare=False)
    _scorers: threading.local = field(default_factory=threading.local, compare=False)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features that it reads."""
        return tuple(dict.fromkeys((*self.model.input_names, *self.model.attributes)))

    @cached_property
    def online(self) -> tuple[str, ...]:
        """Those of them that can be read."""
        return tuple(name for name in self.names if name in self.readable)

    @cached_property
    def offline_reasons(self) -> tuple[str, ...]:
        """Why it cannot decide on what is read, where it needs other features."""
        return tuple(f"{name} is not online" for name in self.names if name not in self.readable)

    @cached_property
    def views(self) -> Mapping[str, tuple[str, ...]]:
        """The views that each feature is made of."""
        known = [name for name in self.names if name in self.use_case.features]
        return {name: tuple(select_features(self.use_case, [name]).views) for name in known}

    def decide(self, values: Mapping[str, Any]) -> Decision | None:
        """Score with this thread's own scorer; None when the version failed, which counts.

        DataError when values are not of their types: that is no failure of the version.
        """
        scorer: RowScorer | None = getattr(self._scorers, "own", None)
        try:
            if scorer is None:
                scorer = self._scorers.own = RowScorer(self.model)
            decision = scorer(values)
        except DataError:
            raise
        except Exception:
            logger.exception("%s version %s cannot score", self.use_case.name, self.version)
            self.guard.record(is_error=True)
            return None
        is_error = not math.isfinite(decision.probability)
        self.guard.record(is_error)
        return None if is_error else decision


@dataclass(frozen=True)
class NoModel:
    """Why no version answers."""

    reason: str
    version: None = None
    fingerprint: None = None
