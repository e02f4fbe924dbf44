"""What a format of source files is: how it is read as SQL, and what is checked before.

A format is one file beside this one and one line in files.FORMATS.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mlops_pipeline.config.tables import ColumnType, Source
from mlops_pipeline.errors import SourceError, masked, nearest_name
from mlops_pipeline.stores.lake.engine import Engine

SQL_TYPES: dict[ColumnType, str] = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMP",
    "date": "TIMESTAMP",
}
Columns = Mapping[str, str]  # {column: SQL type}


@dataclass(frozen=True)
class Format:
    """One format of source files; its checks raise a SourceError.

    Attributes
    ----------
    scan : (source, files) -> str
        The FROM item that reads files with their columns as they are.
    read : (source, column) -> str
        SQL of a column as its declared type; NULL where the value is missing.
    check_columns : (name of the source, source, file, {column: SQL type}) -> None
        Of one file: `check_names`, and what the format knows of types.
    check_values : (engine, source, {file: {column: SQL type}}, hidden columns) -> None
        Of all files; values of hidden columns are never shown.
    """

    scan: Callable[[Source, Sequence[str]], str]
    read: Callable[[Source, str], str]
    check_columns: Callable[[str, Source, str, Columns], None]
    check_values: Callable[[Engine, Source, Mapping[str, Columns], frozenset[str]], None]


def check_names(name: str, source: Source, path: str, found: Columns) -> None:
    """Refuse a file that lacks a declared column, or has another one."""
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


@contextmanager
def readable(source: Source, where: str) -> Iterator[None]:
    """Raise a SourceError that names the file in place of whatever DuckDB says while it reads."""
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


def mixed_zones(column: str, found: str) -> SourceError:
    """Return the error of a column whose times have a zone in some places only."""
    return SourceError(
        "times with and without a time zone are mixed",
        where=f"column {column!r}",
        expected="all with a zone, or all without (then UTC)",
        found=found,
        way_out="write one kind; a time without a zone cannot be told from a local one",
    )
