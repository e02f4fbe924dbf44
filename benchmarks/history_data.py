"""The data of the point-in-time benchmark: an entity frame and four tables, as Parquet.

    spine.parquet     customer_id, as_of: every customer at every month's first midnight
    <table>.parquet   customer_id, event_timestamp, created_timestamp, its features

Values come from hashes, so that the same size gives the same data. Each table has its own moments,
none at an as_of; some customers have no row in it, others begin late.
"""

from dataclasses import dataclass
from pathlib import Path

MONTHS = 12
START = "2024-01-01"
NULL_SHARE = 0.03
SPAN_SECONDS = 366 * 86_400


@dataclass(frozen=True)
class Table:
    """One table: its features, rows of a customer, and share of the customers that have any."""

    name: str
    features: int
    rows: int
    share: float

    @property
    def columns(self) -> list[str]:
        """The names of its features, unique over all tables."""
        return [f"{self.name}_{number:02d}" for number in range(1, self.features + 1)]


TABLES = (
    Table("usage", features=12, rows=12, share=0.95),
    Table("billing", features=12, rows=9, share=0.90),
    Table("support", features=11, rows=6, share=0.80),
    Table("profile", features=10, rows=4, share=0.98),
)
FEATURES = [name for table in TABLES for name in table.columns]


def write_data(folder: Path, entities: int) -> dict[str, int]:
    """Write every file; return the rows of each."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        queries = {"spine": _spine(entities)}
        queries |= {table.name: _rows_of(table, entities) for table in TABLES}
        return {
            name: connection.execute(
                f"COPY ({query}) TO '{folder / name}.parquet' (FORMAT parquet)"
            ).fetchall()[0][0]
            for name, query in queries.items()
        }


def _spine(entities: int) -> str:
    return (
        f"SELECT customer_id, TIMESTAMPTZ '{START}' + to_months(month::INTEGER) AS as_of "
        f"FROM range(1, {MONTHS + 1}) months(month), range({entities}) customers(customer_id)"
    )


def _rows_of(table: Table, entities: int) -> str:
    """Rows at the customer's own moments: equal steps over the year from the customer's own start.

    Moments are odd seconds, so that none is a midnight.
    """
    step = SPAN_SECONDS // table.rows
    unit = "(hash(customer_id, '{}') % 1000000) / 1e6"
    begun = f"floor({unit.format(table.name + ' start')} * {step} / 2)::BIGINT * 2 + 1"
    values = ", ".join(
        f"CASE WHEN hash(customer_id, row_no, '{name} null') % 1000 >= {NULL_SHARE * 1000:.0f} "
        f"THEN round((hash(customer_id, row_no, '{name}') % 1000000) / 1e3, 3) END AS {name}"
        for name in table.columns
    )
    moment = f"TIMESTAMPTZ '{START}' + to_seconds({begun} + row_no * {step // 2 * 2})"
    return (
        f"SELECT customer_id, {moment} AS event_timestamp, {moment} AS created_timestamp, {values} "
        f"FROM range({table.rows}) numbers(row_no), range({entities}) customers(customer_id) "
        f"WHERE {unit.format(table.name + ' present')} < {table.share}"
    )
