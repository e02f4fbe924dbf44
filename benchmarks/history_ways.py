"""One way of the point-in-time join, in a process of its own.

    python -m benchmarks.history_ways WAY FOLDER OUT

Reads what history_data.py wrote and writes one Parquet file of the entity frame's rows with every
table's newest row at or before as_of. Prints the seconds and processor seconds of the work, imports
left out, as one line of JSON.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.history_data import FEATURES, START, TABLES

MEMORY_LIMIT = "2GB"  # of DuckDB in `ours`; what exceeds it goes to disk

Work = Callable[[], None]


def duckdb(folder: Path, out: Path) -> Work:
    """ASOF joins as one would write them by hand."""
    import duckdb

    joins = " ".join(
        f"ASOF LEFT JOIN '{folder / table.name}.parquet' {table.name} "
        f"ON s.customer_id = {table.name}.customer_id "
        f"AND s.as_of >= {table.name}.event_timestamp"
        for table in TABLES
    )

    def work() -> None:
        with duckdb.connect() as connection:
            connection.execute("SET preserve_insertion_order = false")
            connection.execute(
                f"COPY (SELECT s.customer_id, s.as_of, {', '.join(FEATURES)} "
                f"FROM '{folder / 'spine'}.parquet' s {joins}) TO '{out}' (FORMAT parquet)"
            )

    return work


def polars(folder: Path, out: Path) -> Work:
    """Both sides sorted by time, then join_asof by customer."""
    import polars

    def work() -> None:
        frame = polars.scan_parquet(folder / "spine.parquet").sort("as_of")
        for table in TABLES:
            rows = polars.scan_parquet(folder / f"{table.name}.parquet")
            frame = frame.join_asof(
                rows.drop("created_timestamp").sort("event_timestamp"),
                left_on="as_of",
                right_on="event_timestamp",
                by="customer_id",
                coalesce=False,
                check_sortedness=False,  # it was sorted above
            ).drop("event_timestamp")
        frame.sink_parquet(out)

    return work


def feast(folder: Path, out: Path) -> Work:
    """Feast's own SDK on its DuckDB store; applying the definitions is not measured."""
    import feast.infra.offline_stores.duckdb  # noqa: F401 # else imported within the work
    import pyarrow.parquet as pq
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64

    config = RepoConfig(
        project="history",
        provider="local",
        registry=str(out.with_suffix(".registry.db")),
        online_store=None,
        offline_store={"type": "duckdb"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    entity = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
    views = [
        FeatureView(
            name=table.name,
            entities=[entity],
            schema=[Field(name=name, dtype=Float64) for name in table.columns],
            source=FileSource(
                name=table.name,
                path=str(folder / f"{table.name}.parquet"),
                timestamp_field="event_timestamp",
                created_timestamp_column="created_timestamp",
            ),
            online=False,
        )
        for table in TABLES
    ]
    store.apply([entity, *views])

    def work() -> None:
        spine = pq.read_table(folder / "spine.parquet").rename_columns(
            ["customer_id", "event_timestamp"]
        )
        job = store.get_historical_features(
            entity_df=spine.to_pandas(),
            features=[f"{table.name}:{name}" for table in TABLES for name in table.columns],
        )
        found = job.to_arrow()
        pq.write_table(found.rename_columns({"event_timestamp": "as_of"}), out)

    return work


def ours(folder: Path, out: Path) -> Work:
    """write_historical_features on tables that were ingested and accepted before."""
    from benchmarks.ingested import accepted_in, use_case_of
    from mlops_pipeline.lifecycle.features.history import write_historical_features

    sources = {
        table.name: {
            "uri": str(folder / f"{table.name}.parquet"),
            "columns": {
                "customer_id": "int64",
                "event_timestamp": "timestamp",
                "created_timestamp": "timestamp",
                **dict.fromkeys(table.columns, "float64"),
            },
            "key": ["customer_id", "event_timestamp"],
            "event_time": "event_timestamp",
            "static": True,
        }
        for table in TABLES
    }
    views = {
        table.name: {
            "source": table.name,
            "columns": {name: {"aggregate": "last", "of": name} for name in table.columns},
        }
        for table in TABLES
    }
    use_case = use_case_of(sources, views, START)
    data = out.with_suffix(".lake")
    settings = replace(accepted_in(use_case, data), memory_limit=MEMORY_LIMIT)

    def work() -> None:
        spine = folder / "spine.parquet"
        write_historical_features(use_case, spine, FEATURES, out, settings=settings)

    return work


WAYS: dict[str, tuple[str, Callable[[Path, Path], Work]]] = {  # name: its package, the work
    "duckdb": ("duckdb", duckdb),
    "polars": ("polars", polars),
    "feast": ("feast", feast),
    "ours": ("mlops-pipeline", ours),
}


def main(way: str, folder: Path, out: Path) -> None:
    """Do the work once and print what it took."""
    package, prepared = WAYS[way]
    with contextlib.redirect_stdout(sys.stderr):
        work = prepared(folder, out)
        begun, spent = time.perf_counter(), time.process_time()
        work()
        taken = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - spent}
    found: dict[str, Any] = {**taken, "version": f"{package} {version(package)}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
