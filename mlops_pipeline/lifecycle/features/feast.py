"""The offline feature table as a Feast feature repository: a folder that Feast reads by itself.

docs/feast.md says what it holds. What Feast stored beside it (`state`) is kept by another export.
Nothing here imports Feast. One export to a folder at a time.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlops_pipeline.config.tables import DerivedFeature, FeatureColumn
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.features.frames import EVENT_ROW
from mlops_pipeline.errors import ConfigError, NotFoundError, StateError
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.features.offline import definitions_hash, features_uri
from mlops_pipeline.stores.files import new_folder, restore_folder
from mlops_pipeline.stores.lake.engine import literal, quoted

MANIFEST, DEFINITIONS, SETTINGS = "export.json", "features.py", "feature_store.yaml"
DATA, STATE = "data", "state"
EVENT_TIME, CREATED_TIME = "event_timestamp", "created_timestamp"
DERIVED = "derived"  # the Feast view of the derived features
DROPPED_SUFFIX = "_y"  # Feast's DuckDB store loses columns that end like this in its join
VALUE_TYPES = {"int64": "INT64", "string": "STRING"}
FIELD_TYPES = {"float64": "Float64", "int64": "Int64", "string": "String", "boolean": "Bool"}
SETTINGS_TEXT = """\
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
class FeastExport:
    """A feature repository on disk: event times of its first and last row, rows by view."""

    folder: Path
    oldest: datetime
    newest: datetime
    rows: Mapping[str, int]
    is_new: bool


def export_feast(context: Context, folder: Path) -> FeastExport:
    """Write the feature table as a Feast repository, whole, over an earlier export."""
    use_case, engine = context.use_case, context.engine
    uri = features_uri(context)
    state = context.lake.state(uri)
    scan = engine.scan(state) if state else "(SELECT NULL::TIMESTAMP AS as_of)"
    oldest, newest = engine.query(f"SELECT min(as_of), max(as_of) FROM {scan}")[0]
    if state is None or newest is None:
        raise NotFoundError(
            "there are no features to export",
            where=uri,
            expected="a feature table of the present definitions with at least one row",
            found="none",
            way_out=f"materialize {use_case.name}/features first",
        )
    views = exported_views(use_case)
    definitions = _definitions(use_case, views)
    about: dict[str, Any] = {
        "use_case": use_case.name,
        "definitions": definitions_hash(use_case),
        "table_version": state.version,
        "oldest": oldest.replace(tzinfo=UTC).isoformat(),
        "newest": newest.replace(tzinfo=UTC).isoformat(),
    }
    restore_folder(folder, [STATE])
    found = _manifest(folder)
    is_new = (
        {name: found.get(name) for name in about} != about
        or not all((folder / DATA / f"{view.name}.parquet").is_file() for view in views)
        or not (folder / SETTINGS).is_file()
        or not (folder / DEFINITIONS).is_file()
        or (folder / DEFINITIONS).read_text(encoding="utf-8") != definitions
    )
    if is_new:
        with new_folder(folder, [STATE]) as new:
            (new / DATA).mkdir()
            rows = {view.name: _write_rows(context, scan, view, new / DATA) for view in views}
            found = {**about, "rows": rows}
            manifest = json.dumps(found, indent=1) + "\n"
            settings = SETTINGS_TEXT.format(project=use_case.name)
            texts = {SETTINGS: settings, DEFINITIONS: definitions, MANIFEST: manifest}
            for name, text in texts.items():
                (new / name).write_text(text, encoding="utf-8")
            if not (folder / STATE).exists():
                (new / STATE).mkdir()
    oldest, newest = (datetime.fromisoformat(found[name]) for name in ("oldest", "newest"))
    return FeastExport(folder, oldest, newest, found["rows"], is_new)


def _manifest(folder: Path) -> dict[str, Any]:
    """Return what an earlier export wrote of itself; a folder of anything else is refused."""
    path = folder / MANIFEST
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    if folder.exists():
        content = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else ["a file"]
        if content:
            raise StateError(
                "the folder holds something other than an export",
                where=str(folder),
                expected="a new or empty folder, or an earlier export",
                found=", ".join(content[:5]),
                way_out="give another folder",
            )
    return {}


def _write_rows(context: Context, scan: str, view: "ExportedView", folder: Path) -> int:
    """Write one view's rows; of an entity's events at the same time the last one counts."""
    key = quoted(context.use_case.entity.key)
    names = quoted(*view.fields)
    last = f"QUALIFY row_number() OVER (PARTITION BY {key}, as_of ORDER BY {EVENT_ROW} DESC) = 1"
    if context.use_case.grid.every != "event":
        last = ""
    time = "timezone('UTC', as_of)"
    path = literal(str(folder / f"{view.name}.parquet"))
    return int(
        context.engine.query(
            f"COPY (SELECT {key}, {time} AS {EVENT_TIME}, {time} AS {CREATED_TIME}, {names} "
            f"FROM {scan} WHERE {key} IS NOT NULL {last}) TO {path} (FORMAT parquet)"
        )[0][0]
    )


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
    """
    views = []
    for name, view in use_case.views.items():
        is_stream = use_case.grid.every == "event" and view.refresh == "continuous"
        tags = {"source": view.source}
        if view.freshness_days is not None:
            tags["freshness_days"] = str(view.freshness_days)
        if view.request_time:
            tags["request_time"] = "true"
        views.append(
            ExportedView(
                name=name,
                fields=view.columns,
                description=view.description,
                owner=view.owner or use_case.owner,
                ttl_days=view.ttl_days,
                online=view.online and not view.request_time and not is_stream,
                tags=tags,
            )
        )
    if use_case.derived:  # they live as long as the shortest of their parts
        used = {name for item in use_case.derived.values() for name in item.expression.columns}
        parts = [view for view in views if used & set(view.fields)]
        lives = [view.ttl_days for view in parts if view.ttl_days is not None]
        views.append(
            ExportedView(
                name=DERIVED,
                fields=use_case.derived,
                description="Scalar expressions over features of the other views.",
                owner=use_case.owner,
                ttl_days=min(lives, default=None),
                online=all(view.online for view in parts),
                tags={"source": ", ".join(sorted({view.name for view in parts}))},
            )
        )
    _check_names(use_case, views)
    return views


def _check_names(use_case: UseCase, views: list[ExportedView]) -> None:
    if use_case.derived and DERIVED in use_case.views:
        raise ConfigError(
            "the view has the name under which derived features are exported",
            where=f"{use_case.name}: views.{DERIVED}",
            expected=f"any other name than {DERIVED!r}",
            found=DERIVED,
            way_out="rename the view",
        )
    names = ((view.name, name) for view in views for name in view.fields)
    for home, name in names:
        if name in (EVENT_TIME, CREATED_TIME) or name.endswith(DROPPED_SUFFIX):
            raise ConfigError(
                "the feature has a name that Feast takes for something else",
                where=f"{use_case.name}: views.{home}.{name}",
                expected=f"neither {EVENT_TIME} nor {CREATED_TIME}, and no ending "
                f"{DROPPED_SUFFIX!r} (Feast's DuckDB store drops such columns)",
                found=name,
                way_out="rename the feature",
            )


class _Code(str):
    """Python code, written as it is."""

    __slots__ = ()
    __repr__ = str.__str__


def _definitions(use_case: UseCase, views: list[ExportedView]) -> str:
    key = use_case.entity.key
    kind = use_case.sources[use_case.population.source].column(key).type
    if kind not in VALUE_TYPES:
        raise ConfigError(
            "Feast has no entity key of this type",
            where=f"{use_case.name}: entity.key {key}",
            expected=" or ".join(VALUE_TYPES),
            found=kind,
            way_out="deliver the key as int64 or string",
        )
    types = {FIELD_TYPES[item.dtype] for view in views for item in view.fields.values()}
    entity = _call(
        "Entity",
        name=use_case.entity.name,
        join_keys=[key],
        value_type=_Code(f"ValueType.{VALUE_TYPES[kind]}"),
        description=use_case.description,
        owner=use_case.owner,
    )
    header = HEADER.format(use_case=use_case.name, types=", ".join(sorted(types)))
    return "\n".join([header, f"entity = {entity}\n", *map(_view, views)])


def _view(view: ExportedView) -> str:
    source = _call(
        "FileSource",
        name=view.name,
        path=_Code(f"str(DATA / {f'{view.name}.parquet'!r})"),
        timestamp_field=EVENT_TIME,
        created_timestamp_column=CREATED_TIME,
    )
    text = _call(
        "FeatureView",
        name=view.name,
        entities=[_Code("entity")],
        ttl=_Code(f"timedelta(days={view.ttl_days or 0})"),  # Feast's 0: no limit
        schema=[
            _call(
                "Field",
                name=name,
                dtype=_Code(FIELD_TYPES[item.dtype]),
                description=item.description,
                tags={"deprecated": "true"} if item.deprecated else {},
            )
            for name, item in view.fields.items()
        ],
        source=_Code(f"source_{view.name}"),
        online=view.online,
        description=view.description,
        owner=view.owner,
        tags=dict(view.tags),
    )
    return f"source_{view.name} = {source}\nview_{view.name} = {text}\n"


def _call(function: str, **arguments: Any) -> _Code:
    """Return a call as code; arguments that say nothing are left out."""
    lines = []
    for name, value in arguments.items():
        if isinstance(value, list) and len(value) > 1:
            lines += [f"    {name}=[", *(f"        {item!r}," for item in value), "    ],"]
        elif value not in ("", {}):
            lines.append(f"    {name}={value!r},")
    if len(lines) < 4 or function == "Field":
        return _Code(f"{function}({' '.join(line.strip() for line in lines).rstrip(',')})")
    return _Code("\n".join([f"{function}(", *lines, ")"]))
