"""The documents of a version, written and read whole: training, evaluation, metadata, snapshot.

Belongs here: what each document holds, and the one way to JSON and back. What pages say of them is
report.py's and model_card.py's; files are lifecycle's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, TypeAdapter

from mlops_pipeline.core.evaluation.evaluation import Evaluation, worst_slices
from mlops_pipeline.core.evaluation.gates import Gate
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.spec.metrics import GATE_METRICS

T = TypeVar("T")


@dataclass(frozen=True)
class CandidateFacts:
    """One candidate; `validation` are its figures on the validation part."""

    name: str
    kind: str
    trees: int | None
    seconds: float
    validation_log_loss: float
    validation: Mapping[str, float | None]


@dataclass(frozen=True)
class PartFacts:
    """One part of the split; without periods it is drawn from all of them."""

    periods: tuple[str, ...]
    rows: int
    positive_rate: float

    @property
    def span(self) -> str:
        """The periods as a person reads them."""
        ends = dict.fromkeys((*self.periods[:1], *self.periods[-1:]))
        return " to ".join(ends) or "all periods"


@dataclass(frozen=True)
class TrainingFacts:
    """training.json: what later steps need to know of a training."""

    use_case: str
    fingerprint: str
    as_of: datetime
    chosen: str
    reason: str
    candidates: tuple[CandidateFacts, ...]
    parts: Mapping[str, PartFacts]
    purged: int
    labelled_rows: int
    dropped_inputs: Mapping[str, str]
    train_metrics: Mapping[str, Estimate]
    train_maxima: Mapping[str, float]
    importance: Mapping[str, float]

    @property
    def kind(self) -> str:
        """The kind of the chosen candidate."""
        return next(item.kind for item in self.candidates if item.name == self.chosen)


@dataclass(frozen=True)
class SourceFacts:
    """The accepted version of one source."""

    version: int
    rows: int
    quarantined: int = 0


@dataclass(frozen=True)
class DataSnapshot:
    """data_snapshot.json: the accepted version of every source, and when they were written down."""

    as_of: datetime
    written_at: datetime
    sources: Mapping[str, SourceFacts]


@dataclass(frozen=True)
class GroupThresholds:
    """Thresholds that differ between groups.

    Each of `limits` is of one of `groups`; where groups are estimated, a decision names none.
    """

    kind: str
    limits: tuple[float, ...]
    attributes: tuple[str, ...] = ()
    groups: tuple[tuple[tuple[str, ...], ...], ...] = ()


@dataclass(frozen=True)
class ModelFacts:
    """card_facts.json: how the registered model decides, and the libraries it was made with."""

    threshold: float
    thresholds: GroupThresholds | None
    calibration: str
    libraries: Mapping[str, str]


@dataclass(frozen=True)
class EvaluatedTraining:
    """evaluation.json: what was measured on the test part, and the gate's result."""

    evaluation: Evaluation
    gate: Gate

    def document(self) -> dict[str, Any]:
        """Return plain JSON; beside the figures, the worst slice by each metric."""
        worst = {
            name: {"column": item.column, "group": item.group, "value": item.metrics[name].value}
            for name in GATE_METRICS
            for item in worst_slices(self.evaluation.slices, name, 1)
        }
        measured = plain(self.evaluation) | {"worst_slices": worst}
        return {"evaluation": measured, "gate": plain(self.gate)}


def plain(value: Any) -> Any:
    """Return JSON values: records as objects, times in ISO 8601, NumPy's numbers as Python's."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, BaseModel):
        return {name: plain(item) for name, item in value}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value.item() if isinstance(value, np.generic) else value


def from_plain(kind: type[T], document: Any) -> T:
    """Rebuild what `plain` returned; pydantic's ValidationError names what does not fit."""
    return TypeAdapter(kind).validate_python(document)
