"""Source files as they are delivered: of the declared schema, and read as SQL.

Every problem is an error that names file, column, expected and found. A format is its functions
here, a line in FORMATS and its endings in `config/tables.py`. Which files there are is
source_files.py's, what follows from the rows lifecycle/ingest's.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlops_pipeline.config.tables import ColumnType, Source
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import SourceError, nearest_name, shape
from mlops_pipeline.stores.lake.engine import Engine, file_list, literal, quoted
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline.stores.source_files import (
    REDELIVER,
    Found,
    delivered_version,
    find_files,
    leave_out_copies,
    readable,
)

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
FILE = "_file"  # the column with the name of the file, beside those in it
FOLDER = "FOLDER"  # the type of a column whose values are in names of folders, as text
TESTED = 100  # columns in one pass; planning a query of thousands takes longer
FILE_ROWS = 2**40  # more than a file has
Columns = Mapping[str, str]  # {column: SQL type}
Described = Mapping[str, Columns]  # {path: its columns}


@dataclass(frozen=True)
class Format:
    """One format of source files; its checks raise a SourceError, without hidden values."""

    scan: Callable[[Source, Found], str]  # the FROM item of files with their columns as they are
    place: str  # SQL that orders its rows as they were delivered
    read: Callable[[Source, str, Columns], str]  # SQL of a column as its type; NULL: missing
    check_columns: Callable[[str, Source, str, Columns], None]  # of one file
    check_values: Callable[[Engine, Source, str, Described, frozenset[str]], None]  # of all rows


@dataclass(frozen=True)
class Delivery:
    """The files of a source and the SQL that reads them; `placed` has `_place`, their order."""

    found: Found
    select: str
    placed: str


def open_delivery(engine: Engine, settings: Settings, use_case: UseCase, name: str) -> Delivery:
    """Check every file of a source and return how to read them."""
    source = use_case.sources[name]
    kind = FORMATS[source.format]
    found = leave_out_copies(find_files(settings, name, source))
    for path in found.paths:
        with readable(source, [path]):
            is_table = source.format == "delta"
            version = engine.attach(path) if is_table else delivered_version(path)
        engine.reads.setdefault(path, set()).add(version)
    described = {path: _describe(engine, kind, source, found.only(path)) for path in found.paths}
    for path, columns in described.items():
        kind.check_columns(name, source, path, columns)
    scan = kind.scan(source, found)
    with readable(source, found.paths):
        if source.format == "csv":  # parsed once, however often its rows are looked at
            engine.create_table(f"_csv_{name}", f"SELECT * FROM {scan}")
            scan = quoted(f"_csv_{name}")
        kind.check_values(engine, source, scan, described, use_case.hidden_columns(name))
        types = engine.columns(scan) | dict.fromkeys(found.partitions, FOLDER)
    read = {
        column: kind.read(source, column, types)
        if column in types
        else f"CAST(NULL AS {SQL_TYPES[source.column(column).type]})"
        for column in source.columns
    }
    values = {column: read.get(column, "TIMESTAMP '1970-01-01'") for column in source.stored}
    fields = ", ".join(f"{value} AS {quoted(column)}" for column, value in values.items())
    placed = f"SELECT {fields}, {kind.place} AS _place FROM {scan}"
    return Delivery(found, f"SELECT {fields} FROM {scan}", placed)


def _describe(engine: Engine, kind: Format, source: Source, found: Found) -> dict[str, str]:
    (path,) = found.paths
    if Path(path).stat().st_size == 0:
        raise SourceError(
            "the file is empty (0 bytes)",
            where=path,
            expected=f"a {source.format} file with the columns {', '.join(source.columns)}",
            found="0 bytes",
            way_out=REDELIVER,
        )
    with readable(source, found.paths):
        columns = engine.columns(kind.scan(source, found))
    columns.pop(FILE, None)
    types = {name: re.sub(r"\(.*\)$", "", base) for name, base in columns.items()}
    return types | dict.fromkeys(found.partitions, FOLDER)


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


def _scan_csv(source: Source, found: Found) -> str:
    """Return how to read CSV as RFC 4180 has it: nothing but the columns is guessed."""
    return (
        f"read_csv({file_list(found.paths)}, delim = {literal(source.delimiter)}, header = true, "
        "all_varchar = true, quote = '\"', escape = '\"', comment = '', "
        f"skip = 0, {_paths(found)})"
    )


def _paths(found: Found) -> str:
    is_partitioned = str(bool(found.partitions)).lower()
    return (
        f"union_by_name = true, hive_partitioning = {is_partitioned}, hive_types_autocast = false, "
        f"filename = '{FILE}'"
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
    engine: Engine, source: Source, scan: str, described: Described, hidden: frozenset[str]
) -> None:
    present = frozenset().union(*described.values())
    _check_texts(engine, source, scan, present, hidden)
    times = [column for column in _of_type(source, "timestamp") if column in present]
    zone = "regexp_matches(trim({0}), '(Z|[+-]\\d\\d(:?\\d\\d)?|[A-Za-z_/]+)$') AND {0} LIKE '%:%'"
    zoned = {column: zone.format(quoted(column)) for column in times}
    rows = _counts(engine, scan, {column: f"trim({quoted(column)}) <> ''" for column in times})
    for column, some in _counts(engine, scan, zoned).items():
        if 0 < some < rows[column]:
            first = engine.query(f"SELECT min({FILE}) FROM {scan} WHERE {zoned[column]}")[0][0]
            raise _mixed_zones(column, f"{some} of {rows[column]} values have one ({first})")


def _check_texts(
    engine: Engine, source: Source, scan: str, columns: Collection[str], hidden: frozenset[str]
) -> None:
    """Refuse a text that is no value of its column's type."""
    bad = {
        column: f"trim({quoted(column)}) <> '' AND NOT ({text_fits(quoted(column), kind)})"
        for column in source.columns
        if column in columns and (kind := source.column(column).type) != "string"
    }
    for column, count in _counts(engine, scan, bad).items():
        if not count:
            continue
        path, value = engine.query(
            f"SELECT {FILE}, {quoted(column)} FROM {scan} WHERE {bad[column]} ORDER BY ALL LIMIT 1"
        )[0]
        shown = f"a value like {shape(value)}" if column in hidden else repr(value)
        raise SourceError(
            "a column holds values of another type",
            where=f"{path}: column {column!r}",
            expected=source.column(column).type,
            found=f"{shown} ({count} such values)",
            way_out="mend the delivery, or the type of the column in the configuration; "
            "a missing value is an empty field",
        )


def _counts(engine: Engine, scan: str, tests: Mapping[str, str]) -> dict[str, int]:
    counted: dict[str, int] = {}
    names = list(tests)
    for start in range(0, len(names), TESTED):
        block = names[start : start + TESTED]
        counts = ", ".join(f"count(*) FILTER ({tests[name]})" for name in block)
        counted |= zip(block, engine.query(f"SELECT {counts} FROM {scan}")[0], strict=True)
    return counted


# Parquet: columns have types, which have to hold the declared ones without loss


def _scan_parquet(_source: Source, found: Found) -> str:
    return f"read_parquet({file_list(found.paths)}, {_paths(found)})"


def _read_parquet(source: Source, column: str, types: Columns) -> str:
    field = quoted(column)
    if types[column] == FOLDER:
        return text_as(field, source.column(column).type)
    if types[column].endswith("_NS"):  # cut off, never rounded up: no row is known later or earlier
        nanos = f"epoch_ns({field})"
        field = f"make_timestamp(({nanos} - ({nanos} % 1000 + 1000) % 1000) // 1000)"
    return value_as(field, source.column(column).type)


def _check_parquet_columns(name: str, source: Source, path: str, found: Columns) -> None:
    _check_names(name, source, path, found)
    for column in [column for column in source.columns if column in found]:
        kind = source.column(column).type
        base = "DECIMAL" if found[column].startswith("DECIMAL") else found[column]
        if base not in {*PARQUET_TYPES[kind], NO_VALUE, FOLDER}:
            raise SourceError(
                f"source {name}: a column has another type",
                where=f"{path}: column {column!r}",
                expected=f"{kind} (read from {', '.join(sorted(PARQUET_TYPES[kind]))})",
                found=found[column],
                way_out=f"mend the delivery, or sources.{name}.columns.{column}",
            )


def _check_parquet_values(
    engine: Engine, source: Source, scan: str, described: Described, hidden: frozenset[str]
) -> None:
    (columns, *_) = described.values()
    in_names = [column for column, kind in columns.items() if kind == FOLDER]
    _check_texts(engine, source, scan, in_names, hidden)
    for column in _of_type(source, "timestamp"):
        zoned = [path for path, columns in described.items() if columns.get(column) in ZONED]
        if zoned and len(zoned) < len(described):
            other = next(path for path in described if path not in zoned)
            raise _mixed_zones(column, f"a zone in {zoned[0]}, none in {other}")


FORMATS: Mapping[str, Format] = {
    "csv": Format(*(_scan_csv, "rowid", _read_csv, _check_csv_columns, _check_csv_values)),
    "parquet": Format(
        *(_scan_parquet, f"file_index * {FILE_ROWS} + file_row_number", _read_parquet),
        *(_check_parquet_columns, _check_parquet_values),
    ),
    "delta": Format(  # a version of a table, attached under the name of its folder
        *(lambda _, found: quoted(found.paths[0]), "row_number() OVER ()", _read_parquet),
        *(_check_parquet_columns, _check_parquet_values),
    ),
}
