"""What is known of two versions that score the same requests: counts, and rows side by side.

Arrays have one element for each logged request, in order of time. Judging them is guardrails.py's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mlops_pipeline.core.metrics.references import ScoreReference


@dataclass(frozen=True)
class Counts:
    """How requests that a version was asked ended; `slow`: slower than the policy's limit."""

    requests: int = 0
    errors: int = 0
    slow: int = 0
    defaults: int = 0


@dataclass(frozen=True)
class Answers:
    """What one version said: `probability` is NaN where it failed or gave the default."""

    probability: NDArray[np.float64]
    decision: NDArray[np.bool_]
    is_default: NDArray[np.bool_]
    is_error: NDArray[np.bool_]
    latency_us: NDArray[np.int64]  # -1: not known

    def take(self, chosen: NDArray[Any]) -> Self:
        """Return the answers at these places, or where a mask is true."""
        return type(self)(*(getattr(self, item.name)[chosen] for item in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the answers of several parts, one after another."""
        return cls(
            *(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(cls))
        )


@dataclass(frozen=True)
class Pairs:
    """Requests that both versions scored, and what became of them.

    `is_canary`: the challenger was to decide. `label` (0 or 1) means something where `is_complete`:
    everything that could happen within the label's horizon is known. A protected attribute is None
    where it is not known.
    """

    entity: NDArray[np.object_]
    at_us: NDArray[np.int64]
    is_canary: NDArray[np.bool_]
    champion: Answers
    challenger: Answers
    label: NDArray[np.int8]
    is_complete: NDArray[np.bool_]
    protected: Mapping[str, NDArray[np.object_]]

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.at_us)

    def take(self, chosen: NDArray[Any]) -> "Pairs":
        """Return the requests at these places, or where a mask is true."""
        return Pairs(
            entity=self.entity[chosen],
            at_us=self.at_us[chosen],
            is_canary=self.is_canary[chosen],
            champion=self.champion.take(chosen),
            challenger=self.challenger.take(chosen),
            label=self.label[chosen],
            is_complete=self.is_complete[chosen],
            protected={name: values[chosen] for name, values in self.protected.items()},
        )


@dataclass(frozen=True)
class Evidence:
    """All that is known of a version in trial, or of a champion and the one before it.

    References are the scores on rows that a version had not seen. Labels are known up to
    `labels_through`; from `labels_due` on the first answers' are to be complete (None: it cannot be
    said), and `no_labels` says why there can be none.
    """

    pairs: Pairs
    champion_reference: ScoreReference | None
    challenger_reference: ScoreReference | None
    labels_through: datetime
    labels_due: datetime | None
    no_labels: str | None = None
