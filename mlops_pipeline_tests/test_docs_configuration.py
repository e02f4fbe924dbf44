"""The configuration is documented: keys, functions, rules, its schema, the README's example."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from mlops_pipeline.config import UseCase, json_schema, load_use_case
from mlops_pipeline.spec.grammar import FUNCTIONS
from mlops_pipeline.spec.metrics import GATE_METRICS, METRICS
from mlops_pipeline.spec.rules import GateRule
from mlops_pipeline_tests.documentation import (
    CONFIGS,
    blocks,
    example_name,
    page_name,
    rows,
    sections,
    text_of,
)


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for item in get_args(annotation) for model in _models(item)]


def _headings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield (heading of its section, section) for every part of the configuration."""
    for name, field in model.model_fields.items():
        inner = _models(field.annotation)
        is_mapping = "dict" in {getattr(get_origin(field.annotation), "__name__", "")}
        heading = f"{prefix}{name}{'.<name>' if is_mapping else ''}"
        for item in inner:
            kind = item.model_fields.get("rule") or item.model_fields.get("kind")
            tag = get_args(kind.annotation)[0] if kind and len(inner) > 1 else None
            yield (f"{heading}: {tag}" if tag else heading), item
            yield from _headings(item, f"{heading}.")


CONFIGURATION = [("Top level", UseCase), *_headings(UseCase)]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return "its defaults"
    if value in ((), {}):
        return "empty"
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


@pytest.mark.parametrize(
    ("heading", "model"), CONFIGURATION, ids=[item[0] for item in CONFIGURATION]
)
def test_configuration_section_documents_every_key(heading: str, model: type[BaseModel]) -> None:
    table = rows(sections(text_of("docs/configuration.md"))[heading])
    found = {row[0].strip("`"): row[2] for row in table}
    assert found == {name: _default(field) for name, field in model.model_fields.items()}
    assert all(len(row) == 4 and row[3] for row in table)


def test_every_function_of_expressions_is_documented() -> None:
    section = sections(text_of("docs/configuration.md"))["Expressions"]
    assert {name for name in FUNCTIONS if f"`{name}(" in section} == set(FUNCTIONS)


def test_every_metric_is_documented() -> None:
    assert ", ".join(f"`{name}`" for name in GATE_METRICS) in text_of("docs/configuration.md")
    defined = [row[0] for row in rows(sections(text_of("docs/evaluation.md"))["The test part"])]
    assert [name.strip("`") for cell in defined for name in cell.split(", ")] == list(METRICS)


def test_gate_examples_show_every_rule_and_are_valid() -> None:
    text = text_of("docs/configuration.md")
    (example,) = [item for item in blocks(text, "yaml") if item.startswith("gates:")]
    rules = TypeAdapter(tuple[GateRule, ...]).validate_python(yaml.safe_load(example)["gates"])
    assert {type(rule) for rule in rules} == set(_models(GateRule))


def test_json_schema_is_current() -> None:
    expected = json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"
    assert text_of("configs/schema/use_case.schema.json") == expected


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=page_name)
def test_configuration_file_names_its_schema(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=schema/use_case.schema.json"


def test_readme_example_is_a_complete_use_case(tmp_path: Path) -> None:
    example = blocks(text_of("README.md"), "yaml")[0]
    path = tmp_path / f"{example_name()}.yaml"
    path.write_text(example, encoding="utf-8")
    assert load_use_case(path).features
