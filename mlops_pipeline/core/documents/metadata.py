"""metadata.json: one JSON document per model version, valid against a published schema.

Belongs here: its keys and their types, from which the JSON Schema follows.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mlops_pipeline.errors import ContractError

# the pattern is what validators check; `format` is a note to readers
ISO_8601 = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$"

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
    """Hold a metadata document against its schema, and return it.

    Raises
    ------
    ContractError
        Naming the key that is missing, unknown or of another type.
    """
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
