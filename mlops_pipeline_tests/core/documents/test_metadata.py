"""The metadata document of a version, against its schema."""

import copy
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from mlops_pipeline.core.documents.records import SCHEMA, validate_metadata
from mlops_pipeline.errors import ContractError

DOCUMENT: dict[str, Any] = {
    "model_name": "churn",
    "version": 1,
    "artifact_uri": "/models/1",
    "model_files": {"model.json": "0" * 64},
    "framework": {"name": "lightgbm", "version": "4.6.0"},
    "signature": {
        "inputs": [{"name": "tenure_days", "type": "number"}],
        "outputs": [{"name": "probability", "type": "number"}],
    },
    "provenance": {
        "git_commit": "0123abc",
        "git_dirty": False,
        "dataset_snapshot_uri": "/snapshot.json",
        "environment_lockfile_uri": "/requirements.lock",
        "config_hash": "c0ffee",
        "feature_definitions_version": "f00d",
        "seed": 7,
        "run_fingerprint": "abc",
        "mlflow_run_id": "m",
        "dagster_run_id": "d",
        "hardware": {"machine": "x86_64"},
    },
    "training": {
        "as_of": "2024-02-01T00:00:00+00:00",
        "parts": {"train": {"rows": 10}},
        "refit": "all_labelled",
        "rows": 10,
        "figures_belong_to": "the evaluated model",
    },
    "evaluation_report_uri": "/report.html",
    "model_card_uri": "/model_card.md",
    "approval": {"state_pointer": "ops:rollout/churn/1"},
    "owner": "customer-analytics",
    "intended_use": "ranking",
    "input_example_uri": "/input_example.json",
    "requirements_uri": "/requirements.txt",
    "changelog": "first version",
}


def _places(document: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key that the schema names, at any depth."""
    if place in {("provenance", "hardware"), ("training", "parts")}:
        return
    items: Any = enumerate(document) if isinstance(document, list) else ()
    if isinstance(document, dict):
        items = document.items()
        yield from ((*place, key) for key in document)
    for key, value in items:
        yield from _places(value, (*place, key))


def _without(place: tuple[Any, ...]) -> dict[str, Any]:
    changed = copy.deepcopy(DOCUMENT)
    section: Any = changed
    for key in place[:-1]:
        section = section[key]
    del section[place[-1]]
    return changed


def test_schema_is_a_valid_draft_2020_12_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(dict(SCHEMA))
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_complete_document_is_valid() -> None:
    validate_metadata(DOCUMENT)


PLACES = list(_places(DOCUMENT))


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_document_without_a_key_names_it(place: tuple[Any, ...]) -> None:
    with pytest.raises(ContractError, match=rf"'{place[-1]}' is a required property"):
        validate_metadata(_without(place))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("version",), 0, "less than the minimum of 1"),
        (("owner",), "", "should be non-empty"),
        (("training", "refit"), "some", "is not one of"),
        (("provenance", "git_dirty"), "no", "is not of type 'boolean'"),
        (("signature", "inputs"), [], "should be non-empty"),
        (("training", "as_of"), "yesterday", "does not match"),
        (("surprise",), 1, "Additional properties are not allowed"),
    ],
)
def test_document_with_a_wrong_value_names_it(
    place: tuple[str, ...], value: object, message: str
) -> None:
    changed = copy.deepcopy(DOCUMENT)
    section: Any = changed
    for key in place[:-1]:
        section = section[key]
    section[place[-1]] = value
    with pytest.raises(ContractError, match=message):
        validate_metadata(changed)
