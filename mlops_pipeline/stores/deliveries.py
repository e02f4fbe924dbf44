"""Writing a delivered file so that nobody ever sees half of it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlops_pipeline.errors import SourceError
from mlops_pipeline.stores.files import new_file


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one writer at a time look into a folder and write: of all threads and processes here."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def write_delivery(path: Path, table: Any) -> Path:
    """Write an Arrow table as a Parquet file that survives a cut of power; return its path."""
    import pyarrow.parquet as pq

    table = _zoned_alike(path.parent, table)
    try:
        with new_file(path) as work, work.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise SourceError(
            "the delivery cannot be written",
            where=str(path.parent),
            found=str(error),
            way_out="see that the folder is writable and has room",
        ) from error
    return path


def _zoned_alike(folder: Path, table: Any) -> Any:
    """Return the table with times in UTC written as a delivery before writes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for other in sorted(folder.glob("*.parquet"))[:1]:
        known = pq.read_schema(other)
        for place, field in enumerate(table.schema):
            if pa.types.is_timestamp(field.type) and field.name in known.names:
                before = known.field(field.name).type
                if pa.types.is_timestamp(before) and before.tz is None:
                    column = table.column(place).cast(pa.timestamp("us"))
                    table = table.set_column(place, field.name, column)
    return table
