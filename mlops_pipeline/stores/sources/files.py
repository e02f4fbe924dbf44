"""Reading source files as they are delivered: found, readable, of the declared schema.

Every problem is an error that names file, column, expected and found; ingestion.py does what
follows.
"""

import glob
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlops_pipeline.config.privacy import hidden_columns
from mlops_pipeline.config.tables import ColumnType, Source
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import SourceError, masked, nearest_name, shape
from mlops_pipeline.stores.lake.engine import Engine, file_list, literal, quoted
from mlops_pipeline.stores.settings import Settings

SQL_TYPES: dict[ColumnType, str] = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMP",
    "date": "TIMESTAMP",
}
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
_NUMBERS = _INTEGERS | {"FLOAT", "DOUBLE"}
_ZONED = "TIMESTAMP WITH TIME ZONE"
_TIMES = {"DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", _ZONED}
_ACCEPTED: dict[ColumnType, set[str]] = {  # what loses nothing when it is read as the type
    "string": {"VARCHAR"},
    "int64": _INTEGERS,
    "float64": _NUMBERS,
    "boolean": {"BOOLEAN"},
    "timestamp": _TIMES,
    "date": _TIMES,
}


@dataclass(frozen=True)
class Delivery:
    """The files of a source and the SQL that reads them as the declared columns."""

    files: tuple[str, ...]
    select: str


def open_delivery(engine: Engine, settings: Settings, use_case: UseCase, name: str) -> Delivery:
    """Check every file of a source and return how to read them.

    Raises
    ------
    SourceError
        For a missing or unreadable file and for a column that is missing, unexpected, of another
        type, or mixes times with and without a zone.
    """
    source = use_case.sources[name]
    files = find_files(settings, name, source)
    described = {path: _describe(engine, source, path) for path in files}
    for path in files:
        engine.reads.setdefault(path, set()).add(_file_version(path))
    for path, columns in described.items():
        _check_columns(name, source, path, columns)
    if source.format == "csv":
        hidden = hidden_columns(use_case, name)
        for path in files:
            _check_csv_values(engine, source, path, hidden)
        _check_csv_zones(engine, source, files)
    else:
        _check_zones(source, described)
    scan = _scan(source, files)
    fields = ", ".join(f"{_read(source, column)} AS {quoted(column)}" for column in source.columns)
    return Delivery(files, f"SELECT {fields} FROM {scan}")


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


def _scan(source: Source, files: Sequence[str], *, named: bool = False) -> str:
    names = file_list(files)
    if source.format == "csv":
        return (
            f"read_csv({names}, delim = {literal(source.delimiter)}, header = true, "
            f"all_varchar = true, union_by_name = true{', filename = true' if named else ''})"
        )
    return f"read_parquet({names}, union_by_name = true)"


def _describe(engine: Engine, source: Source, path: str) -> dict[str, str]:
    if Path(path).exists() and Path(path).stat().st_size == 0:
        raise SourceError(
            "the file is empty (0 bytes)",
            where=path,
            expected=f"a {source.format} file with the columns {', '.join(source.columns)}",
            found="0 bytes",
            way_out="deliver the file again; nothing of it was ingested",
        )
    with readable(source, path):
        rows = engine.query(f"DESCRIBE SELECT * FROM {_scan(source, [path])}")
    return {str(row[0]): re.sub(r"\(.*\)$", "", str(row[1])) for row in rows}


@contextmanager
def readable(source: Source, where: str) -> Iterator[None]:
    """Name the file in whatever DuckDB says while it reads one.

    Raises
    ------
    SourceError
        When it cannot be read to the end as the source's format.
    """
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise SourceError(
            f"the file cannot be read as {source.format}",
            where=where,
            expected=f"a whole {source.format} file",
            found=masked(str(error)),
            way_out="deliver the file again; nothing of it was ingested",
        ) from error


def _check_columns(name: str, source: Source, path: str, found: dict[str, str]) -> None:
    if source.format == "csv" and not set(source.columns) & set(found):
        raise SourceError(  # what stands there may be values
            f"source {name}: the file has no header that names a declared column",
            where=path,
            expected=f"a line of {', '.join(source.columns)}, and no line with more fields",
            found=f"{len(found)} fields of other names",
            way_out="deliver the file again with its header; nothing of it was ingested",
        )
    missing = [column for column in source.columns if column not in found]
    extra = [column for column in found if column not in source.columns]
    for column in missing:
        near = nearest_name(column, extra)
        raise SourceError(
            f"source {name}: a declared column is missing",
            where=f"{path}: column {column!r}",
            expected=f"{column} ({source.column(column).type})",
            found=f"a column {near!r} that is not declared (renamed?)"
            if near
            else f"the columns {', '.join(found)}",
            way_out=f"mend the delivery, or sources.{name}.columns",
        )
    if extra:
        raise SourceError(
            f"source {name}: a column is not declared",
            where=f"{path}: column {extra[0]!r} ({found[extra[0]]})",
            expected=f"the columns {', '.join(source.columns)}",
            found=f"{len(extra)} more: {', '.join(extra[:10])}",
            way_out=f"add it to sources.{name}.columns, or take it out of the delivery",
        )
    if source.format == "csv":
        return
    for column in source.columns:
        kind = source.column(column).type
        base = "DECIMAL" if found[column].startswith("DECIMAL") else found[column]
        accepted = _ACCEPTED[kind] | ({"DECIMAL"} if kind == "float64" else set())
        # a column without a single value has no type of its own in some writers
        if base not in accepted and base != '"NULL"':
            raise SourceError(
                f"source {name}: a column has another type",
                where=f"{path}: column {column!r}",
                expected=f"{kind} (read from {', '.join(sorted(accepted))})",
                found=found[column],
                way_out=f"mend the delivery, or sources.{name}.columns.{column}",
            )


def _check_csv_values(engine: Engine, source: Source, path: str, hidden: frozenset[str]) -> None:
    scan = _scan(source, [path])
    for column in source.columns:
        kind = source.column(column).type
        field = quoted(column)
        if kind != "string":
            with readable(source, path):
                bad = engine.query(
                    f"SELECT {field}, count(*) OVER () FROM {scan} WHERE trim({field}) <> '' "
                    f"AND NOT ({_is_readable(field, kind)}) LIMIT 1"
                )
            if bad:
                value = f"a value like {shape(bad[0][0])}" if column in hidden else repr(bad[0][0])
                raise SourceError(
                    "a column holds values of another type",
                    where=f"{path}: column {column!r}",
                    expected=kind,
                    found=f"{value} ({bad[0][1]} such values)",
                    way_out="mend the delivery, or the type of the column in the configuration; "
                    "a missing value is an empty field",
                )


def _check_csv_zones(engine: Engine, source: Source, files: tuple[str, ...]) -> None:
    for column in source.columns:
        if source.column(column).type != "timestamp":
            continue
        field = quoted(column)
        zoned = f"regexp_matches({field}, '(Z|[+-]\\d\\d(:?\\d\\d)?)$') AND {field} LIKE '%:%'"
        some, rows, first = engine.query(
            f"SELECT count(*) FILTER ({zoned}), count(nullif(trim({field}), '')), "
            f"min(filename) FILTER ({zoned}) "
            f"FROM {_scan(source, files, named=True)}"
        )[0]
        if 0 < some < rows:
            raise _mixed_zones(f"column {column!r}", f"{some} of {rows} values have one ({first})")


def _is_readable(field: str, kind: ColumnType) -> str:
    readable = f"TRY_CAST({field} AS {SQL_TYPES[kind]}) IS NOT NULL"
    if kind == "int64":  # a cast would round 1.5 to 2 without a word
        return f"{readable} AND regexp_full_match(trim({field}), '[-+]?[0-9]+')"
    return readable


def _check_zones(source: Source, described: dict[str, dict[str, str]]) -> None:
    for column in source.columns:
        if source.column(column).type != "timestamp":
            continue
        zoned = [path for path, columns in described.items() if columns[column] == _ZONED]
        if zoned and len(zoned) < len(described):
            other = next(path for path in described if path not in zoned)
            raise _mixed_zones(f"column {column!r}", f"a zone in {zoned[0]}, none in {other}")


def _mixed_zones(where: str, found: str) -> SourceError:
    return SourceError(
        "times with and without a time zone are mixed",
        where=where,
        expected="all with a zone, or all without (then UTC)",
        found=found,
        way_out="write one kind; a time without a zone cannot be told from a local one",
    )


def _read(source: Source, column: str) -> str:
    kind = source.column(column).type
    field = quoted(column)
    if source.format == "csv":
        if kind == "string":
            return f"nullif({field}, '')"
        through = f"CAST(nullif(trim({field}), '') AS "
        if kind == "timestamp":  # a text with a zone is moved to UTC, one without is UTC
            return f"CAST({through}TIMESTAMPTZ) AS TIMESTAMP)"
        return f"{through}{SQL_TYPES[kind]})"
    return f"CAST({field} AS {SQL_TYPES[kind]})"
