"""Source files as they are delivered: found, readable, of the declared schema; read as SQL.

Every problem is an error that names file, column, expected and found. A format is its functions
here and a line in FORMATS. What follows from the rows is lifecycle/ingest's.
"""

import glob
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlops_pipeline.config.tables import ColumnType, Source
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import MachineError, SourceError, masked, nearest_name, shape
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
INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
ZONED = {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"}
TIMES = {"DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", *ZONED}
PARQUET_TYPES: dict[ColumnType, set[str]] = {  # what loses nothing when it is read as the type
    "string": {"VARCHAR"},
    "int64": INTEGERS,
    "float64": INTEGERS | {"FLOAT", "DOUBLE", "DECIMAL"},
    "boolean": {"BOOLEAN"},
    "timestamp": TIMES,
    "date": TIMES,
}
NO_VALUE = '"NULL"'  # a column without a single value has no type of its own in some writers
TESTED = 100  # columns of a CSV file in one pass; planning a query of thousands takes longer
FILE_ROWS = 2**40  # more than a file has
REDELIVER = "deliver the file again; nothing of it was ingested"
Columns = Mapping[str, str]  # {column: SQL type}


@dataclass(frozen=True)
class Format:
    """One format of source files; its checks raise a SourceError.

    `scan` is the FROM item that reads files with their columns as they are, `place` SQL that orders
    its rows as they were delivered, `read` SQL of a column as its declared type, NULL where the
    value is missing. `check_columns` is of one file's names
    and types, `check_values` of all files; values of hidden columns are never shown.
    """

    scan: Callable[[Source, Sequence[str]], str]
    place: str
    read: Callable[[Source, str, Columns], str]
    check_columns: Callable[[str, Source, str, Columns], None]
    check_values: Callable[[Engine, Source, Mapping[str, Columns], frozenset[str]], None]


@dataclass(frozen=True)
class Delivery:
    """The files of a source and the SQL that reads them as the declared columns.

    `placed` reads `_place` too, which orders the rows as they stand: by file, then row; the engine
    has to `keep_order` for it.
    """

    files: tuple[str, ...]
    select: str
    placed: str


def open_delivery(engine: Engine, settings: Settings, use_case: UseCase, name: str) -> Delivery:
    """Check every file of a source and return how to read them."""
    source = use_case.sources[name]
    kind = FORMATS[source.format]
    files = find_files(settings, name, source)
    described = {path: _describe(engine, kind, source, path) for path in files}
    for path in files:
        version = "remote"  # what tells two deliveries of a file apart without reading it
        if "://" not in path:
            facts = Path(path).stat()
            written = datetime.fromtimestamp(facts.st_mtime, UTC).isoformat()
            version = f"{facts.st_size} bytes, {written}"
        engine.reads.setdefault(path, set()).add(version)
    for path, columns in described.items():
        kind.check_columns(name, source, path, columns)
    kind.check_values(engine, source, described, use_case.hidden_columns(name))
    with readable(source, ", ".join(files)):
        types = engine.columns(kind.scan(source, files))
    read = {
        column: kind.read(source, column, types)
        if column in types
        else f"CAST(NULL AS {SQL_TYPES[source.column(column).type]})"
        for column in source.columns
    }
    values = {column: read.get(column, "TIMESTAMP '1970-01-01'") for column in source.stored}
    fields = ", ".join(f"{value} AS {quoted(column)}" for column, value in values.items())
    rows = f"FROM {kind.scan(source, files)}"
    placed = f"SELECT {fields}, {kind.place} AS _place {rows}"
    return Delivery(files, f"SELECT {fields} {rows}", placed)


def find_files(settings: Settings, name: str, source: Source) -> tuple[str, ...]:
    """Return the files of a source, in order of name; SourceError when there is none."""
    if "://" in source.uri:
        return (source.uri,)
    path = settings.data_dir / source.uri
    if path.is_file():
        return (str(path),)
    where = str(path / f"*.{source.format}") if path.is_dir() else str(path)
    files = sorted(glob.glob(where))  # noqa: PTH207 # the pattern may be absolute
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


@contextmanager
def readable(source: Source, where: str) -> Iterator[None]:
    """Raise a SourceError that names the file in place of whatever DuckDB says while it reads."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise MachineError.of(error) or SourceError(
            f"the file cannot be read as {source.format}",
            where=where,
            expected=f"a whole {source.format} file",
            found=masked(str(error)),
            way_out=REDELIVER,
        ) from error


def _describe(engine: Engine, kind: Format, source: Source, path: str) -> dict[str, str]:
    if Path(path).exists() and Path(path).stat().st_size == 0:
        raise SourceError(
            "the file is empty (0 bytes)",
            where=path,
            expected=f"a {source.format} file with the columns {', '.join(source.columns)}",
            found="0 bytes",
            way_out=REDELIVER,
        )
    with readable(source, path):
        found = engine.columns(kind.scan(source, [path]))
    return {name: re.sub(r"\(.*\)$", "", base) for name, base in found.items()}


def _check_names(name: str, source: Source, path: str, found: Columns) -> None:
    """Refuse a file that lacks a declared column, or has another one."""
    extra = [column for column in found if column not in source.columns]
    for column in source.columns:
        if column in found or source.column(column).optional:
            continue
        near = nearest_name(column, extra)
        renamed = f"a column {near!r} that is not declared (renamed?)"
        raise SourceError(
            f"source {name}: a declared column is missing",
            where=f"{path}: column {column!r}",
            expected=f"{column} ({source.column(column).type})",
            found=renamed if near else f"the columns {', '.join(found)}",
            way_out=f"mend the delivery, or sources.{name}.columns: take the column out, or say "
            "`optional: true` of one that only some files have (docs/runbook.md#a-source-changes)",
        )
    if extra:
        raise SourceError(
            f"source {name}: a column is not declared",
            where=f"{path}: column {extra[0]!r} ({found[extra[0]]})",
            expected=f"the columns {', '.join(source.columns)}",
            found=f"{len(extra)} more: {', '.join(extra[:10])}",
            way_out=f"add it to sources.{name}.columns, or take it out of the delivery",
        )


def _mixed_zones(column: str, found: str) -> SourceError:
    return SourceError(
        "times with and without a time zone are mixed",
        where=f"column {column!r}",
        expected="all with a zone, or all without (then UTC)",
        found=found,
        way_out="write one kind; a time without a zone cannot be told from a local one",
    )


def _of_type(source: Source, kind: ColumnType) -> list[str]:
    return [column for column in source.columns if source.column(column).type == kind]


def stored_type(source: Source, column: str) -> str:
    """Return the SQL type of a column as the lake keeps it."""
    return SQL_TYPES[source.column(column).type] if column in source.columns else "TIMESTAMP"


# values that are text


def text_fits(field: str, kind: ColumnType) -> str:
    """Return SQL for whether a text is of a type."""
    fits = f"TRY_CAST({field} AS {SQL_TYPES[kind]}) IS NOT NULL"
    if kind == "int64":  # a cast would round 1.5 to 2 without a word
        fits += f" AND regexp_full_match(trim({field}), '[-+]?[0-9]+')"
    return fits


def text_as(field: str, kind: ColumnType) -> str:
    """Return SQL of a text as a value of a type; blanks are a missing value, except as text."""
    if kind == "string":
        return field
    text = f"nullif(trim({field}), '')"
    if kind == "timestamp":  # a text with a zone is moved to UTC, one without is UTC
        text = f"CAST({text} AS TIMESTAMPTZ)"
    return value_as(text, kind)


def value_as(field: str, kind: ColumnType) -> str:
    """Return SQL of a value as its declared type; a date is its day, whatever the time in it."""
    return f"CAST({f'CAST({field} AS DATE)' if kind == 'date' else field} AS {SQL_TYPES[kind]})"


def known_at(source: Source, column: str) -> str:
    """Return SQL of when what a time column dates is known: of a date, at the end of its day."""
    end = " + INTERVAL 1 DAY - INTERVAL 1 MICROSECOND" if source.is_day(column) else ""
    return f"({quoted(column)}{end})"


# CSV: everything is text with a header; a missing value is an empty field


def _scan_csv(source: Source, files: Sequence[str]) -> str:
    return (
        f"read_csv({file_list(files)}, delim = {literal(source.delimiter)}, header = true, "
        "all_varchar = true, union_by_name = true)"
    )


def _read_csv(source: Source, column: str, _types: Columns) -> str:
    kind = source.column(column).type
    return text_as(f"nullif({quoted(column)}, '')", kind)


def _check_csv_columns(name: str, source: Source, path: str, found: Columns) -> None:
    if not set(source.columns) & set(found):
        raise SourceError(  # what stands there may be values
            f"source {name}: the file has no header that names a declared column",
            where=path,
            expected=f"a line of {', '.join(source.columns)}, and no line with more fields",
            found=f"{len(found)} fields of other names",
            way_out="deliver the file again with its header; nothing of it was ingested",
        )
    _check_names(name, source, path, found)


def _check_csv_values(
    engine: Engine, source: Source, described: Mapping[str, Columns], hidden: frozenset[str]
) -> None:
    """Look at many columns in one pass of a file: one pass a column would be quadratic."""
    typed = {
        column: f"trim({quoted(column)}) <> '' AND NOT ({text_fits(quoted(column), kind)})"
        for column in source.columns
        if (kind := source.column(column).type) != "string"
    }
    for path in described:
        with readable(source, path):
            tests = {name: test for name, test in typed.items() if name in described[path]}
            counts = _counts(engine, source, [path], tests)
            for column in [name for name, count in counts.items() if count][:1]:
                is_hidden = column in hidden
                _refuse_value(engine, source, path, column, typed[column], is_hidden=is_hidden)
    present_in = frozenset().union(*described.values())
    times = [column for column in _of_type(source, "timestamp") if column in present_in]
    zones = "regexp_matches({0}, '(Z|[+-]\\d\\d(:?\\d\\d)?)$') AND {0} LIKE '%:%'"
    zoned = {column: zones.format(quoted(column)) for column in times}
    present = {column: f"trim({quoted(column)}) <> ''" for column in times}
    rows = _counts(engine, source, list(described), present)
    for column, some in _counts(engine, source, list(described), zoned).items():
        if 0 < some < rows[column]:
            scan = _scan_csv(source, list(described)).removesuffix(")") + ", filename = true)"
            first = engine.query(f"SELECT min(filename) FROM {scan} WHERE {zoned[column]}")[0][0]
            raise _mixed_zones(column, f"{some} of {rows[column]} values have one ({first})")


def _counts(
    engine: Engine, source: Source, files: Sequence[str], tests: Mapping[str, str]
) -> dict[str, int]:
    """Return {column: rows of CSV files that satisfy its test}."""
    found: dict[str, int] = {}
    names = list(tests)
    for start in range(0, len(names), TESTED):
        block = names[start : start + TESTED]
        counts = ", ".join(f"count(*) FILTER ({tests[name]})" for name in block)
        row = engine.query(f"SELECT {counts} FROM {_scan_csv(source, files)}")[0]
        found |= zip(block, row, strict=True)
    return found


def _refuse_value(
    engine: Engine, source: Source, path: str, column: str, bad: str, *, is_hidden: bool
) -> None:
    value, count = engine.query(
        f"SELECT {quoted(column)}, count(*) OVER () FROM {_scan_csv(source, [path])} "
        f"WHERE {bad} LIMIT 1"
    )[0]
    shown = f"a value like {shape(value)}" if is_hidden else repr(value)
    raise SourceError(
        "a column holds values of another type",
        where=f"{path}: column {column!r}",
        expected=source.column(column).type,
        found=f"{shown} ({count} such values)",
        way_out="mend the delivery, or the type of the column in the configuration; "
        "a missing value is an empty field",
    )


# Parquet: columns have types, which have to hold the declared ones without loss


def _scan_parquet(_source: Source, files: Sequence[str]) -> str:
    return f"read_parquet({file_list(files)}, union_by_name = true)"


def _read_parquet(source: Source, column: str, types: Columns) -> str:
    field = quoted(column)
    if types[column].endswith("_NS"):  # cut off, never rounded up: no row is known later or earlier
        nanos = f"epoch_ns({field})"
        field = f"make_timestamp(({nanos} - ({nanos} % 1000 + 1000) % 1000) // 1000)"
    return value_as(field, source.column(column).type)


def _check_parquet_columns(name: str, source: Source, path: str, found: Columns) -> None:
    _check_names(name, source, path, found)
    for column in [column for column in source.columns if column in found]:
        kind = source.column(column).type
        base = "DECIMAL" if found[column].startswith("DECIMAL") else found[column]
        if base not in PARQUET_TYPES[kind] and base != NO_VALUE:
            raise SourceError(
                f"source {name}: a column has another type",
                where=f"{path}: column {column!r}",
                expected=f"{kind} (read from {', '.join(sorted(PARQUET_TYPES[kind]))})",
                found=found[column],
                way_out=f"mend the delivery, or sources.{name}.columns.{column}",
            )


def _check_parquet_values(
    _engine: Engine, source: Source, described: Mapping[str, Columns], _hidden: frozenset[str]
) -> None:
    for column in _of_type(source, "timestamp"):
        zoned = [path for path, columns in described.items() if columns.get(column) in ZONED]
        if zoned and len(zoned) < len(described):
            other = next(path for path in described if path not in zoned)
            raise _mixed_zones(column, f"a zone in {zoned[0]}, none in {other}")


FORMATS: Mapping[str, Format] = {
    "csv": Format(
        *(_scan_csv, "row_number() OVER ()", _read_csv, _check_csv_columns, _check_csv_values)
    ),
    "parquet": Format(
        *(_scan_parquet, f"file_index * {FILE_ROWS} + file_row_number", _read_parquet),
        *(_check_parquet_columns, _check_parquet_values),
    ),
}
