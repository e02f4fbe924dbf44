"""Writing simulated worlds to source files.

Belongs here: the files of a simulated world. What is in them is decided in simulation/.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq

from mlops_pipeline.simulation.telecom import CHUNK_CUSTOMERS, TABLES, simulate_churn

Progress = Callable[[int, int], None]


def write_churn(
    folder: Path,
    *,
    customers: int,
    months: int = 30,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write the churn world as `<folder>/<table>.parquet`, chunk by chunk.

    The files appear together at the end, each by an atomic rename: an interrupted run leaves the
    files of the run before. Memory does not grow with the number of customers.

    Parameters
    ----------
    folder : Path
        Made when it does not exist; files of the same names are replaced.
    customers, months, seed : int
        As for `simulate_churn`.
    progress : callable, optional
        Called with (customers written, customers in all) after every chunk.

    Returns
    -------
    dict of str to int
        Rows by table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = dict.fromkeys(TABLES, 0)
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
                for name, schema in TABLES.items()
            }
            chunks = simulate_churn(customers=customers, months=months, seed=seed)
            for number, tables in enumerate(chunks, start=1):
                for name, writer in writers.items():
                    writer.write_table(tables[name])
                    rows[name] += tables[name].num_rows
                if progress is not None:
                    progress(min(number * CHUNK_CUSTOMERS, customers), customers)
        for name in TABLES:
            os.replace(Path(unfinished) / f"{name}.parquet", folder / f"{name}.parquet")  # noqa: PTH105 # Path.replace is the same; the name says atomic
    return rows
