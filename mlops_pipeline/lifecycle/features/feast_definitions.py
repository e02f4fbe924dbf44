"""The text of a Feast feature repository: feature_store.yaml and the Python definitions.

Belongs here: which of our views becomes which Feast view, and how it is written down. The data and
the folder are feast_export.py's. Nothing here imports Feast: Feast reads what is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlops_pipeline.config.features import DerivedFeature, FeatureColumn, FeatureView
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import ConfigError

EVENT_TIME, CREATED_TIME = "event_timestamp", "created_timestamp"
DERIVED = "derived"  # the Feast view of the derived features
DROPPED_SUFFIX = "_y"  # Feast's DuckDB store loses columns that end like this in its join
VALUE_TYPES = {"int64": "INT64", "string": "STRING"}
FIELD_TYPES = {"float64": "Float64", "int64": "Int64", "string": "String", "boolean": "Bool"}
SETTINGS = """\
# Written by mlops_pipeline for Feast; addresses are relative to this folder.
project: {project}
provider: local
registry: state/registry.db
online_store:
  type: sqlite
  path: state/online.db
offline_store:
  type: duckdb
entity_key_serialization_version: 3
"""
HEADER = '''\
"""Features of {use_case} for Feast. Written by mlops_pipeline; an export replaces it."""

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import {types}

DATA = Path(__file__).resolve().parent / "data"
'''


@dataclass(frozen=True)
class ExportedView:
    """One Feast view: what it is called, what it holds, whether Feast may serve it online."""

    name: str
    fields: Mapping[str, FeatureColumn | DerivedFeature]
    description: str
    owner: str
    ttl_days: int | None
    online: bool
    tags: Mapping[str, str]


def exported_views(use_case: UseCase) -> list[ExportedView]:
    """Return the Feast views of a use case: its own views, and one of the derived features.

    Protected attributes are in none. A request-time view and a continuous view of an event grid
    are not online: Feast would answer with the values of the entity's last event.

    Raises
    ------
    ConfigError
        When a name means something else to Feast.
    """
    views = [_of_view(use_case, name, view) for name, view in use_case.views.items()]
    if use_case.derived:
        views.append(_of_derived(use_case, views))
    _check_names(use_case, views)
    return views


def settings_text(use_case: UseCase) -> str:
    """Return feature_store.yaml: DuckDB offline, SQLite online, both below the folder."""
    return SETTINGS.format(project=use_case.name)


def definitions_text(use_case: UseCase, views: list[ExportedView]) -> str:
    """Return the Python file that `feast apply` reads."""
    key = use_case.entity.key
    kind = use_case.sources[use_case.population.source].column(key).type
    types = {FIELD_TYPES[item.dtype] for view in views for item in view.fields.values()}
    entity = _call(
        "Entity",
        name=use_case.entity.name,
        join_keys=[key],
        value_type=_Code(f"ValueType.{_value_type(use_case, kind)}"),
        description=use_case.description,
        owner=use_case.owner,
    )
    header = HEADER.format(use_case=use_case.name, types=", ".join(sorted(types)))
    parts = [header, f"entity = {entity}\n", *(_view_text(view) for view in views)]
    return "\n".join(parts)


def _of_view(use_case: UseCase, name: str, view: FeatureView) -> ExportedView:
    is_stream = use_case.grid.every == "event" and view.refresh == "continuous"
    tags = {"source": view.source}
    if view.freshness_days is not None:
        tags["freshness_days"] = str(view.freshness_days)
    if view.request_time:
        tags["request_time"] = "true"
    return ExportedView(
        name=name,
        fields=view.columns,
        description=view.description,
        owner=view.owner or use_case.owner,
        ttl_days=view.ttl_days,
        online=view.online and not view.request_time and not is_stream,
        tags=tags,
    )


def _of_derived(use_case: UseCase, views: list[ExportedView]) -> ExportedView:
    """Return the view of the derived features: it lives as long as the shortest of its parts."""
    home = {name: view for view in views for name in view.fields}
    used = {name for item in use_case.derived.values() for name in item.expression.columns}
    parts = [home[name] for name in used if name in home]
    lives = [view.ttl_days for view in parts if view.ttl_days is not None]
    return ExportedView(
        name=DERIVED,
        fields=use_case.derived,
        description="Scalar expressions over features of the other views.",
        owner=use_case.owner,
        ttl_days=min(lives, default=None),
        online=all(view.online for view in parts),
        tags={"source": ", ".join(sorted({view.name for view in parts}))},
    )


def _check_names(use_case: UseCase, views: list[ExportedView]) -> None:
    if use_case.derived and DERIVED in use_case.views:
        raise ConfigError(
            "the view has the name under which derived features are exported",
            where=f"{use_case.name}: views.{DERIVED}",
            expected=f"any other name than {DERIVED!r}",
            found=DERIVED,
            way_out="rename the view",
        )
    for view in views:
        for name in view.fields:
            if name in (EVENT_TIME, CREATED_TIME) or name.endswith(DROPPED_SUFFIX):
                raise ConfigError(
                    "the feature has a name that Feast takes for something else",
                    where=f"{use_case.name}: views.{view.name}.{name}",
                    expected=f"neither {EVENT_TIME} nor {CREATED_TIME}, and no ending "
                    f"{DROPPED_SUFFIX!r} (Feast's DuckDB store drops such columns)",
                    found=name,
                    way_out="rename the feature",
                )


def _value_type(use_case: UseCase, kind: str) -> str:
    if kind not in VALUE_TYPES:
        raise ConfigError(
            "Feast has no entity key of this type",
            where=f"{use_case.name}: entity.key {use_case.entity.key}",
            expected=" or ".join(VALUE_TYPES),
            found=kind,
            way_out="deliver the key as int64 or string",
        )
    return VALUE_TYPES[kind]


class _Code(str):
    """Python code, written as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _view_text(view: ExportedView) -> str:
    source = _call(
        "FileSource",
        name=view.name,
        path=_Code(f"str(DATA / {f'{view.name}.parquet'!r})"),
        timestamp_field=EVENT_TIME,
        created_timestamp_column=CREATED_TIME,
    )
    fields = [
        _Code(
            _call(
                "Field",
                name=name,
                dtype=_Code(FIELD_TYPES[item.dtype]),
                description=item.description,
                tags={"deprecated": "true"} if item.deprecated else {},
            )
        )
        for name, item in view.fields.items()
    ]
    text = _call(
        "FeatureView",
        name=view.name,
        entities=[_Code("entity")],
        ttl=_Code(f"timedelta(days={view.ttl_days or 0})"),  # Feast's 0: no limit
        schema=fields,
        source=_Code(f"source_{view.name}"),
        online=view.online,
        description=view.description,
        owner=view.owner,
        tags=dict(view.tags),
    )
    return f"source_{view.name} = {source}\nview_{view.name} = {text}\n"


def _call(function: str, **arguments: Any) -> str:
    """Return a call as code; arguments that say nothing are left out."""
    lines = []
    for name, value in arguments.items():
        if isinstance(value, list) and len(value) > 1:
            lines += [f"    {name}=[", *(f"        {item!r}," for item in value), "    ],"]
        elif value not in ("", {}):
            lines.append(f"    {name}={value!r},")
    if len(lines) < 4 or function == "Field":
        return f"{function}({' '.join(line.strip() for line in lines).rstrip(',')})"
    return "\n".join([f"{function}(", *lines, ")"])
