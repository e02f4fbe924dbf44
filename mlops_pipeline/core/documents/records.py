"""The documents of a version, written and read whole: training, evaluation, metadata, snapshot.

Belongs here: what each document holds, and the one way to JSON and back. What pages say of them is
pages.py's and model_card.py's; files are lifecycle's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from mlops_pipeline.core.evaluation.evaluation import Evaluation, worst_slices
from mlops_pipeline.core.evaluation.naive import NaiveScores
from mlops_pipeline.core.evaluation.outcomes import Gate
from mlops_pipeline.core.metrics.metrics import Estimate
from mlops_pipeline.errors import ContractError
from mlops_pipeline.spec.metrics import GATE_METRICS

T = TypeVar("T")

# the pattern is what validators check; `format` is a note to readers
ISO_8601 = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$"

Text = Annotated[str, Field(min_length=1)]
Time = Annotated[datetime, Field(json_schema_extra={"pattern": ISO_8601})]


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
    train_missing: Mapping[str, float]
    importance: Mapping[str, float]
    naive: tuple[NaiveScores, ...] = ()

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
    """Thresholds that differ between groups; each of `limits` is of one of `groups`."""

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


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Column(_Part):
    """One column of the signature."""

    name: Text
    type: Text


class Signature(_Part):
    """What a model is given and what it answers."""

    inputs: tuple[Column, ...] = Field(min_length=1)
    outputs: tuple[Column, ...] = Field(min_length=1)


class Framework(_Part):
    """The library that the model is of."""

    name: Text
    version: Text


class Provenance(_Part):
    """What a version was made from and with."""

    git_commit: Text
    git_dirty: bool
    dataset_snapshot_uri: Text
    environment_lockfile_uri: Text
    config_hash: Text
    feature_definitions_version: Text
    seed: int
    run_fingerprint: Text
    mlflow_run_id: Text
    dagster_run_id: Text
    hardware: Mapping[str, Any]


class FittedOn(_Part):
    """What the registered model was fitted on; `figures_belong_to` says which was evaluated."""

    as_of: Time
    parts: Mapping[str, Any]
    refit: Literal["all_labelled", "newest", "none"]
    rows: int = Field(ge=1)
    figures_belong_to: Text


class ApprovalPointer(_Part):
    """Where the state of the version is found, which changes after it is registered."""

    state_pointer: Text


class Metadata(_Part):
    """The whole document."""

    model_name: Text
    version: int = Field(ge=1)
    artifact_uri: Text
    model_files: Annotated[  # sha256 of each, by name
        Mapping[str, Text], Field(json_schema_extra={"required": ["model.json"]})
    ]
    framework: Framework
    signature: Signature
    provenance: Provenance
    training: FittedOn
    evaluation_report_uri: Text
    model_card_uri: Text
    approval: ApprovalPointer
    owner: Text
    intended_use: Text
    input_example_uri: Text
    requirements_uri: Text
    changelog: Text


SCHEMA: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **Metadata.model_json_schema(),
    "title": "Model version metadata",
}


def validate_metadata(metadata: Mapping[str, Any]) -> Metadata:
    """Hold a metadata document against its schema, and return it."""
    import jsonschema

    validator = jsonschema.Draft202012Validator(
        dict(SCHEMA), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    problem = jsonschema.exceptions.best_match(validator.iter_errors(dict(metadata)))
    if problem is not None:
        raise ContractError(
            "the metadata document is not valid",
            where=".".join(map(str, problem.absolute_path)) or "(the whole document)",
            found=problem.message,
            way_out="a required fact of the run is missing; core/documents/records.py lists them",
        )
    return Metadata.model_validate(metadata)
