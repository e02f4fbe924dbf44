"""Writing simulated worlds to source files.

Belongs here: the files of a simulated world. What is in them is decided in simulation/.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_pipeline.demo import payments, telecom

Progress = Callable[[int, int], None]


def write_churn(
    folder: Path,
    *,
    customers: int,
    months: int = 30,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write the churn world as `<folder>/<table>.parquet`; see `simulate_churn`, `write_world`."""
    chunks = telecom.simulate_churn(customers=customers, months=months, seed=seed)
    advance = _counting(progress, telecom.CHUNK_CUSTOMERS, customers)
    return write_world(folder, telecom.TABLES, chunks, advance)


def write_fraud(
    folder: Path,
    *,
    customers: int,
    months: int = payments.MONTHS,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write the card world as `<folder>/<table>.parquet`; see `simulate_fraud`, `write_world`."""
    chunks = payments.simulate_fraud(customers=customers, months=months, seed=seed)
    advance = _counting(progress, payments.CHUNK_CUSTOMERS, customers)
    return write_world(folder, payments.TABLES, chunks, advance)


def write_world(
    folder: Path,
    schemas: Mapping[str, pa.Schema],
    chunks: Iterable[Mapping[str, pa.Table]],
    written: Callable[[int], None],
) -> dict[str, int]:
    """Write the tables of a world as `<folder>/<table>.parquet`, chunk by chunk.

    The files appear together at the end, each by an atomic rename: an interrupted run leaves the
    files of the run before. Memory does not grow with the number of chunks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = dict.fromkeys(schemas, 0)
    with TemporaryDirectory(dir=folder, prefix=".writing-") as unfinished:
        with ExitStack() as files:
            writers = {
                name: files.enter_context(
                    pq.ParquetWriter(
                        Path(unfinished) / f"{name}.parquet",
                        schema,
                        compression="zstd",
                        compression_level=1,
                    )
                )
                for name, schema in schemas.items()
            }
            for number, tables in enumerate(chunks, start=1):
                for name, writer in writers.items():
                    writer.write_table(tables[name])
                    rows[name] += tables[name].num_rows
                written(number)
        for name in schemas:
            os.replace(Path(unfinished) / f"{name}.parquet", folder / f"{name}.parquet")  # noqa: PTH105 # Path.replace is the same; the name says atomic
    return rows


def _counting(
    progress: Progress | None, chunk_customers: int, customers: int
) -> Callable[[int], None]:
    """Return a function of the chunks written that reports (customers written, in all)."""

    def advance(chunks: int) -> None:
        if progress is not None:
            progress(min(chunks * chunk_customers, customers), customers)

    return advance
