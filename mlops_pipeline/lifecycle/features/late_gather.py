"""Late gather: an as-of join finds row numbers only; the values are fetched by number afterwards.

An as-of join sorts all that it carries, on both sides, once a table. Joining row numbers alone,
and then fetching the values of one chunk of rows after the other, takes less time and memory.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mlops_pipeline.stores.lake.engine import Engine

CHUNK_ROWS = 200_000  # fetched at once: 45 features of 8 bytes are 72 MB
CHUNK = "_chunk"  # the table of one chunk


@dataclass(frozen=True)
class LateGather:
    """What to join and what to fetch, as SQL.

    Attributes
    ----------
    rows : str
        The entity rows, with a column of row numbers for each of `values`.
    values : mapping of str to str
        By that column: `_row_no` and what the rows of the source hold.
    completed : str or None
        Made of a table CHUNK: some of the rows, with the values in place of the numbers.
        None: the chunk itself.
    shown : mapping of str to str
        The columns of the answer, and what each is called in `completed`.
    """

    rows: str
    values: Mapping[str, str]
    completed: str | None
    shown: Mapping[str, str]


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
        if _are_few(found.column(number)):
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


def _are_few(numbers: Any) -> bool:
    """Whether less than half of the rows are wanted: reading those alone saves memory."""
    import numpy as np

    wanted = numbers.drop_null().to_numpy()
    seen = np.zeros(int(wanted.max(initial=-1)) + 1, dtype=np.bool_)
    seen[wanted] = True
    return 2 * int(np.count_nonzero(seen)) < len(seen)


def _one_array(column: Any) -> Any:
    """Return a chunked column as one array, after a missing value.

    Missing floats are NaN in it, which no feature is: see `_taken`.
    """
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
