"""Parquet files: columns have types, which have to hold the declared ones without loss."""

from collections.abc import Mapping, Sequence

from mlops_pipeline.config.tables import ColumnType, Source
from mlops_pipeline.errors import SourceError
from mlops_pipeline.stores.lake.engine import Engine, file_list, quoted
from mlops_pipeline.stores.sources.interface import (
    SQL_TYPES,
    Columns,
    Format,
    check_names,
    mixed_zones,
)

INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
ZONED = "TIMESTAMP WITH TIME ZONE"
TIMES = {"DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", ZONED}
ACCEPTED: dict[ColumnType, set[str]] = {  # what loses nothing when it is read as the type
    "string": {"VARCHAR"},
    "int64": INTEGERS,
    "float64": INTEGERS | {"FLOAT", "DOUBLE", "DECIMAL"},
    "boolean": {"BOOLEAN"},
    "timestamp": TIMES,
    "date": TIMES,
}
NO_VALUE = '"NULL"'  # a column without a single value has no type of its own in some writers


def _scan(_source: Source, files: Sequence[str]) -> str:
    return f"read_parquet({file_list(files)}, union_by_name = true)"


def _read(source: Source, column: str) -> str:
    return f"CAST({quoted(column)} AS {SQL_TYPES[source.column(column).type]})"


def _check_columns(name: str, source: Source, path: str, found: Columns) -> None:
    check_names(name, source, path, found)
    for column in source.columns:
        kind = source.column(column).type
        base = "DECIMAL" if found[column].startswith("DECIMAL") else found[column]
        if base not in ACCEPTED[kind] and base != NO_VALUE:
            raise SourceError(
                f"source {name}: a column has another type",
                where=f"{path}: column {column!r}",
                expected=f"{kind} (read from {', '.join(sorted(ACCEPTED[kind]))})",
                found=found[column],
                way_out=f"mend the delivery, or sources.{name}.columns.{column}",
            )


def _check_values(
    _engine: Engine, source: Source, described: Mapping[str, Columns], _hidden: frozenset[str]
) -> None:
    for column in source.columns:
        if source.column(column).type != "timestamp":
            continue
        zoned = [path for path, columns in described.items() if columns[column] == ZONED]
        if zoned and len(zoned) < len(described):
            other = next(path for path in described if path not in zoned)
            raise mixed_zones(column, f"a zone in {zoned[0]}, none in {other}")


PARQUET = Format(_scan, _read, _check_columns, _check_values)
