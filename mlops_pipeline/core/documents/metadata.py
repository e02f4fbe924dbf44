"""The registry's metadata document: one JSON document per model version, valid against a schema."""

from collections.abc import Mapping
from typing import Any

_TEXT = {"type": "string", "minLength": 1}
_TIME = {  # the pattern is what validators check; `format` is a note to readers
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$",
}
_COLUMN = {
    "type": "object",
    "required": ["name", "type"],
    "properties": {"name": _TEXT, "type": _TEXT, "shape": {"type": "array"}},
    "additionalProperties": False,
}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": sorted(properties),
        "properties": properties,
        "additionalProperties": False,
    }


SCHEMA: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Model version metadata",
    **_object(
        model_name=_TEXT,
        version={"type": "integer", "minimum": 1},
        artifact_uri=_TEXT,
        framework=_object(name=_TEXT, version=_TEXT),
        signature=_object(
            inputs={"type": "array", "items": _COLUMN, "minItems": 1},
            outputs={"type": "array", "items": _COLUMN, "minItems": 1},
        ),
        provenance=_object(
            git_commit=_TEXT,
            git_dirty={"type": "boolean"},
            dataset_snapshot_uri=_TEXT,
            environment_lockfile_uri=_TEXT,
            config_hash=_TEXT,
            feature_definitions_version=_TEXT,
            seed={"type": "integer"},
            run_fingerprint=_TEXT,
            mlflow_run_id=_TEXT,
            dagster_run_id=_TEXT,
            hardware={"type": "object"},
        ),
        training=_object(
            as_of=_TIME,
            parts={"type": "object"},
            refit={"enum": ["all_labelled", "newest", "none"]},
            rows={"type": "integer", "minimum": 1},
            figures_belong_to=_TEXT,
        ),
        evaluation_report_uri=_TEXT,
        model_card_uri=_TEXT,
        approval=_object(state_pointer=_TEXT),
        owner=_TEXT,
        intended_use=_TEXT,
        input_example_uri=_TEXT,
        requirements_uri=_TEXT,
        changelog=_TEXT,
    ),
}
