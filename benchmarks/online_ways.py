"""One way of filling an online store with 45 features and reading them, in a process of its own.

    python -m benchmarks.online_ways prepare FOLDER CUSTOMERS FEAST_CUSTOMERS
    python -m benchmarks.online_ways ours|feast FOLDER CUSTOMERS sqlite|redis

`prepare` writes the tables, and ingests them and builds the features for `ours`: nothing of it is
measured. The others materialize every customer, then read customers at random through the reader
that an application uses, and print the figures as one line of JSON. Redis is the server of
BENCHMARK_REDIS_URL; online.py empties it.
"""

import contextlib
import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import numpy as np

from benchmarks.history_data import FEATURES, NULL_SHARE, TABLES, Table
from benchmarks.ingested import NOW, accepted_in, use_case_of
from benchmarks.prepared import accepted_before, settings_in
from mlops_pipeline.config import UseCase

if TYPE_CHECKING:
    from mlops_pipeline.stores.online.interface import OnlineStore

AS_OF = datetime(2024, 2, 1, tzinfo=UTC)
BEGIN, SPAN_SECONDS = "2024-01-01", 31 * 86_400  # the month before it
READS = {  # of each way: customers in one call: calls
    "ours": {1: 20_000, 100: 2_000},
    "feast": {1: 4_000, 100: 300},
}
WARM_UP = 100  # calls before the measured ones
SAMPLE = 20  # customers whose values are compared
EARLY_CHUNKS = 4  # written before memory is expected to be flat
TIMEOUT_MS = 10_000  # a machine that does something else does not end the run
LOCAL_REDIS = "redis://127.0.0.1:6379/14"
Values = list[list[float | None]]  # of each customer, the features in the order of FEATURES


def prepare(folder: Path, customers: int, feast_customers: int) -> None:
    """Write the tables of both, and everything up to the feature table of ours."""
    from mlops_pipeline.lifecycle.context import Snapshot, open_context
    from mlops_pipeline.lifecycle.features.offline import build_features

    for table in TABLES:
        write_table(table, _file(folder, "ours", table), customers)
        write_table(table, _file(folder, "feast", table), feast_customers)
    use_case = _use_case(folder)
    settings = accepted_in(use_case, folder / "lake")
    with open_context(use_case, settings) as work:
        build_features(work, Snapshot(AS_OF, accepted_before(use_case, settings)))


def write_table(table: Table, path: Path, customers: int) -> None:
    """Write one row of each customer, at the customer's own odd second of the month."""
    import duckdb

    values = ", ".join(
        f"CASE WHEN hash(customer_id, '{name} null') % 1000 >= {NULL_SHARE * 1000:.0f} "
        f"THEN round((hash(customer_id, '{name}') % 1000000) / 1e3, 3) END AS {name}"
        for name in table.columns
    )
    second = f"(hash(customer_id, '{table.name}') % {SPAN_SECONDS // 2} * 2 + 1)::BIGINT"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"COPY (SELECT customer_id, "
            f"TIMESTAMPTZ '{BEGIN}' + to_seconds({second}) AS event_timestamp, {values} "
            f"FROM range({customers}) customers(customer_id)) TO '{path}' (FORMAT parquet)"
        )


def ours(folder: Path, customers: int, kind: str) -> dict[str, Any]:
    """materialize() into the store, and OnlineReader.read()."""
    import deltalake  # noqa: F401 # as Feast's below: else imported within the work
    import duckdb  # noqa: F401
    import ibis  # noqa: F401

    from mlops_pipeline.lifecycle.context import open_context
    from mlops_pipeline.lifecycle.features.online.materialize import materialize, open_writer
    from mlops_pipeline.lifecycle.features.online.reader import open_reader

    use_case, settings = _use_case(folder), settings_in(folder / "lake")
    url = redis_url() if kind == "redis" else f"sqlite:///{folder / 'ours.db'}"
    settings = replace(settings, online_url=url, online_timeout_ms=TIMEOUT_MS)
    accepted = accepted_before(use_case, settings)
    with open_context(use_case, settings) as work, open_writer(settings) as store:
        watched = _Watched(store, customers // 2)
        begun_mb = _peak_mb()
        filled = _filled(
            lambda: (
                materialize(work, accepted, cast("OnlineStore", watched), through=NOW, now=NOW).rows
            ),
            customers,
        )
    with open_reader(use_case, settings) as reader:

        def read(keys: Sequence[int]) -> list[dict[str, Any]]:
            return [one.values.plain() for one in reader.read(keys, FEATURES)]

        sample: Values = [[one[name] for name in FEATURES] for one in read(range(SAMPLE))]
        taken = _reads("ours", read, customers)
    about = {
        "before_mb": begun_mb,
        "early_mb": watched.early_mb,
        "half_mb": watched.half_mb,
        "version": f"mlops-pipeline {version('mlops-pipeline')}",
    }
    return {**filled, **taken, **about, "sample": sample}


def feast(folder: Path, customers: int, kind: str) -> dict[str, Any]:
    """Feast's SDK: materialize(), and get_online_features() to Python values."""
    store = _feast_store(folder, kind)
    names = [f"{table.name}:{name}" for table in TABLES for name in table.columns]

    def read(keys: Sequence[int]) -> Mapping[str, Any]:
        rows = [{"customer_id": key} for key in keys]
        found: Mapping[str, Any] = store.get_online_features(
            features=names, entity_rows=rows
        ).to_dict()
        return found

    def fill() -> int:
        store.materialize(datetime.fromisoformat(BEGIN).replace(tzinfo=UTC), AS_OF)
        return customers

    begun_mb = _peak_mb()
    filled = _filled(fill, customers)
    columns = read(range(SAMPLE))
    sample: Values = [[columns[name][row] for name in FEATURES] for row in range(SAMPLE)]
    about = {"before_mb": begun_mb, "version": f"feast {version('feast')}"}
    return {**filled, **_reads("feast", read, customers), **about, "sample": sample}


def redis_url() -> str:
    """Return the address of the Redis database to use."""
    return os.environ.get("BENCHMARK_REDIS_URL", LOCAL_REDIS)


def _feast_store(folder: Path, kind: str) -> Any:
    import feast.infra.offline_stores.duckdb  # noqa: F401 # else imported within the work
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64

    online: dict[str, Any] = {"type": "sqlite", "path": str(folder / "feast.db")}
    if kind == "redis":
        online = {"type": "redis", "connection_string": _feast_address(redis_url())}
    config = RepoConfig(
        project="online",
        provider="local",
        registry=str(folder / f"feast-{kind}.registry.db"),
        online_store=online,
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
                path=str(_file(folder, "feast", table)),
                timestamp_field="event_timestamp",
            ),
        )
        for table in TABLES
    ]
    store.apply([entity, *views])
    return store


def _feast_address(url: str) -> str:
    parts = urlsplit(url)
    secret = f",password={parts.password}" if parts.password else ""
    return f"{parts.hostname}:{parts.port or 6379},db={parts.path.strip('/') or 0}{secret}"


def _use_case(folder: Path) -> UseCase:
    sources = {
        table.name: {
            "uri": str(_file(folder, "ours", table)),
            "columns": {
                "customer_id": "int64",
                "event_timestamp": "timestamp",
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
    return use_case_of(sources, views, AS_OF.date().isoformat())


def _file(folder: Path, way: str, table: Table) -> Path:
    return folder / f"{way}-{table.name}.parquet"


def _filled(fill: Callable[[], int], customers: int) -> dict[str, float]:
    """Materialize once and return what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    rows = fill()
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    if rows != customers:
        raise SystemExit(f"{rows:,} of {customers:,} customers were materialized")
    return {"rows": rows, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": _peak_mb()}


def _reads(way: str, read: Callable[[Sequence[int]], object], customers: int) -> dict[str, float]:
    """Return percentiles of the microseconds that reads of random customers take."""
    figures: dict[str, float] = {}
    for count, calls in READS[way].items():
        draw, took = random.Random(count), []
        for _ in range(WARM_UP + calls):
            keys = [draw.randrange(customers) for _ in range(count)]
            begun = time.perf_counter_ns()
            read(keys)
            took.append((time.perf_counter_ns() - begun) / 1e3)
        for percent in (50, 99):
            figures[f"read_{count}_p{percent}_us"] = float(np.percentile(took[WARM_UP:], percent))
    return figures


class _Watched:
    """A store that notes the peak memory of the process after its first chunks, and half way."""

    def __init__(self, store: "OnlineStore", half: int) -> None:
        self._store, self._half, self._chunks, self._rows = store, half, 0, 0
        self.early_mb: float | None = None
        self.half_mb: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write_records(self, *arguments: Any, **named: Any) -> int:
        self._chunks += 1
        if self._chunks == EARLY_CHUNKS + 1:
            self.early_mb = _peak_mb()
        written = self._store.write_records(*arguments, **named)
        self._rows += written
        if self.half_mb is None and self._rows >= self._half:
            self.half_mb = _peak_mb()
        return written


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(way: str, folder: Path, customers: int, last: str) -> None:
    """Do what was asked for and print what it took."""
    found: dict[str, Any] = {}
    with contextlib.redirect_stdout(sys.stderr):
        if way == "prepare":
            prepare(folder, customers, int(last))
        else:
            found = {"ours": ours, "feast": feast}[way](folder, customers, last)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
