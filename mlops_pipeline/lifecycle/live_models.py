"""The versions that a serving process may ask: loaded whole, and guarded by a circuit breaker.

Which of them decides about an entity is said here; how, in deciding.py.
"""

import logging
import math
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.modelling.row_scorer import Decision, RowScorer
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.core.rollout.assignment import is_canary
from mlops_pipeline.core.rollout.breaker import Breaker, admit, record
from mlops_pipeline.errors import DataError
from mlops_pipeline.lifecycle.features.history import select_features
from mlops_pipeline.lifecycle.rollouts import Trial
from mlops_pipeline.stores.predictions import Role

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

    def unfit(self, not_fresh: Collection[tuple[str, str]]) -> tuple[str, ...]:
        """Return why it may not decide on what was read, some of it not fresh."""
        if not not_fresh:
            return self.offline_reasons
        on_missing = self.use_case.serving.on_missing
        found = {
            f"features of {view} are {status}": None
            for name, status in not_fresh
            for view in self.views.get(name, ())
            if on_missing.get(view, "default") == "default"
        }
        return (*self.offline_reasons, *found)

    def score(self, values: Mapping[str, Any]) -> Decision:
        """Score with this thread's own scorer; what fails is raised, also a score that is none."""
        scorer: RowScorer | None = getattr(self._scorers, "own", None)
        if scorer is None:
            scorer = self._scorers.own = RowScorer(self.model)
        decision = scorer(values)
        if not math.isfinite(decision.probability):
            raise ArithmeticError(f"the probability is {decision.probability}")
        return decision

    def decide(self, values: Mapping[str, Any]) -> Decision | None:
        """Return what it decides; None when it failed, which its circuit breaker counts.

        DataError when values are not of their types: that is no failure of the version.
        """
        try:
            decision = self.score(values)
        except DataError:
            raise
        except Exception:
            logger.exception("%s version %s cannot score", self.use_case.name, self.version)
            self.guard.record(is_error=True)
            return None
        self.guard.record(is_error=False)
        return decision


@dataclass(frozen=True)
class NoModel:
    """Why no version answers, or which one should and cannot be loaded."""

    reason: str
    version: int | None = None
    fingerprint: None = None
    online: tuple[str, ...] = ()


Version = LiveModel | NoModel


@dataclass(frozen=True)
class Versions:
    """Who may answer, by one look at the ledger.

    `trial` is under way, with its `challenger`; or it reached full, and the champion waits for its
    last verdict: then the version before it is the one beside it.
    """

    champion: Version
    previous: Version
    trial: Trial | None = None
    challenger: Version | None = None

    def named(self) -> dict[str, Version]:
        """Return those there are, by their role."""
        found = {"champion": self.champion, "previous": self.previous}
        return found if self.challenger is None else {**found, "canary": self.challenger}

    @cached_property
    def beside(self) -> Version | None:
        """The version that is scored beside the champion."""
        return self.challenger or (self.previous if self.trial else None)

    @cached_property
    def pair(self) -> frozenset[int]:
        """The numbers of both that score."""
        both = (self.champion, self.beside)
        return frozenset(one.version for one in both if one and one.version is not None)

    @cached_property
    def reads(self) -> tuple[tuple[str, ...], ...]:
        """The features to read, of both that score; should that fail, the champion's alone."""
        own = self.champion.online
        both = own if self.beside is None else tuple(dict.fromkeys((*own, *self.beside.online)))
        return tuple(dict.fromkeys((both, own)))

    def asked(self, entity: str) -> Iterator[tuple[Role, Version]]:
        """Yield the versions that are asked about an entity, one after the other."""
        if self.challenger is not None and self.trial is not None:
            salt, policy = self.trial.rollout.fingerprint, self.trial.policy
            if is_canary(salt, entity, self.trial.share, policy.test_entities):
                yield "canary", self.challenger
        yield "champion", self.champion
        yield "previous", self.previous
