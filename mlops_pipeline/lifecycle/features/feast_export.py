"""The offline feature table as a Feast feature repository: a folder that Feast reads by itself.

    <folder>/feature_store.yaml   settings: DuckDB offline, SQLite online
    <folder>/features.py          entity, sources and views; `feast apply` reads it
    <folder>/data/<view>.parquet  entity key, event_timestamp, created_timestamp, features
    <folder>/state/               Feast's own registry and online store; kept by another export
    <folder>/export.json          what was exported

Belongs here: the folder and its data. The text is feast_definitions.py's. Nothing here imports
Feast. One export to a folder at a time.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlops_pipeline.core.features.frames import EVENT_ROW
from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.features.feast_definitions import (
    CREATED_TIME,
    EVENT_TIME,
    ExportedView,
    definitions_text,
    exported_views,
    settings_text,
)
from mlops_pipeline.lifecycle.features.offline import definitions_hash, features_uri
from mlops_pipeline.stores.lake.engine import literal, quoted

MANIFEST, DEFINITIONS, SETTINGS, DATA, STATE = (
    "export.json",
    "features.py",
    "feature_store.yaml",
    "data",
    "state",
)


@dataclass(frozen=True)
class FeastExport:
    """A feature repository on disk.

    `oldest` and `newest` are the event times of the first and last row: what Feast's commands
    `materialize` and `materialize-incremental` take. `rows` is by view.
    """

    folder: Path
    oldest: datetime
    newest: datetime
    rows: Mapping[str, int]
    is_new: bool


def export_feast(context: Context, folder: Path) -> FeastExport:
    """Write the feature table of the present definitions as a Feast feature repository.

    The folder appears whole or not at all; an earlier export is replaced, what Feast stored beside
    it stays. Exporting the same table again changes nothing.

    Raises
    ------
    NotFoundError
        When no period's features were built.
    StateError
        When the folder holds something else.
    """
    scan, about = _described(context)
    views = exported_views(context.use_case)
    text = definitions_text(context.use_case, views)
    _bring_back(folder)
    _check_ours(folder)
    kept = _manifest(folder)
    if {name: kept.get(name) for name in about} == about and _is_whole(folder, text, views):
        return _export(folder, kept, is_new=False)
    with _replaced(folder) as new:
        (new / DATA).mkdir()
        rows = {view.name: _write_rows(context, scan, view, new / DATA) for view in views}
        (new / SETTINGS).write_text(settings_text(context.use_case), encoding="utf-8")
        (new / DEFINITIONS).write_text(text, encoding="utf-8")
        found = {**about, "rows": rows}
        (new / MANIFEST).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return _export(folder, found, is_new=True)


def _described(context: Context) -> tuple[str, dict[str, Any]]:
    """Return how the feature table is read, and which one it is."""
    state = context.lake.state(features_uri(context))
    missing = NotFoundError(
        "there are no features to export",
        where=features_uri(context),
        expected="a feature table of the present definitions with at least one row",
        found="none",
        way_out=f"materialize {context.use_case.name}/features first",
    )
    if state is None:
        raise missing
    scan = context.engine.scan(state)
    oldest, newest = context.engine.query(f"SELECT min(as_of), max(as_of) FROM {scan}")[0]
    if newest is None:
        raise missing
    return scan, {
        "use_case": context.use_case.name,
        "definitions": definitions_hash(context.use_case),
        "table_version": state.version,
        "oldest": oldest.replace(tzinfo=UTC).isoformat(),
        "newest": newest.replace(tzinfo=UTC).isoformat(),
    }


def _write_rows(context: Context, scan: str, view: ExportedView, folder: Path) -> int:
    """Write one view's rows; of an entity's events at the same moment the last one counts."""
    key = quoted(context.use_case.entity.key)
    names = ", ".join(quoted(name) for name in view.fields)
    last = ""
    if context.use_case.grid.every == "event":
        last = (
            f"QUALIFY row_number() OVER (PARTITION BY {key}, as_of ORDER BY {EVENT_ROW} DESC) = 1"
        )
    moment = "timezone('UTC', as_of)"
    path = literal(str(folder / f"{view.name}.parquet"))
    return int(
        context.engine.query(
            f"COPY (SELECT {key}, {moment} AS {EVENT_TIME}, {moment} AS {CREATED_TIME}, {names} "
            f"FROM {scan} WHERE {key} IS NOT NULL {last}) TO {path} (FORMAT parquet)"
        )[0][0]
    )


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _is_whole(folder: Path, text: str, views: Sequence[ExportedView]) -> bool:
    definitions = folder / DEFINITIONS
    return (
        definitions.is_file()
        and definitions.read_text(encoding="utf-8") == text
        and (folder / SETTINGS).is_file()
        and all((folder / DATA / f"{view.name}.parquet").is_file() for view in views)
    )


def _export(folder: Path, found: Mapping[str, Any], *, is_new: bool) -> FeastExport:
    return FeastExport(
        folder=folder,
        oldest=datetime.fromisoformat(found["oldest"]),
        newest=datetime.fromisoformat(found["newest"]),
        rows=found["rows"],
        is_new=is_new,
    )


def _check_ours(folder: Path) -> None:
    """Refuse a folder that holds anything but an export."""
    if folder.exists() and not (folder / MANIFEST).is_file():
        content = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else ["a file"]
        if content:
            raise StateError(
                "the folder holds something other than an export",
                where=str(folder),
                expected="a new or empty folder, or an earlier export",
                found=", ".join(content[:5]),
                way_out="give another folder",
            )


def _aside(folder: Path, what: str) -> Path:
    return folder.parent / f".{folder.name}.{what}"


def _bring_back(folder: Path) -> None:
    """Undo what a killed export left half done."""
    old, new = _aside(folder, "old"), _aside(folder, "new")
    if old.exists() and not folder.exists():
        if (new / STATE).exists() and not (old / STATE).exists():
            (new / STATE).rename(old / STATE)
        old.rename(folder)
    for left in (old, new):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `folder` on success, with Feast's state."""
    old, new = _aside(folder, "old"), _aside(folder, "new")
    new.mkdir(parents=True)
    try:
        yield new
    except BaseException:
        shutil.rmtree(new)
        raise
    if folder.exists():
        folder.rename(old)
    if (old / STATE).exists():
        (old / STATE).rename(new / STATE)
    else:
        (new / STATE).mkdir()
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
