"""metadata.json: one JSON document per model version, valid against a published schema.

Belongs here: its keys and their types, from which the JSON Schema follows, and the sentences of
its changelog, which the model card shows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mlops_pipeline.core.documents.pages import metric_title, number, signed
from mlops_pipeline.core.documents.records import TrainingFacts
from mlops_pipeline.core.evaluation.evaluation import Evaluation
from mlops_pipeline.errors import ContractError
from mlops_pipeline.spec.metrics import shown_in

# the pattern is what validators check; `format` is a note to readers
ISO_8601 = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$"

SHOWN_KEYS = 20  # of the configuration; beyond, only their number

Text = Annotated[str, Field(min_length=1)]
Time = Annotated[datetime, Field(json_schema_extra={"pattern": ISO_8601})]


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
            way_out="a required fact of the run is missing; core/documents/metadata.py lists them",
        )
    return Metadata.model_validate(metadata)


@dataclass(frozen=True)
class Recorded:
    """The documents of a version that its successor is compared with."""

    version: int
    config: Mapping[str, Any]
    inputs: frozenset[str]
    training: TrainingFacts
    evaluation: Evaluation


def changes(new: Recorded, old: Recorded | None) -> list[str]:
    """Return the differences of a version from the champion that it was compared with."""
    if old is None:
        return ["This is the first version."]
    return [
        f"Compared with version {old.version}.",
        _kind(new.training.kind, old.training.kind),
        _mitigation(new.evaluation, old.evaluation),
        f"Data as of {new.training.as_of:%Y-%m-%d} instead of {old.training.as_of:%Y-%m-%d}.",
        *_figures(new, old),
        *_features(new, old),
        *_keys(new, old),
    ]


def _kind(new: str, old: str) -> str:
    if new == old:
        return f"Same kind of model: {new}."
    return f"Different kind of model: {new} instead of {old}."


def _mitigation(new: Evaluation, old: Evaluation) -> str:
    """Say whether the two were mitigated for fairness, and decide, in the same way."""
    ours, theirs = (
        (side.mitigation and side.mitigation.chosen) or "no mitigation" for side in (new, old)
    )
    if ours == theirs:
        return f"Fairness: {ours}, as before."
    return f"Fairness: {ours} instead of {theirs}: the two use different weights or thresholds."


def _figures(new: Recorded, old: Recorded) -> Iterator[str]:
    for name in shown_in("changes"):
        ours, theirs = (side.evaluation.metrics[name].value for side in (new, old))
        both = f"{_number(ours)}, against {_number(theirs)} of version {old.version}"
        yield f"{metric_title(name)}: {both}; each on its own test part."
    found = new.evaluation.champion
    if found is None or found.version != old.version:
        return
    if found.reason is not None:
        yield f"The two cannot be compared on the same cases: {found.reason}."
        return
    differences = [
        f"{metric_title(name)} {signed(value)}"
        for name in shown_in("changes")
        if name in found.differences and (value := found.differences[name].value) is not None
    ]
    yield f"On {found.rows:,} cases that neither had seen, it differs by: {', '.join(differences)}."


def _features(new: Recorded, old: Recorded) -> Iterator[str]:
    for word, names in (("Added", new.inputs - old.inputs), ("Removed", old.inputs - new.inputs)):
        if names:
            yield f"{word} inputs: {', '.join(sorted(names))}."
    if new.inputs == old.inputs:
        yield "Same inputs."


def _keys(new: Recorded, old: Recorded) -> Iterator[str]:
    ours, theirs = dict(_flat(new.config)), dict(_flat(old.config))
    changed = (k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    names = sorted({_shown(key) for key in changed})
    if not names:
        yield "Same configuration."
        return
    more = f" and {len(names) - SHOWN_KEYS} more" if len(names) > SHOWN_KEYS else ""
    yield f"Changed configuration keys: {', '.join(names[:SHOWN_KEYS])}{more}."


def _shown(key: str) -> str:
    """Return a key without the names of single columns or protected attributes."""
    parts = key.split(".")
    return ".".join(parts[: 1 if parts[0] == "protected" else 3])


def _flat(document: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(document, Mapping) and document:
        for key, value in document.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, document


def _number(value: float | None) -> str:
    return "not computable" if value is None else number(value, 3)
