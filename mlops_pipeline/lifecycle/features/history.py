"""Historical features: what was known of given entities at given times, exactly.

Every row of the result looks from its own as_of with the same definitions as training. Many rows
are computed in slices of entities, so that memory does not grow with their number; how a slice's
latest values are put beside its rows is late_gather.py's.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.periods import Period
from mlops_pipeline.core.features.derived import with_derived
from mlops_pipeline.core.features.frames import EVENT_ROW, RowGuarantees, late_entity_frame
from mlops_pipeline.errors import DataError, NotFoundError
from mlops_pipeline.lifecycle.bookkeeping import record_feature_use
from mlops_pipeline.lifecycle.context import Accepted, Context, open_context
from mlops_pipeline.lifecycle.features.late_gather import CHUNK, LateGather, gather
from mlops_pipeline.lifecycle.ingest.accepted import (
    accepted_sources,
    register_accepted,
    row_guarantees,
)
from mlops_pipeline.stores.files import new_file
from mlops_pipeline.stores.lake.engine import literal, quoted
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

SLICE_VALUES = 200_000_000  # held in memory at once: 1.6 GB of numbers
GIVEN, ENTITY_ROWS, SLICE = "_given_rows", "_entity_rows", "_entity_rows_slice"  # tables
FRACTIONAL = ("FLOAT", "DOUBLE")
WHOLE = ("BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UINTEGER", "USMALLINT", "UTINYINT")


def get_historical_features(
    use_case: UseCase, rows: Any, features: Sequence[str], *, settings: Settings | None = None
) -> Any:
    """Return the rows with features as they were known at each row's as_of.

    Parameters
    ----------
    rows : pandas.DataFrame or pyarrow.Table
        The entity key, `as_of` (UTC; times with a zone are converted), and, for request-time
        features, the source columns that they read. Other columns are kept.
    features : sequence of str
        Names of features or derived features; `entity:feature` is understood too.

    Returns
    -------
    pandas.DataFrame or pyarrow.Table
        As given: the rows in their order, and one column a feature. An entity that is not known
        stays, with missing values (counts are 0).

    Raises
    ------
    NotFoundError
        When a feature does not exist, naming the nearest, or the use case has no accepted data.
    DataError
        When a column is missing or of another type, or an as_of is missing or in the future.
    """
    import pyarrow as pa

    is_arrow = isinstance(rows, pa.Table)
    given = rows if is_arrow else pa.Table.from_pandas(rows, preserve_index=False)
    with _opened(use_case, settings, features) as (context, accepted, names):
        context.engine.register_arrow(GIVEN, given)
        parts = list(_parts(context, accepted, names))
    found = pa.concat_tables(parts).sort_by(EVENT_ROW).drop_columns([EVENT_ROW])
    return found if is_arrow else found.to_pandas()


def write_historical_features(
    use_case: UseCase,
    rows: Path,
    features: Sequence[str],
    out: Path,
    *,
    settings: Settings | None = None,
) -> int:
    """Do the same from a Parquet file (CSV by its ending) to a Parquet file; return its rows.

    The file appears whole. The order of the rows is not kept.
    """
    import pyarrow.parquet as pq

    count = 0
    with _opened(use_case, settings, features) as (context, accepted, names):
        reader = "read_csv" if rows.suffix == ".csv" else "read_parquet"
        if not rows.is_file():
            raise NotFoundError("the file of entities does not exist", where=str(rows))
        context.engine.create_view(GIVEN, f"SELECT * FROM {reader}({literal(str(rows))})")
        with new_file(out) as work, ExitStack() as stack:
            writer: Any = None
            for part in _parts(context, accepted, names):
                found = part.drop_columns([EVENT_ROW])
                if writer is None:  # values of features seldom repeat: no dictionaries
                    writer = pq.ParquetWriter(work, found.schema, use_dictionary=False)
                    stack.enter_context(writer)
                writer.write_table(found)
                count += len(found)
    return count


def feature_names(use_case: UseCase, features: Sequence[str]) -> tuple[str, ...]:
    """Return the names without their entity; NotFoundError for a feature that does not exist."""
    prefix = f"{use_case.entity.name}:"
    found = []
    for given in features:
        name = given.removeprefix(prefix)
        if name not in use_case.features:
            known = [f"{prefix}{item}" for item in use_case.features]
            way_out = f"mlops features list {use_case.name}"
            raise NotFoundError.of(
                "feature", f"{prefix}{name}", known, where=use_case.name, way_out=way_out
            )
        found.append(name)
    return tuple(dict.fromkeys(found))


def select_features(use_case: UseCase, names: Sequence[str]) -> UseCase:
    """Return the use case with no more features than these and those that they are made of."""
    needed = set(names)
    for name in reversed(use_case.derived):
        if name in needed:
            needed |= use_case.derived[name].expression.columns
    views = {
        label: view.model_copy(update={"columns": columns})
        for label, view in use_case.views.items()
        if (columns := {n: column for n, column in view.columns.items() if n in needed})
    }
    derived = {name: item for name, item in use_case.derived.items() if name in needed}
    return use_case.model_copy(update={"views": views, "derived": derived, "protected": {}})


@contextmanager
def _opened(
    use_case: UseCase, settings: Settings | None, features: Sequence[str]
) -> Iterator[tuple[Context, Accepted, tuple[str, ...]]]:
    """Yield a context, what is accepted, and the features by name; their use is recorded."""
    settings = settings or Settings.from_environment()
    with OpsDatabase.open(settings.database_url) as ops:
        accepted = accepted_sources(ops, use_case)
        names = feature_names(use_case, features)
        record_feature_use(ops, use_case.name, names, "history", now=settings.now())
    with open_context(use_case, settings) as context:
        yield context, accepted, names


def _parts(context: Context, accepted: Accepted, names: Sequence[str]) -> Iterator[Any]:
    """Yield the given rows with their features as Arrow tables, one slice of entities at a time."""
    context = replace(context, use_case=select_features(context.use_case, names))
    use_case, engine = context.use_case, context.engine
    key = quoted(use_case.entity.key)
    kept = _register_rows(context)
    rows, period = _rows_and_period(context)
    accepted = {name: accepted[name] for name in _sources(use_case)}
    register_accepted(context, accepted)
    guarantees = _ordered(context, row_guarantees(use_case, accepted))
    slices = _values_in_memory(use_case, rows, accepted) // SLICE_VALUES + 1
    job: LateGather | None = None
    for number in range(slices):
        mine = f"hash({key}) % {slices} = {number}" if slices > 1 else "TRUE"
        views = {SLICE: ENTITY_ROWS, **{f"_slice_of_{name}": name for name in accepted}}
        tables = {
            name: engine.register(view, f"(SELECT * FROM {quoted(name)} WHERE {mine})")
            for view, name in views.items()
        }
        if job is None:
            given = tables.pop(ENTITY_ROWS)
            frame, values = late_entity_frame(use_case, tables, given, period, guarantees)
            job = _compiled(context, frame, values, names, kept)
        yield from gather(engine, job)


def _values_in_memory(use_case: UseCase, rows: int, accepted: Accepted) -> int:
    """Return about how many values are in memory at once when there is one slice.

    Latest values are held once a row of their source; others twice an entity row: while they are
    grouped, and when they are found.
    """
    return sum(
        min(rows, accepted[view.source].rows) if column.aggregate == "last" else 2 * rows
        for view in use_case.views.values()
        for column in view.columns.values()
    )


def _compiled(
    context: Context,
    frame: Any,
    values: Mapping[str, Any],
    names: Sequence[str],
    kept: Sequence[str],
) -> LateGather:
    use_case, engine = context.use_case, context.engine
    key = use_case.entity.key
    given = {name: f"_kept_{index}" for index, name in enumerate(kept) if name not in names}
    made = [name for name in use_case.features if name in frame.columns]
    rows = frame.select(key, "as_of", EVENT_ROW, *given.values(), *made, *values)
    fields = {name: kind for name, kind in rows.schema().items() if name not in values}
    for table in values.values():
        fields |= {name: kind for name, kind in table.schema().items() if name != "_row_no"}
    chunk = engine.declare(CHUNK, fields)
    whole = with_derived(use_case, chunk)
    return LateGather(
        rows=engine.compile(rows.order_by(EVENT_ROW)),
        values={number: engine.compile(table) for number, table in values.items()},
        completed=None if whole is chunk else engine.compile(whole),
        shown={key: key, "as_of": "as_of", **given, **{n: n for n in (*names, EVENT_ROW)}},
    )


def _sources(use_case: UseCase) -> list[str]:
    return list(dict.fromkeys(view.source for view in use_case.views.values()))


def _ordered(context: Context, guarantees: RowGuarantees) -> RowGuarantees:
    """Add which sources' rows were all known when they happened."""
    found = set()
    for name in _sources(context.use_case):
        if name in guarantees.unique and name not in guarantees.revised:
            happened = quoted(context.use_case.sources[name].event_time)
            late = f"SELECT 1 FROM {quoted(name)} WHERE _available_at <> {happened} LIMIT 1"
            if not context.engine.query(late):
                found.add(name)
    return replace(guarantees, ordered=frozenset(found))


# the given rows: checked, numbered, in DuckDB's types


def _register_rows(context: Context) -> list[str]:
    """Make table ENTITY_ROWS: the given rows with their numbers; return their other columns.

    They stand under their own names for request-time features, and as `_kept_<n>` for the answer.
    """
    use_case, engine = context.use_case, context.engine
    key, types = use_case.entity.key, engine.columns(GIVEN)
    read = use_case.request_columns
    _check_columns(types, {key, "as_of", *read})
    kind = use_case.sources[use_case.population.source].column(key).type
    cast = {"int64": "BIGINT", "string": "VARCHAR"}[kind]
    if kind == "int64" and types[key] not in WHOLE:  # those need no look at every row
        _check_numbers(context, key, types[key])
    as_of = "as_of::TIMESTAMP"
    if "TIME ZONE" in types["as_of"] or "TIMESTAMPTZ" in types["as_of"]:  # of nanoseconds: TZ
        as_of = "as_of::TIMESTAMPTZ AT TIME ZONE 'UTC'"
    kept = [name for name in types if name not in (key, "as_of", EVENT_ROW)]
    columns = "".join(f", {quoted(name)} AS _kept_{index}" for index, name in enumerate(kept))
    columns += "".join(f", {quoted(name)}" for name in kept if name in read)
    engine.create_table(
        ENTITY_ROWS,
        f"SELECT {quoted(key)}::{cast} AS {quoted(key)}, {as_of} AS as_of, "
        f"row_number() OVER () - 1 AS {EVENT_ROW}{columns} FROM {GIVEN}",
    )
    return kept


def _check_columns(types: Mapping[str, str], needed: set[str]) -> None:
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


def _check_numbers(context: Context, key: str, kind: str) -> None:
    """Refuse keys that are no whole numbers: cast, they would be the keys of others."""
    name = quoted(key)
    unlike = f"{name} IS NOT NULL AND (TRY_CAST({name} AS BIGINT) IS NULL"
    if kind in FRACTIONAL:
        unlike += f" OR NOT isfinite({name}) OR {name} <> trunc({name})"
    elif kind.startswith("DECIMAL"):
        unlike += f" OR {name} <> trunc({name})"
    count = context.engine.query(f"SELECT count(*) FILTER ({unlike})) FROM {GIVEN}")[0][0]
    if count:
        raise DataError(
            "an entity's key is no whole number",
            where=key,
            expected="whole numbers, as the sources have",
            found=f"{count:,} others",  # the keys themselves may be personal
        )


def _rows_and_period(context: Context) -> tuple[int, Period]:
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
    start = first.replace(tzinfo=UTC) if rows else datetime(1970, 1, 1, tzinfo=UTC)
    end = (last.replace(tzinfo=UTC) if rows else start) + timedelta(microseconds=1)
    return int(rows), Period(start, end)
