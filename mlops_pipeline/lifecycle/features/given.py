"""The rows whose historical features are asked for: read, checked, numbered, in the sources' types.

A key or a column of a request that is not of its source's type is refused: cast, 17.6 would be the
key of customer 18. What is computed of the rows is history.py's.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mlops_pipeline.config.tables import ColumnType
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.periods import Period
from mlops_pipeline.core.features.frames import EVENT_ROW
from mlops_pipeline.errors import DataError
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.stores.lake.engine import literal, quoted
from mlops_pipeline.stores.sources import PARQUET_TYPES, text_as, text_fits, value_as

GIVEN, ENTITY_ROWS = "_given_rows", "_entity_rows"  # tables
NUMBERS = {"FLOAT", "DOUBLE", "DECIMAL", "UBIGINT", "HUGEINT"}
EXACT = 2**53  # a larger float may have been another whole number


def given_file(context: Context, path: Path) -> str:
    """Return the FROM item of a file of rows; columns with a declared type are text in a CSV."""
    if path.suffix != ".csv":
        return f"read_parquet({literal(str(path))})"
    found = context.engine.columns(f"read_csv({literal(str(path))})")
    texts = [name for name in _declared(context.use_case) if name in found]
    types = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in texts)
    return f"read_csv({literal(str(path))}{f', types = {{{types}}}' if types else ''})"


def register_rows(context: Context) -> list[str]:
    """Make table ENTITY_ROWS: the given rows, numbered; return other columns (`_kept_<n>`)."""
    use_case, engine = context.use_case, context.engine
    key, types, declared = use_case.entity.key, engine.columns(GIVEN), _declared(context.use_case)
    _check_columns(types, {*declared, "as_of"})
    as_of = "as_of::TIMESTAMP"
    if "TIME ZONE" in types["as_of"] or "TIMESTAMPTZ" in types["as_of"]:  # of nanoseconds: TZ
        as_of = "as_of::TIMESTAMPTZ AT TIME ZONE 'UTC'"
    kept = [name for name in types if name not in (key, "as_of", EVENT_ROW)]
    fields = [
        f"{_as_declared(context, name, types[name], kind)} AS {quoted(name)}"
        for name, kind in declared.items()
    ]
    fields += [f"{quoted(name)} AS _kept_{index}" for index, name in enumerate(kept)]
    engine.create_table(
        ENTITY_ROWS,
        f"SELECT {', '.join(fields)}, {as_of} AS as_of, row_number() OVER () - 1 AS {EVENT_ROW} "
        f"FROM {GIVEN}",
    )
    return kept


def rows_and_period(context: Context) -> tuple[int, Period]:
    """Return how many rows are given, and the period of their as_of."""
    key = quoted(context.use_case.entity.key)
    rows, first, last, nulls = context.engine.query(
        f"SELECT count(*), min(as_of), max(as_of), "
        f"count(*) FILTER (as_of IS NULL OR {key} IS NULL) FROM {ENTITY_ROWS}"
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
    start, end = (
        time.replace(tzinfo=UTC) if rows else datetime(1970, 1, 1, tzinfo=UTC)
        for time in (first, last)
    )
    return int(rows), Period(start, end + timedelta(microseconds=1))


def _declared(use_case: UseCase) -> dict[str, ColumnType]:
    """Return the type of the key, and of what request-time features read."""
    key = use_case.entity.key
    kind = use_case.sources[use_case.population.source].column(key).type
    return {key: kind, **use_case.request_columns}


def _check_columns(types: Mapping[str, str], needed: set[str]) -> None:
    if missing := sorted(needed - set(types)):
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


def _as_declared(context: Context, column: str, found: str, kind: ColumnType) -> str:
    """Return SQL of a column as its declared type; refuse values that a cast would change."""
    name, is_text = quoted(column), found == "VARCHAR" or found.startswith("ENUM")
    base = found.partition("(")[0]
    if kind == "string" or base in PARQUET_TYPES[kind]:  # no value needs a look
        return value_as(name, kind)
    fits = "FALSE"
    if is_text:
        name = f"{name}::VARCHAR"
        fits = text_fits(name, kind)
    elif kind == "int64" and base in NUMBERS:
        fits = f"TRY_CAST({name} AS BIGINT) IS NOT NULL AND {name} = trunc({name})"
        fits += f" AND abs({name}) <= {EXACT}" if base in ("FLOAT", "DOUBLE") else ""
    count = f"SELECT count(*) FILTER ({name} IS NOT NULL AND NOT ({fits})) FROM {GIVEN}"
    if others := context.engine.query(count)[0][0]:
        what = "an entity's key" if column == context.use_case.entity.key else column
        raise DataError(
            f"{what} is no {'whole number' if kind == 'int64' else kind}",
            where=column,
            expected=f"{kind}, as the sources have; of floats none above 2^53",
            found=f"{others:,} others",  # the values themselves may be personal
        )
    return (text_as if is_text else value_as)(name, kind)
