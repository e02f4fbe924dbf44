"""The rows that historical features are asked for: checked, numbered, in DuckDB's types.

Belongs here: what a frame of entities and moments has to be. What is answered is history.py's.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.periods import Period
from mlops_pipeline.core.features.frames import EVENT_ROW
from mlops_pipeline.errors import DataError
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.stores.lake.engine import quoted

FRACTIONAL = ("FLOAT", "DOUBLE")
WHOLE = ("BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UINTEGER", "USMALLINT", "UTINYINT")


def register_asked(context: Context, use_case: UseCase) -> list[str]:
    """Make `_asked`: the input with a number of each row; return its other columns.

    They stand under their own names for request-time features, and as `_kept_<n>` for the answer.
    """
    engine, key = context.engine, use_case.entity.key
    types = {row[0]: str(row[1]) for row in engine.query("DESCRIBE _asked_input")}
    _check_columns(use_case, types)
    kind = use_case.sources[use_case.population.source].column(key).type
    cast = {"int64": "BIGINT", "string": "VARCHAR"}[kind]
    if kind == "int64" and types[key] not in WHOLE:  # those need no look at every row
        _check_numbers(context, key, types[key])
    as_of = "as_of::TIMESTAMP"
    if "TIME ZONE" in types["as_of"] or "TIMESTAMPTZ" in types["as_of"]:  # of nanoseconds: TZ
        as_of = "as_of::TIMESTAMPTZ AT TIME ZONE 'UTC'"
    kept = [name for name in types if name not in (key, "as_of", EVENT_ROW)]
    read = use_case.request_columns
    columns = "".join(f", {quoted(name)} AS _kept_{index}" for index, name in enumerate(kept))
    columns += "".join(f", {quoted(name)}" for name in kept if name in read)
    engine.sql.execute(
        f"CREATE TEMP TABLE _asked AS SELECT {quoted(key)}::{cast} AS {quoted(key)}, "
        f"{as_of} AS as_of, row_number() OVER () - 1 AS {EVENT_ROW}{columns} FROM _asked_input"
    )
    return kept


def _check_numbers(context: Context, key: str, kind: str) -> None:
    """Refuse keys that are no whole numbers: cast, they would be the keys of others."""
    name = quoted(key)
    unlike = f"{name} IS NOT NULL AND (TRY_CAST({name} AS BIGINT) IS NULL"
    if kind in FRACTIONAL:
        unlike += f" OR NOT isfinite({name}) OR {name} <> trunc({name})"
    elif kind.startswith("DECIMAL"):
        unlike += f" OR {name} <> trunc({name})"
    count = context.engine.query(f"SELECT count(*) FILTER ({unlike})) FROM _asked_input")[0][0]
    if count:
        raise DataError(
            "an entity's key is no whole number",
            where=key,
            expected="whole numbers, as the sources have",
            found=f"{count:,} others",  # the keys themselves may be personal
        )


def _check_columns(use_case: UseCase, types: Mapping[str, str]) -> None:
    needed = {use_case.entity.key, "as_of", *use_case.request_columns}
    missing = sorted(needed - set(types))
    if missing:
        raise DataError(
            "the rows lack a column",
            where=", ".join(missing),
            expected="the entity key, as_of, and what request-time features read",
            found=", ".join(types),
        )
    if not types["as_of"].startswith(("TIMESTAMP", "DATE")):
        raise DataError(
            "as_of is no time", where="as_of", expected="timestamps (UTC)", found=types["as_of"]
        )


def asked_period(context: Context, use_case: UseCase) -> tuple[int, Period]:
    """Return how many rows are asked for, and the period of their moments."""
    key = quoted(use_case.entity.key)
    rows, first, last, nulls = context.engine.query(
        f"SELECT count(*), min(as_of), max(as_of), "
        f"count(*) FILTER (as_of IS NULL OR {key} IS NULL) FROM _asked"
    )[0]
    now = context.settings.now()
    if nulls:
        raise DataError("rows lack their entity or as_of", where="rows", found=f"{nulls:,} rows")
    if rows and last.replace(tzinfo=UTC) > now:
        raise DataError(
            "an as_of is in the future",
            expected=f"at most {now.isoformat()}",
            found=last.isoformat(),
        )
    start = first.replace(tzinfo=UTC) if rows else datetime(1970, 1, 1, tzinfo=UTC)
    end = (last.replace(tzinfo=UTC) if rows else start) + timedelta(microseconds=1)
    return int(rows), Period(start, end)
