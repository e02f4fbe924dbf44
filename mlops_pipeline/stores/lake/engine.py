"""One DuckDB connection through Ibis: limits, and tables of the lake as Ibis tables.

The connection is in memory and private to its owner; what it makes is gone with it. All times
inside are naive UTC. Names of tables that are not sources begin with an underscore, as no source's
name can.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from mlops_pipeline.errors import DataError, masked
from mlops_pipeline.stores.files import scratch_folder
from mlops_pipeline.stores.lake.tables import TableState
from mlops_pipeline.stores.settings import Settings

BATCH_ROWS = 100_000
HASHED_ROWS = 32_000_000  # sorted at once: 8 bytes a row


class Engine:
    """A DuckDB connection; `reads` holds the versions of tables and files read, for the audit."""

    def __init__(self, connection: Any) -> None:
        self.ibis = connection
        self.sql = self.ibis.con
        self.reads: dict[str, set[str]] = {}

    def query(
        self, statement: str, parameters: Sequence[Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run SQL and return every row."""
        rows: list[tuple[Any, ...]] = self.sql.execute(statement, parameters).fetchall()
        return rows

    def arrow(self, statement: str) -> Any:
        """Run SQL and return an Arrow table."""
        return self.sql.sql(statement).to_arrow_table()

    def batches(self, statement: str, rows: int = BATCH_ROWS) -> Any:
        """Run SQL and return a streaming Arrow reader."""
        return self.sql.sql(statement).to_arrow_reader(rows)

    def create_table(self, name: str, select: str, parameters: Sequence[Any] | None = None) -> None:
        """Make a temporary table of a query's rows."""
        statement = f"CREATE OR REPLACE TEMP TABLE {quoted(name)} AS {select}"
        self.sql.execute(statement, parameters)

    def create_view(self, name: str, select: str) -> None:
        """Give a query a name."""
        self.sql.execute(f"CREATE OR REPLACE VIEW {quoted(name)} AS {select}")

    def drop_table(self, name: str) -> None:
        """Remove a table, where there is one."""
        self.sql.execute(f"DROP TABLE IF EXISTS {quoted(name)}")

    def columns(self, rows: str) -> dict[str, str]:
        """Return the columns of a FROM item and their SQL types."""
        return {row[0]: row[1] for row in self.query(f"DESCRIBE SELECT * FROM {rows}")}

    def keep_order(self) -> None:
        """From now on, number rows (`row_number() OVER ()`) as they stand in files."""
        self.sql.execute("SET preserve_insertion_order = true")

    def plan_wide(self) -> None:
        """From now on, plan queries of thousands of columns in time linear in them."""
        self.sql.execute("SET disabled_optimizers = 'common_subexpressions'")

    def content(self, rows: str, columns: Iterable[str]) -> tuple[int, int]:
        """Return how many rows a FROM item has, and the sum of their hashes over some columns."""
        hashes = f"hash({quoted(*columns)})::HUGEINT"
        found = self.query(f"SELECT count(*), coalesce(sum({hashes}), 0) FROM {rows}")[0]
        return int(found[0]), int(found[1])

    def holds(self, select: str) -> bool:
        """Whether a query has a row."""
        return bool(self.query(f"{select} LIMIT 1"))

    def are_distinct(self, rows: str, columns: str) -> bool:
        """Whether all rows surely differ in some columns, by 64-bit hashes: quicker than groups."""
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
        self.create_view(name, f"SELECT * FROM {rows}")
        return self.ibis.table(name)

    def register_arrow(self, name: str, rows: Any) -> None:
        """Give an Arrow table a name."""
        self.sql.register(name, rows)

    def table(self, name: str) -> Any:
        """Return a table or view as an Ibis table."""
        return self.ibis.table(name)

    def declare(self, name: str, columns: Mapping[str, Any]) -> Any:
        """Return an Ibis table of these columns and types, whose rows come later."""
        import ibis

        return ibis.table(columns, name=name)

    def compile(self, expression: Any) -> str:
        """Return the SQL of an Ibis expression; rows that it holds in memory are registered."""
        self.ibis._register_in_memory_tables(expression)
        return str(self.ibis.compile(expression))

    def attach(self, uri: str) -> str:
        """Make the newest version of a Delta table a table named by its address; say which."""
        from deltalake import DeltaTable

        table = DeltaTable(uri)
        self.sql.register(uri, table.to_pyarrow_dataset())
        return f"version {table.version()}"

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


@contextmanager
def open_engine(settings: Settings) -> Iterator[Engine]:
    """Yield an engine with the limits of the settings; its spill files are removed at the end."""
    import ibis

    with scratch_folder(settings.data_dir) as scratch:
        connection = ibis.duckdb.connect(
            threads=settings.threads,
            memory_limit=settings.memory_limit,
            temp_directory=str(scratch),
            TimeZone="UTC",
            preserve_insertion_order=False,
            autoinstall_known_extensions=False,
            # rows behind filters are estimated far too few, and a loop over them never ends
            asof_loop_join_threshold=0,
        )
        try:
            yield Engine(connection)
        finally:
            connection.disconnect()


def rows_engine() -> Engine:
    """Return an engine of one thread in memory, for a few rows at hand."""
    import ibis

    return Engine(ibis.duckdb.connect(threads=1))


@contextmanager
def overflow_refused(what: str, **about: str) -> Iterator[None]:
    """Raise a DataError, with what DuckDB says, when a value does not fit its type."""
    import duckdb

    try:
        yield
    except (duckdb.ConversionException, duckdb.OutOfRangeException) as error:
        raise DataError(what, found=masked(str(error)), **about) from error


def content_hash(digest: int) -> str:
    """Return the name of a content: a sum of hashes as 16 hex digits."""
    return f"{digest % 2**64:016x}"


def quoted(*names: str) -> str:
    """Return SQL identifiers, separated by commas."""
    return ", ".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(text: str) -> str:
    """Return an SQL text literal."""
    return "'" + text.replace("'", "''") + "'"


def sql_timestamp(time: datetime) -> str:
    """Return an SQL timestamp literal; all times of the engine are naive UTC."""
    return f"TIMESTAMP {literal(time.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' '))}"


def file_list(files: Sequence[str]) -> str:
    """Return an SQL list of file names."""
    return "[" + ", ".join(literal(name) for name in files) + "]"
