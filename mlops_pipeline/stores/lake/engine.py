"""One DuckDB connection through Ibis: limits, and tables of the lake as Ibis tables.

The connection is in memory and private to its owner; what it makes is gone with it. All times
inside are naive UTC. Names of tables that are not sources begin with an underscore, as no source's
name can.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from mlops_pipeline.stores.lake.scratch import scratch_folder
from mlops_pipeline.stores.lake.tables import TableState
from mlops_pipeline.stores.settings import Settings

BATCH_ROWS = 100_000
HASHED_ROWS = 32_000_000  # sorted at once: 8 bytes a row


class Engine:
    """A DuckDB connection with the project's limits.

    Attributes
    ----------
    reads : dict of address to set of text
        Every table and source file that was read, and in which versions: for the audit chain.
    """

    def __init__(self, settings: Settings, scratch: str) -> None:
        import ibis

        self.ibis = ibis.duckdb.connect(
            threads=settings.threads,
            memory_limit=settings.memory_limit,
            temp_directory=scratch,
            TimeZone="UTC",
            preserve_insertion_order=False,
            autoinstall_known_extensions=False,
            # rows behind filters are estimated far too few, and a loop over them never ends
            asof_loop_join_threshold=0,
        )
        self.sql = self.ibis.con
        self.reads: dict[str, set[str]] = {}

    def query(
        self, statement: str, parameters: Sequence[Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run SQL and return every row."""
        rows: list[tuple[Any, ...]] = self.sql.execute(statement, parameters).fetchall()
        return rows

    def batches(self, statement: str) -> Any:
        """Run SQL and return a streaming Arrow reader."""
        return self.sql.sql(statement).to_arrow_reader(BATCH_ROWS)

    def are_distinct(self, rows: str, columns: str) -> bool:
        """Whether all rows of a FROM item surely differ in some columns.

        True is certain; false is not: two rows may share a 64-bit hash. Sorting the hashes takes
        a fraction of the time and memory of grouping the rows.
        """
        import numpy as np

        total = int(self.query(f"SELECT count(*) FROM {rows}")[0][0])
        passes = total // HASHED_ROWS + 1
        for part in range(passes):
            chosen = f"WHERE hash({columns}) % {passes} = {part}" if passes > 1 else ""
            found = self.sql.sql(f"SELECT hash({columns}) AS h FROM {rows} {chosen}").fetchnumpy()
            hashes = np.sort(found["h"])
            if bool((hashes[1:] == hashes[:-1]).any()):
                return False
        return True

    def register(self, name: str, rows: str) -> Any:
        """Make a FROM item (see `scan`) a view, and return it as an Ibis table."""
        self.sql.execute(f"CREATE OR REPLACE VIEW {quoted(name)} AS SELECT * FROM {rows}")
        return self.ibis.table(name)

    def scan(self, state: TableState) -> str:
        """Return the FROM item that reads a table version."""
        self.reads.setdefault(state.uri, set()).add(str(state.version))
        is_remote = "://" in state.uri and not state.uri.startswith("file://")
        if is_remote or not state.files:  # a table without a row has no file to read
            from deltalake import DeltaTable

            name = f"_scan_{abs(hash((state.uri, state.version)))}"
            table = DeltaTable(state.uri, version=state.version)
            rows = table.to_pyarrow_dataset() if is_remote else table.to_pyarrow_table()
            self.sql.register(name, rows)
            return quoted(name)
        return f"read_parquet({file_list(state.files)}, union_by_name = true)"

    def close(self) -> None:
        """Close the connection."""
        self.ibis.disconnect()


@contextmanager
def open_engine(settings: Settings) -> Iterator[Engine]:
    """Yield an engine whose spill files are removed at the end."""
    with scratch_folder(settings.data_dir) as scratch:
        engine = Engine(settings, str(scratch))
        try:
            yield engine
        finally:
            engine.close()


def rows_engine() -> Any:
    """Return an Ibis connection of one thread in memory, for a few rows at hand."""
    import ibis

    return ibis.duckdb.connect(threads=1)


def quoted(name: str) -> str:
    """Return an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return an SQL text literal."""
    return "'" + text.replace("'", "''") + "'"


def sql_timestamp(time: datetime) -> str:
    """Return an SQL timestamp literal; all times of the engine are naive UTC."""
    return f"TIMESTAMP {literal(time.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' '))}"


def file_list(files: Sequence[str]) -> str:
    """Return an SQL list of file names."""
    return "[" + ", ".join(literal(name) for name in files) + "]"
