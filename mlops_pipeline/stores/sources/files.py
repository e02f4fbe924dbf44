"""Source files as they are delivered: found, readable, of the declared schema.

Every problem is an error that names file, column, expected and found. What a format knows is its
own file's; what follows from the rows is lifecycle/ingest's.
"""

import glob
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlops_pipeline.config.tables import Source
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import SourceError
from mlops_pipeline.stores.lake.engine import Engine, quoted
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline.stores.sources.csv import CSV
from mlops_pipeline.stores.sources.interface import Format, readable
from mlops_pipeline.stores.sources.parquet import PARQUET

FORMATS: dict[str, Format] = {"csv": CSV, "parquet": PARQUET}


@dataclass(frozen=True)
class Delivery:
    """The files of a source and the SQL that reads them as the declared columns."""

    files: tuple[str, ...]
    select: str


def open_delivery(engine: Engine, settings: Settings, use_case: UseCase, name: str) -> Delivery:
    """Check every file of a source and return how to read them."""
    source = use_case.sources[name]
    kind = FORMATS[source.format]
    files = find_files(settings, name, source)
    described = {path: _describe(engine, kind, source, path) for path in files}
    for path in files:
        engine.reads.setdefault(path, set()).add(_file_version(path))
    for path, columns in described.items():
        kind.check_columns(name, source, path, columns)
    kind.check_values(engine, source, described, use_case.hidden_columns(name))
    fields = ", ".join(
        f"{kind.read(source, column)} AS {quoted(column)}" for column in source.columns
    )
    return Delivery(files, f"SELECT {fields} FROM {kind.scan(source, files)}")


def find_files(settings: Settings, name: str, source: Source) -> tuple[str, ...]:
    """Return the files of a source, in order of name; SourceError when there is none."""
    where = source.uri
    if "://" not in where:
        path = settings.data_dir / where
        where = str(path)
        if path.is_dir():
            where = str(path / f"*.{source.format}")
        files = [where] if path.is_file() else sorted(glob.glob(where))  # noqa: PTH207 # the pattern may be absolute
    else:
        files = [where]
    if not files:
        raise SourceError(
            f"source {name}: there is no such file",
            where=where,
            expected=f"a {source.format} file, a folder of them, or a glob",
            found="nothing there",
            way_out="fetch or simulate the data first (mlops fetch, mlops simulate), or mend "
            f"sources.{name}.uri",
        )
    return tuple(files)


def _file_version(path: str) -> str:
    """Return what tells two deliveries of a file apart without reading it."""
    if "://" in path:
        return "remote"
    facts = Path(path).stat()
    return f"{facts.st_size} bytes, {datetime.fromtimestamp(facts.st_mtime, UTC).isoformat()}"


def _describe(engine: Engine, kind: Format, source: Source, path: str) -> dict[str, str]:
    if Path(path).exists() and Path(path).stat().st_size == 0:
        raise SourceError(
            "the file is empty (0 bytes)",
            where=path,
            expected=f"a {source.format} file with the columns {', '.join(source.columns)}",
            found="0 bytes",
            way_out="deliver the file again; nothing of it was ingested",
        )
    with readable(source, path):
        found = engine.columns(kind.scan(source, [path]))
    return {name: re.sub(r"\(.*\)$", "", base) for name, base in found.items()}
