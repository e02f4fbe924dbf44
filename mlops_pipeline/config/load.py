"""Reading configs/*.yaml into UseCase, with errors a person can act on; the JSON Schema."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import ConfigError, ExpressionError, MlopsError, did_you_mean

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def load_use_case(path: Path) -> UseCase:
    """Read one configuration file; an error names file, key and the nearest valid key."""
    if not path.is_file():
        raise ConfigError("the configuration file does not exist", where=str(path))
    try:
        text = path.read_text(encoding="utf-8")
        document = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 # it extends SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the file is not valid YAML", where=str(path), found=str(error)
        ) from error
    if not isinstance(document, dict):
        raise ConfigError(
            "the file is not a mapping of keys",
            where=str(path),
            expected="name: ..., description: ..., ...",
            found=type(document).__name__,
        )
    use_case = parse_use_case(document, path)
    if use_case.name != path.stem:
        raise ConfigError(
            "the name of the use case is not the name of its file",
            where=f"{path}: name",
            expected=path.stem,
            found=use_case.name,
        )
    return use_case


def parse_use_case(document: object, path: Path) -> UseCase:
    """Return the use case that a document describes; `path` is named in errors."""
    try:
        return UseCase.model_validate(document)
    except ValidationError as error:
        raise _explain(path, error) from error


def load_use_cases(folder: Path) -> dict[str, UseCase]:
    """Read every configs/*.yaml, in order of name."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise ConfigError(
            "there is no use case",
            where=str(folder),
            expected="at least one <use_case>.yaml",
            way_out="run from the project's root, or write one (docs/configuration.md)",
        )
    return {path.stem: load_use_case(path) for path in files}


def json_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of a configuration file, for editors."""
    return {"$schema": SCHEMA_DIALECT, **UseCase.model_json_schema()}


def config_hash(use_case: UseCase) -> str:
    """Return the sha256 of a configuration's JSON; the order of features and candidates counts."""
    text = json.dumps(use_case.model_dump(mode="json"), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader for which a key given twice is an error instead of the last one winning."""


def _unique_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[object, object]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is given twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _explain(path: Path, error: ValidationError) -> MlopsError:
    problems = error.errors(include_url=False)
    first = problems[0]
    place = [str(part) for part in first["loc"]]
    where = f"{path}: {'.'.join(place) or '(the whole file)'}"
    more = f" ({len(problems) - 1} more problems in this file)" if len(problems) > 1 else ""
    wrong = first.get("ctx", {}).get("error")
    if isinstance(wrong, ExpressionError):
        return ExpressionError(
            f"{wrong.what}{more}",
            where=f"{where}: {wrong.where}" if wrong.where else where,
            expected=wrong.expected,
            found=wrong.found,
            way_out=wrong.way_out,
        )
    what = f"the configuration is not valid{more}"
    found = None if first["type"] == "value_error" else repr(first["input"])[:120]
    if first["type"] == "extra_forbidden":
        known = _keys_at(place[:-1])
        hint = did_you_mean(place[-1], known) or f"valid keys: {', '.join(known)}"
        return ConfigError(what, where=where, expected="no such key", found=found, way_out=hint)
    return ConfigError(what, where=where, expected=first["msg"], found=found)


def _keys_at(place: list[str]) -> list[str]:
    """Return the valid keys of the section at `place` (unions: of every member that has them)."""
    schema = UseCase.model_json_schema()
    found = [schema]
    for part in place:
        below = [item for node in found for item in _sections(schema, _below(node, part))]
        found = below or found  # a part may name the member of a union
    return sorted({key for node in found for key in node.get("properties", ())})


def _below(node: dict[str, Any], part: str) -> dict[str, Any]:
    if "discriminator" in node:
        member = node["discriminator"]["mapping"].get(part)
        return {"$ref": member} if member else {}
    inner = node.get("properties", {}).get(part) or node.get("items")
    inner = inner or node.get("additionalProperties")
    return inner or next(iter(node.get("patternProperties", {}).values()), {})


def _sections(schema: dict[str, Any], node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in node:
        yield from _sections(schema, schema["$defs"][node["$ref"].rsplit("/", 1)[-1]])
    elif node:
        for member in node.get("anyOf", ()):
            yield from _sections(schema, member)
        yield node
