"""What a rollout is judged on: logged requests that both versions scored, and what is promised.

Collecting it belongs to lifecycle/, judging it to judgements.py and guardrails.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from mlops_pipeline.config.modelling import Costs, Fairness, RolloutPolicy
from mlops_pipeline.core.metrics.intervals import factorize
from mlops_pipeline.core.metrics.metrics import Floats
from mlops_pipeline.core.metrics.references import ScoreReference
from mlops_pipeline.errors import DataError

Rows = NDArray[np.bool_]
Indices = NDArray[np.intp]
Outcome = Literal["ok", "harm", "waiting", "not computable"]


@dataclass(frozen=True)
class Counts:
    """Requests of one version in one window, answered or scored in shadow.

    `slow` took longer than `guardrails.latency_ms`; `defaults` are those where this version gives
    the default and the other one does not.
    """

    requests: int = 0
    errors: int = 0
    slow: int = 0
    defaults: int = 0


@dataclass(frozen=True)
class Scored:
    """What one version said about each row: probability NaN where it failed or gave the default.

    `decision` is what it decides, or the default decision; `latency_us` is -1 where not known.
    """

    probability: Floats
    decision: Rows
    is_default: Rows
    is_error: Rows
    latency_us: NDArray[np.int64]

    def take(self, chosen: Rows) -> Self:
        """Return what it said about some rows."""
        return replace(
            self, **{item.name: getattr(self, item.name)[chosen] for item in fields(self)}
        )


@dataclass(frozen=True)
class Pairs:
    """Logged requests in order of time, each scored by both versions; test entities left out.

    `share` is the stage's when it was answered. `label` counts where `is_complete`: nothing that
    comes later can change it. `protected` has the value of each attribute, None where not known.
    """

    entity: NDArray[np.object_]
    at_us: NDArray[np.int64]
    share: Floats
    is_canary: Rows
    champion: Scored
    challenger: Scored
    label: NDArray[np.int8]
    is_complete: Rows
    protected: Mapping[str, NDArray[np.object_]]

    def __post_init__(self) -> None:
        rows = len(self.entity)
        columns = [getattr(self, field.name) for field in fields(self)]
        columns = [one for one in columns if isinstance(one, np.ndarray)]
        for version in self.versions:
            columns += [getattr(version, field.name) for field in fields(version)]
        found = sorted({len(column) for column in (*columns, *self.protected.values())})
        if found != [rows]:
            raise DataError(
                "Columns of pairs differ in length", expected=str(rows), found=str(found)
            )
        if (np.diff(self.at_us) < 0).any():
            raise DataError("Pairs are not in order of time")

    def __len__(self) -> int:
        return len(self.entity)

    @property
    def versions(self) -> tuple[Scored, Scored]:
        """Both, the new one first."""
        return self.challenger, self.champion

    @cached_property
    def codes(self) -> Indices:
        """The number of each row's entity."""
        return factorize(self.entity)[0]

    def take(self, chosen: Rows) -> Self:
        """Return some of the rows."""
        arrays = {
            name: each[chosen] for name, each in vars(self).items() if isinstance(each, np.ndarray)
        }
        protected = {name: each[chosen] for name, each in self.protected.items()}
        champion, challenger = self.champion.take(chosen), self.challenger.take(chosen)
        arrays.pop("codes", None)
        return replace(
            self, **arrays, champion=champion, challenger=challenger, protected=protected
        )

    def first(self, among: Rows) -> Indices:
        """Return each entity's first row among some, in order of time."""
        rows = np.flatnonzero(among)
        return np.sort(rows[np.unique(self.codes[rows], return_index=True)[1]])


@dataclass(frozen=True)
class Rules:
    """What is promised: the policy a rollout began with, and what fairness and decisions cost."""

    policy: RolloutPolicy
    fairness: Fairness
    costs: Costs

    @property
    def alpha(self) -> float:
        """The error that is allowed: of rolling back an equal version, of promoting a worse one."""
        return 1 - self.policy.evidence.confidence

    @property
    def parity_difference(self) -> float:
        """Largest difference of selection rates between groups."""
        own = self.policy.guardrails.parity_difference
        return self.fairness.demographic_parity_at_most if own is None else own


@dataclass(frozen=True)
class Evidence:
    """All that is known of a rollout at one time; `share` is the stage's that it is in.

    `no_labels` says why there can be no labels, where that is so.
    """

    pairs: Pairs
    share: float
    challenger_reference: ScoreReference | None
    champion_reference: ScoreReference | None
    no_labels: str | None = None


@dataclass(frozen=True)
class GuardrailResult:
    """What one guardrail says: `value` with its bounds, held against `limit`.

    The bounds hold at every time at once. `needed` is how many further entities (requests, of the
    shares of requests) are expected to be needed for "ok" if the new version is as good; None where
    that is not known or nothing is needed.
    """

    name: str
    outcome: Outcome
    value: float | None
    lower: float | None
    upper: float | None
    limit: float | None
    rows: int
    needed: int | None
    reason: str
