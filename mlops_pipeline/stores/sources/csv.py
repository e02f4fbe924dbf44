"""CSV files: everything is text with a header; a missing value is an empty field."""

from collections.abc import Mapping, Sequence

from mlops_pipeline.config.tables import ColumnType, Source
from mlops_pipeline.errors import SourceError, shape
from mlops_pipeline.stores.lake.engine import Engine, file_list, literal, quoted
from mlops_pipeline.stores.sources.interface import (
    SQL_TYPES,
    Columns,
    Format,
    check_names,
    mixed_zones,
    readable,
)


def _scan(source: Source, files: Sequence[str]) -> str:
    return (
        f"read_csv({file_list(files)}, delim = {literal(source.delimiter)}, header = true, "
        "all_varchar = true, union_by_name = true)"
    )


def _read(source: Source, column: str) -> str:
    kind = source.column(column).type
    field = quoted(column)
    if kind == "string":
        return f"nullif({field}, '')"
    through = f"CAST(nullif(trim({field}), '') AS "
    if kind == "timestamp":  # a text with a zone is moved to UTC, one without is UTC
        return f"CAST({through}TIMESTAMPTZ) AS TIMESTAMP)"
    return f"{through}{SQL_TYPES[kind]})"


def _check_columns(name: str, source: Source, path: str, found: Columns) -> None:
    if not set(source.columns) & set(found):
        raise SourceError(  # what stands there may be values
            f"source {name}: the file has no header that names a declared column",
            where=path,
            expected=f"a line of {', '.join(source.columns)}, and no line with more fields",
            found=f"{len(found)} fields of other names",
            way_out="deliver the file again with its header; nothing of it was ingested",
        )
    check_names(name, source, path, found)


def _check_values(
    engine: Engine, source: Source, described: Mapping[str, Columns], hidden: frozenset[str]
) -> None:
    for path in described:
        _check_types(engine, source, path, hidden)
    for column in source.columns:
        if source.column(column).type == "timestamp":
            _check_zones(engine, source, list(described), column)


def _check_types(engine: Engine, source: Source, path: str, hidden: frozenset[str]) -> None:
    for column in source.columns:
        kind, field = source.column(column).type, quoted(column)
        if kind == "string":
            continue
        with readable(source, path):
            bad = engine.query(
                f"SELECT {field}, count(*) OVER () FROM {_scan(source, [path])} "
                f"WHERE trim({field}) <> '' AND NOT ({_is_of(kind, field)}) LIMIT 1"
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


def _check_zones(engine: Engine, source: Source, files: Sequence[str], column: str) -> None:
    field = quoted(column)
    zoned = f"regexp_matches({field}, '(Z|[+-]\\d\\d(:?\\d\\d)?)$') AND {field} LIKE '%:%'"
    scan = _scan(source, files).removesuffix(")") + ", filename = true)"
    some, rows, first = engine.query(
        f"SELECT count(*) FILTER ({zoned}), count(nullif(trim({field}), '')), "
        f"min(filename) FILTER ({zoned}) FROM {scan}"
    )[0]
    if 0 < some < rows:
        raise mixed_zones(column, f"{some} of {rows} values have one ({first})")


def _is_of(kind: ColumnType, field: str) -> str:
    readable_as = f"TRY_CAST({field} AS {SQL_TYPES[kind]}) IS NOT NULL"
    if kind == "int64":  # a cast would round 1.5 to 2 without a word
        return f"{readable_as} AND regexp_full_match(trim({field}), '[-+]?[0-9]+')"
    return readable_as


CSV = Format(_scan, _read, _check_columns, _check_values)
