"""Benchmark: reading and writing records of 45 features in both online stores.

    python -m benchmarks.online_store [--rows N] [--store sqlite|redis]

Without --store each store runs in a process of its own. Redis is the server of BENCHMARK_REDIS_URL;
what is written there is removed again. Encoding and decoding are included.
"""

import argparse
import json
import os
import random
import resource
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.measure import Measured, run_module
from benchmarks.result import Result, Row
from mlops_pipeline.stores.online.codec import RecordSchema
from mlops_pipeline.stores.online.interface import (
    OnlineStore,
    OnlineTable,
    StoredRecord,
    open_online_store,
)

ROWS = 500_000
FEATURES = [f"feature_{number:02d}" for number in range(45)]
NULL_SHARE = 0.03
CHUNK_ROWS = 10_000
STORES = ("sqlite", "redis")
READS = {1: 20_000, 100: 2_000}  # entities in one call: calls
WARM_UP = 100  # calls before the measured ones
TIMEOUT_MS = 10_000
LOCAL_REDIS = "redis://127.0.0.1:6379/15"
SCHEMA = RecordSchema(FEATURES, ["float64"] * len(FEATURES), "benchmark")


def main(rows: int) -> None:
    """Run each store and print what both took."""
    runs = {
        store: run_module("benchmarks.online_store", "--rows", str(rows), "--store", store)
        for store in STORES
    }
    found = {store: json.loads(run.output.splitlines()[-1]) for store, run in runs.items()}
    Result(
        name="online_store",
        what=f"online read of {len(FEATURES)} features in process, p99 in microseconds: of one "
        f"entity, of 100 in one call; {rows:,} records are held",
        figure=", ".join(
            f"{store} {figures['read_1_p99_us']:.0f} and {figures['read_100_p99_us']:.0f}"
            for store, figures in found.items()
        ),
        target="SQLite under 500, Redis under 1,000; under 5,000",
        tables={
            "Reading (microseconds)": [_reading(*item) for item in found.items()],
            "Writing": [_writing(name, found[name], runs[name]) for name in STORES],
        },
    ).print()


def measure(kind: str, rows: int) -> dict[str, float]:
    """Fill one store, write every record once more, read; return the figures."""
    base = os.environ.get("BENCHMARK_DIR")  # where the data fit; default: the system's
    with TemporaryDirectory(prefix="benchmark-", dir=base) as folder:
        url = f"sqlite:///{Path(folder) / 'online.db'}"
        if kind == "redis":
            url = os.environ.get("BENCHMARK_REDIS_URL", LOCAL_REDIS)
        with open_online_store(url, timeout_ms=TIMEOUT_MS) as store:
            table = OnlineTable(f"benchmark_{uuid.uuid4().hex}", "daily")
            try:
                return _figures(store, table, rows)
            finally:
                store.drop(table)


def _figures(store: OnlineStore, table: OnlineTable, rows: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, day in (("write", 1), ("rewrite", 2)):
        figures |= {f"{name}_{key}": value for key, value in _write(store, table, rows, day)}
    for entities, calls in READS.items():
        took = list(_read(store, table, rows, entities, calls))[WARM_UP:]
        for percent in (50, 99):
            figures[f"read_{entities}_p{percent}_us"] = float(np.percentile(took, percent))
    return figures


def _write(
    store: OnlineStore, table: OnlineTable, rows: int, day: int
) -> Iterator[tuple[str, float]]:
    """Write all records in chunks; the making of the data is not counted."""
    generator = np.random.default_rng(day)
    seconds = cpu_seconds = 0.0
    early_mb = _peak_mb()
    for begin in range(0, rows, CHUNK_ROWS):
        count = min(CHUNK_ROWS, rows - begin)
        data = _batch(generator, count)
        keys = [str(number) for number in range(begin, begin + count)]
        wall, cpu = time.perf_counter(), time.process_time()
        blobs = SCHEMA.encode_batch(data, day)
        records = [
            StoredRecord(key, day, None, blob) for key, blob in zip(keys, blobs, strict=True)
        ]
        store.write_records(table, records, now_us=day, checkpoint=str(begin))
        seconds += time.perf_counter() - wall
        cpu_seconds += time.process_time() - cpu
        if begin == 4 * CHUNK_ROWS:
            early_mb = _peak_mb()
    yield "rows_per_second", rows / seconds
    yield "rows_per_cpu_second", rows / cpu_seconds
    yield "memory_growth_mb", _peak_mb() - early_mb


def _batch(generator: np.random.Generator, count: int) -> pa.Table:
    values = generator.normal(size=(len(FEATURES), count)).round(4)
    missing = generator.random((len(FEATURES), count)) < NULL_SHARE
    columns = (pa.array(*pair) for pair in zip(values, [None] * len(values), missing, strict=True))
    return pa.table(dict(zip(FEATURES, columns, strict=True)))


def _read(
    store: OnlineStore, table: OnlineTable, rows: int, entities: int, calls: int
) -> Iterator[float]:
    """Read random entities; yield the microseconds of each call."""
    draw = random.Random(entities)
    for _ in range(calls + WARM_UP):
        keys = [str(draw.randrange(rows)) for _ in range(entities)]
        yield _timed_us(_decoded, store, table, keys)


def _decoded(store: OnlineStore, table: OnlineTable, keys: Sequence[str]) -> list[Any]:
    blobs = store.read_records(table, keys, now_us=3)
    return [SCHEMA.decode(blob) for blob in blobs if blob is not None]


def _timed_us(call: Callable[..., Any], *arguments: Any) -> float:
    begun = time.perf_counter_ns()
    call(*arguments)
    return (time.perf_counter_ns() - begun) / 1e3


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _reading(store: str, figures: dict[str, float]) -> Row:
    return {
        "store": store,
        "one entity p50": round(figures["read_1_p50_us"], 1),
        "p99": round(figures["read_1_p99_us"], 1),
        "100 entities p50": round(figures["read_100_p50_us"]),
        "100 entities p99": round(figures["read_100_p99_us"]),
    }


def _writing(store: str, figures: dict[str, float], run: Measured) -> Row:
    return {
        "store": store,
        "new (rows/s)": round(figures["write_rows_per_second"]),
        "new (rows/processor s)": round(figures["write_rows_per_cpu_second"]),
        "again (rows/s)": round(figures["rewrite_rows_per_second"]),
        "growth after 50,000 rows (MB)": round(figures["write_memory_growth_mb"], 1),
        "peak (MB)": run.peak_mb,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", "--customers", type=int, default=ROWS)
    parser.add_argument("--store", choices=STORES, help="measure this one in this process")
    given = parser.parse_args()
    if given.store is None:
        main(given.rows)
    else:
        print(json.dumps(measure(given.store, given.rows)))
