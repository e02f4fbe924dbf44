"""Where the files of a source lie: found, told apart, and named when they cannot be read.

Nothing in a source's folder is passed over in silence: what is not of its format is an error. What
stands in the files is sources.py's.
"""

import csv
import glob
import gzip
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mlops_pipeline.config.tables import SUFFIXES, Source
from mlops_pipeline.errors import MachineError, SourceError, masked
from mlops_pipeline.stores.settings import Settings

REDELIVER = "deliver the file again; nothing of it was ingested"
LOG = "_delta_log"  # the folder that makes a folder a Delta table
LINE_BYTES = 2_000_000  # DuckDB reads no longer line of a CSV file


@dataclass(frozen=True)
class Found:
    """The files of a source in order of name; of a Delta table its folder."""

    paths: tuple[str, ...]
    partitions: tuple[str, ...] = ()  # keys of their folders (`month=2025-02`), which are columns
    copies: tuple[tuple[str, str], ...] = ()  # of a file left out, the one of the same content

    def only(self, path: str) -> "Found":
        """Return one of the files, as found."""
        return replace(self, paths=(path,))


def find_files(settings: Settings, name: str, source: Source) -> Found:
    """Return the files of a source; SourceError when there is none, or one that is not read."""
    path = settings.data_dir / source.uri
    named = [str(path)]
    if not path.exists():
        matches = sorted(glob.glob(str(path)))  # noqa: PTH207 # the pattern may be absolute
        named = [item for item in matches if not _is_hidden(Path(item).name)]
    suffixes = SUFFIXES[source.format]
    files: list[str] = []
    for item in named:
        _check_kind(name, source, Path(item))
        is_folder = bool(suffixes) and Path(item).is_dir()
        files += sorted(_within(name, source, Path(item))) if is_folder else [item]
    if not files:
        patterns = " or ".join(str(path / f"*{suffix}") for suffix in suffixes)
        raise SourceError(
            f"source {name}: there is no such file",
            where=patterns if path.is_dir() else str(path),
            expected=f"a {source.format} file, a folder of them, or a glob"
            if suffixes
            else "the folder of a Delta table",
            found="nothing there",
            way_out="fetch or simulate the data first (mlops fetch, mlops simulate), or mend "
            f"sources.{name}.uri",
        )
    if not suffixes:
        return Found(tuple(files))
    keys = [_partitions(path, file) for file in files]
    for file, found in zip(files, keys, strict=True):
        if list(found) != list(keys[0]):
            raise SourceError(
                f"source {name}: its files lie in folders of different columns",
                where=file,
                expected=f"below folders of {', '.join(keys[0]) or 'no column'}, as {files[0]}",
                found=", ".join(found) or "no such folder",
                way_out="lay out every file alike, or narrow sources." + f"{name}.uri",
            )
    return Found(tuple(files), tuple(keys[0]))


def _is_hidden(name: str) -> bool:
    """Whether a file or folder is not data by the custom of who writes such folders."""
    return name.startswith((".", "_"))


def _check_kind(name: str, source: Source, path: Path) -> None:
    """Refuse a folder that is a Delta table where files are declared, and the other way round."""
    is_delta = (path / LOG).is_dir()
    if is_delta == (source.format == "delta"):
        return
    raise SourceError(
        f"source {name}: the folder is {'' if is_delta else 'not '}a Delta table",
        where=str(path),
        expected="a Delta table" if not is_delta else f"{source.format} files",
        found=f"{'a' if is_delta else 'no'} folder {LOG}",
        way_out=f"sources.{name}.format: {'delta' if is_delta else 'parquet or csv'}",
    )


def _within(name: str, source: Source, folder: Path) -> Iterator[str]:
    """Yield the files below a folder, those of hidden names apart; refuse one of another format."""
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [item for item in folders if not _is_hidden(item)]
        for file in files:
            path = f"{place}/{file}"
            if _is_hidden(file):
                continue
            if not file.endswith(SUFFIXES[source.format]):
                raise SourceError(
                    f"source {name}: its folder holds a file of another format",
                    where=path,
                    expected=f"only {source.format} files ({', '.join(SUFFIXES[source.format])})",
                    found=file,
                    way_out=f"move it elsewhere, or name the files by sources.{name}.uri, for "
                    f"example {source.uri}/*{SUFFIXES[source.format][0]}",
                )
            yield path


def _partitions(uri: Path, file: str) -> dict[str, str]:
    """Return {key: value} of the folders `key=value` of a file, below what the uri fixes."""
    fixed = uri
    while not fixed.is_dir():
        fixed = fixed.parent
    folders = Path(file).parent.relative_to(fixed).parts if Path(file) != uri else ()
    return dict(part.split("=", 1) for part in folders if "=" in part)


def leave_out_copies(found: Found) -> Found:
    """Leave out files with the bytes, and the folders' values, of one before; say which."""
    alike: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    for file in found.paths if len(found.paths) > 1 else ():
        parts = Path(file).parts
        values = tuple(part for part in parts if part.partition("=")[0] in found.partitions)
        alike.setdefault((Path(file).stat().st_size, values), []).append(file)
    copies: dict[str, str] = {}
    for files in alike.values():
        seen: dict[bytes, str] = {}
        for file in files if len(files) > 1 else ():
            with Path(file).open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").digest()
            if file != (first := seen.setdefault(digest, file)):
                copies[file] = first
    kept = tuple(file for file in found.paths if file not in copies)
    return replace(found, paths=kept, copies=tuple(copies.items()))


def delivered_version(path: str) -> str:
    """Return what tells two deliveries of a file apart without reading it."""
    if Path(path).is_dir():
        from deltalake import DeltaTable

        return f"version {DeltaTable(path).version()}"
    facts = Path(path).stat()
    return f"{facts.st_size} bytes, {datetime.fromtimestamp(facts.st_mtime, UTC).isoformat()}"


@contextmanager
def readable(source: Source, paths: Sequence[str]) -> Iterator[None]:
    """Raise a SourceError that names the file in place of whatever a library says as it reads."""
    import duckdb
    from deltalake.exceptions import DeltaError

    try:
        yield
    except (duckdb.Error, DeltaError) as error:
        if known := MachineError.of(error):
            raise known from error
        where, found, way_out = ", ".join(paths), masked(str(error)), REDELIVER
        if source.format == "csv":
            for path in paths:
                if fault := _csv_fault(path, source.delimiter):
                    where, found, way_out = f"{path}: line {fault[0]}", *fault[1:]
                    break
        raise SourceError(
            f"the file cannot be read as {source.format}",
            where=where,
            expected=f"a whole {source.format} file",
            found=found,
            way_out=way_out,
        ) from error


def _csv_fault(path: str, delimiter: str) -> tuple[int, str, str] | None:
    """Return the line where a CSV file breaks off, what is wrong there, and the way out."""
    opened = gzip.open if path.endswith(".gz") else open
    before, line = csv.field_size_limit(LINE_BYTES), 0
    try:
        with opened(path, "rb") as content:
            for raw in content:
                line += 1
                raw.decode("utf-8")
        line = 0
        with opened(path, "rt", encoding="utf-8-sig", newline="") as text:
            rows = csv.reader(text, delimiter=delimiter, strict=True)
            header = next(rows, [])
            for row in rows:
                line = rows.line_num
                if row and len(row) != len(header):
                    found = f"{len(row)} fields, where the header has {len(header)}"
                    return line, found, f"mend the line; a value with {delimiter!r} is quoted"
    except UnicodeDecodeError as error:
        return line, f"bytes that are not UTF-8 ({error.reason})", "write the file in UTF-8"
    except csv.Error as error:
        is_long = "limit" in str(error)
        found = f"a field of over {LINE_BYTES:,} bytes" if is_long else str(error)
        return line + 1, found, "mend the line; a quoted value is closed, a quote in it doubled"
    except (OSError, EOFError) as error:
        return line + 1, str(error), REDELIVER
    finally:
        csv.field_size_limit(before)
    return None
