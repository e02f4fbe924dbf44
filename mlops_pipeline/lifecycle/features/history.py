"""Historical features: what was known of given entities at given times, exactly.

Every row of the result looks from its own as_of with the same definitions as training. Many rows
are computed in slices of entities, so that memory does not grow with their number.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.features.frames import (
    EVENT_ROW,
    RowGuarantees,
    late_entity_frame,
    with_derived,
)
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.bookkeeping import record_feature_use
from mlops_pipeline.lifecycle.context import Accepted, Context, open_context
from mlops_pipeline.lifecycle.features.given import (
    ENTITY_ROWS,
    GIVEN,
    given_file,
    register_rows,
    rows_and_period,
)
from mlops_pipeline.lifecycle.ingest.accepted import (
    accepted_sources,
    register_accepted,
    row_guarantees,
)
from mlops_pipeline.stores.files import new_file
from mlops_pipeline.stores.lake.engine import Engine, quoted
from mlops_pipeline.stores.settings import Settings

SLICE_VALUES = 200_000_000  # held in memory at once: 1.6 GB of numbers
CHUNK_ROWS = 200_000  # fetched at once: 45 features of 8 bytes are 72 MB
CHUNK = "_chunk"  # the table of one chunk


def get_historical_features(
    use_case: UseCase, rows: Any, features: Sequence[str], *, settings: Settings | None = None
) -> Any:
    """Return the rows with features as they were known at each row's as_of.

    A feature that does not exist is a NotFoundError, naming the nearest, as are data that were not
    accepted; a column that is missing or of another type, or an as_of of the future, a DataError.

    Parameters
    ----------
    rows : pandas.DataFrame or pyarrow.Table
        The entity key, `as_of` (UTC; times with a zone are converted), and, for request-time
        features, the source columns that they read.
    features : sequence of str
        Names of features or derived features; `entity:feature` is understood too.

    Returns
    -------
    pandas.DataFrame or pyarrow.Table
        The rows as given (order, index, every column with its type), and one column a feature. An
        entity that is not known stays, with missing values (counts are 0).
    """
    import pyarrow as pa

    with _opened(use_case, settings, features) as (context, accepted, names):
        context.engine.register_arrow(GIVEN, _needed(select_features(use_case, names), rows))
        parts = list(_parts(context, accepted, names))
    found = pa.concat_tables(parts).sort_by(EVENT_ROW).select(names)
    return _with_columns(rows, found)


def write_historical_features(
    use_case: UseCase,
    rows: Path,
    features: Sequence[str],
    out: Path,
    *,
    settings: Settings | None = None,
) -> int:
    """Do the same from a Parquet or CSV file to a Parquet file, in any order; return its rows."""
    import pyarrow.parquet as pq

    count = 0
    with _opened(use_case, settings, features) as (context, accepted, names):
        if not rows.is_file():
            raise NotFoundError("the file of entities does not exist", where=str(rows))
        context.engine.create_view(GIVEN, f"SELECT * FROM {given_file(context, rows)}")
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
            raise NotFoundError.of(
                "feature",
                f"{prefix}{name}",
                [f"{prefix}{item}" for item in use_case.features],
                where=use_case.name,
                way_out=f"mlops features list {use_case.name}",
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
    with open_context(use_case, settings or Settings.from_environment()) as context:
        accepted = accepted_sources(context.ops, use_case)
        names = feature_names(use_case, features)
        record_feature_use(context.ops, use_case.name, names, "history", now=context.now)
        yield context, accepted, names


def _needed(use_case: UseCase, rows: Any) -> Any:
    """Return as an Arrow table what is read of the rows; all, where some of it is not there."""
    import pyarrow as pa

    is_arrow = isinstance(rows, pa.Table)
    columns = rows.column_names if is_arrow else list(rows.columns)
    read = {use_case.entity.key, "as_of", *use_case.request_columns}
    if read <= set(columns):
        chosen = [name for name in columns if name in read]
        rows = rows.select(chosen) if is_arrow else rows[chosen]
    return rows if is_arrow else pa.Table.from_pandas(rows, preserve_index=False)


def _with_columns(rows: Any, found: Any) -> Any:
    """Return the caller's rows with the columns of an Arrow table in place of any so named."""
    import pyarrow as pa

    names = found.column_names
    if isinstance(rows, pa.Table):
        rows = rows.drop_columns([name for name in names if name in rows.column_names])
        for name in names:
            rows = rows.append_column(name, found.column(name))
        return rows
    import pandas as pd

    kept = rows.drop(columns=[name for name in names if name in rows.columns])
    return pd.concat([kept, found.to_pandas().set_index(rows.index)], axis="columns")


def _parts(context: Context, accepted: Accepted, names: Sequence[str]) -> Iterator[Any]:
    """Yield the given rows with their features as Arrow tables, one slice of entities at a time."""
    context = replace(context, use_case=select_features(context.use_case, names))
    use_case, engine = context.use_case, context.engine
    kept = register_rows(context)
    rows, period = rows_and_period(context)
    accepted = {name: accepted[name] for name in (v.source for v in use_case.views.values())}
    register_accepted(context, accepted)
    guarantees = _with_ordered(context, row_guarantees(use_case, accepted))
    in_memory = sum(  # others twice: while they are grouped, and when they are found
        min(rows, accepted[view.source].rows) if column.aggregate == "last" else 2 * rows
        for view in use_case.views.values()
        for column in view.columns.values()
    )
    slices = in_memory // SLICE_VALUES + 1
    job: LateGather | None = None
    for number in range(slices):
        mine = f"hash({quoted(use_case.entity.key)}) % {slices} = {number}"
        tables = {}
        for name in (ENTITY_ROWS, *accepted):
            rows_of = f"(SELECT * FROM {quoted(name)} WHERE {mine if slices > 1 else 'TRUE'})"
            tables[name] = engine.register(f"_slice_of_{name}", rows_of)
        if job is None:
            given = tables.pop(ENTITY_ROWS)
            frame, values = late_entity_frame(use_case, tables, given, period, guarantees)
            job = _compiled(context, frame, values, names, kept)
        yield from gather(engine, job)


def _compiled(
    context: Context, frame: Any, values: Mapping[str, Any], names: Sequence[str], kept: list[str]
) -> "LateGather":
    use_case, engine, key = context.use_case, context.engine, context.use_case.entity.key
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


def _with_ordered(context: Context, guarantees: RowGuarantees) -> RowGuarantees:
    """Add which sources' rows were all known when they happened."""
    found = set()
    for name in guarantees.unique - guarantees.revised:
        happened = quoted(context.use_case.sources[name].happened)
        late = f"SELECT 1 FROM {quoted(name)} WHERE _available_at <> {happened} LIMIT 1"
        if not context.engine.query(late):
            found.add(name)
    return replace(guarantees, ordered=frozenset(found))


# late gather. An as-of join sorts all that it carries, on both sides, once a table. Joining row
# numbers alone, and then fetching the values of one chunk of rows after the other, takes less.


@dataclass(frozen=True)
class LateGather:
    """What to join and what to fetch, as SQL."""

    rows: str  # entity rows, with a column of row numbers for each of `values`
    values: Mapping[str, str]  # by that column: `_row_no`, and what the rows of a source hold
    completed: str | None  # made of CHUNK, rows with values in place of numbers; None: CHUNK itself
    shown: Mapping[str, str]  # the columns of the answer: what each is called in `completed`


def gather(engine: Engine, job: LateGather) -> Iterator[Any]:
    """Yield the rows as Arrow tables, at least one; the next is made while one is used."""
    found = engine.arrow(job.rows)
    sources = [_SourceValues(engine, found, *item) for item in job.values.items()]
    kept = found.drop_columns(list(job.values))

    def chunk(start: int) -> Any:
        rows = kept.slice(start, CHUNK_ROWS)
        for source in sources:
            numbers = found.column(source.number).slice(start, CHUNK_ROWS)
            for name, values in source.at(numbers).items():
                rows = rows.append_column(name, values)
        if job.completed is not None:
            engine.register_arrow(CHUNK, rows)
            rows = engine.arrow(job.completed)
        return rows.select(list(job.shown.values())).rename_columns(list(job.shown))

    yield from _one_ahead(map(chunk, range(0, max(len(found), 1), CHUNK_ROWS)))


class _SourceValues:
    """The values of the rows whose numbers stand in a column of `found`, in memory."""

    def __init__(self, engine: Engine, found: Any, number: str, values: str) -> None:
        import numpy as np

        self.number = number
        wanted = found.column(number).drop_null().to_numpy()
        is_wanted = np.zeros(int(wanted.max(initial=-1)) + 1, dtype=np.bool_)
        is_wanted[wanted] = True
        if 2 * int(np.count_nonzero(is_wanted)) < len(is_wanted):  # few: less memory
            engine.register_arrow("_wanted", found.select([number]))
            values = f"SELECT * FROM ({values}) SEMI JOIN _wanted ON _row_no = {number}"
        rows = engine.arrow(values)
        numbers = rows.column("_row_no").to_numpy()
        # by row number, 4 bytes each: where its values stand. 0: nowhere; missing values are there
        self.places = np.zeros(int(numbers.max(initial=-1)) + 2, dtype=np.int32)
        self.places[numbers] = np.arange(1, len(numbers) + 1, dtype=np.int32)
        names = [name for name in rows.column_names if name != "_row_no"]
        with ThreadPoolExecutor() as pool:
            arrays = pool.map(_one_array, rows.select(names).columns)
            self.columns = dict(zip(names, arrays, strict=True))

    def at(self, numbers: Any) -> dict[str, Any]:
        """Return each column's values in the rows of these numbers; without a number, missing."""
        import pyarrow as pa

        nowhere = len(self.places) - 1  # above every number
        places = pa.array(self.places[numbers.fill_null(nowhere).to_numpy()])
        return {name: _taken(values, places) for name, values in self.columns.items()}


def _one_array(column: Any) -> Any:
    """Return a chunked column as one array after a missing value; missing floats are NaN in it."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_float64(column.type):
        whole = np.full(len(column) + 1, np.nan)
        end = 1
        for chunk in column.chunks:
            begin, end = end, end + len(chunk)
            whole[begin:end] = chunk.to_numpy(zero_copy_only=False)
        return pa.array(whole)
    if pa.types.is_string(column.type):  # offsets of 4 bytes end at 2 GB of text
        column = column.cast(pa.large_string())
    return pa.concat_arrays([pa.nulls(1, column.type), *column.chunks])


def _taken(values: Any, places: Any) -> Any:
    """Return the values at places; floats without a bitmap take a quarter of the time."""
    import numpy as np
    import pyarrow as pa

    found = values.take(places)
    if not pa.types.is_float64(found.type):
        return found
    is_there = np.packbits(~np.isnan(found.to_numpy()), bitorder="little")
    buffers = [pa.py_buffer(is_there), found.buffers()[1]]
    return pa.Array.from_buffers(found.type, len(found), buffers, offset=found.offset)


def _one_ahead(items: Iterator[Any]) -> Iterator[Any]:
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
