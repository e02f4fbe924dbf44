"""Benchmark: materializing 45 features of 4 views and reading them online, beside Feast's SDK.

Both on SQLite and Redis, each in a process of its own, from the same rows; Feast with fewer
customers, because it is slow. Redis is the database of BENCHMARK_REDIS_URL, which has to be empty
and is emptied again. The store's own level, without features, is online_store.py's.
"""

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.history_data import FEATURES, TABLES
from benchmarks.measure import run_module
from benchmarks.online_ways import EARLY_CHUNKS, redis_url
from benchmarks.result import Result, Row

CUSTOMERS, FEAST_CUSTOMERS = 500_000, 20_000
STORES, WAYS = ("sqlite", "redis"), ("ours", "feast")
Figures = dict[tuple[str, str], dict[str, Any]]  # by store and way


def main(customers: int) -> None:
    """Prepare, run both ways on both stores, compare the values, print the ratios."""
    base = os.environ.get("BENCHMARK_DIR")  # where the data fit; default: the system's
    sizes = {"ours": customers, "feast": min(customers, FEAST_CUSTOMERS)}
    found: Figures = {}
    with TemporaryDirectory(prefix="benchmark-", dir=base) as folder:
        _run("prepare", folder, sizes["ours"], str(sizes["feast"]))
        for store in STORES:
            for way in WAYS:
                with redis_emptied():
                    found[store, way] = _run(way, folder, sizes[way], store)
    check_same(found)
    Result(
        name="online",
        what=f"online read of {len(FEATURES)} features of {len(TABLES)} views in process, p99 in "
        f"microseconds of one customer and of 100 in one call (Feast's in brackets), and how many "
        f"times Feast's rows a second are materialized; {customers:,} customers (Feast "
        f"{sizes['feast']:,}), reads to Python values, of any of them; equal values",
        figure="; ".join(_figure(found, store) for store in STORES),
        target="SQLite under 500, Redis under 1,000; under 5,000; at least 20 times",
        tables={
            "Reading (microseconds)": [_reading(*item) for item in found.items()],
            "Reading: Feast's time over ours": [_times(found, store) for store in STORES],
            f"Materializing (rows of {len(FEATURES)} features)": [
                _writing(*item) for item in found.items()
            ],
        },
    ).print()


@contextmanager
def redis_emptied() -> Iterator[None]:
    """Leave the Redis database as it has to be found: empty."""
    from redis import Redis

    with Redis.from_url(redis_url()) as client:
        if client.dbsize():
            raise SystemExit("the Redis database is not empty: give another, BENCHMARK_REDIS_URL")
        try:
            yield
        finally:
            client.flushdb()


def check_same(found: Figures) -> None:
    """Stop when a way read other values than another."""
    first, *others = found
    for other in others:
        if found[other]["sample"] != found[first]["sample"]:
            raise SystemExit(f"{other} and {first} read different values")


def _run(way: str, folder: str, customers: int, last: str) -> dict[str, Any]:
    done = run_module("benchmarks.online_ways", way, str(Path(folder)), str(customers), last)
    figures: dict[str, Any] = json.loads(done.output.splitlines()[-1])
    return figures


def _speed(figures: dict[str, Any]) -> float:
    return float(figures["rows"] / figures["seconds"])


def _figure(found: Figures, store: str) -> str:
    ours, feast = (found[store, way] for way in WAYS)
    reads = " and ".join(
        f"{ours[name]:,.0f} ({feast[name]:,.0f})" for name in ("read_1_p99_us", "read_100_p99_us")
    )
    return f"{store} {reads}, {_speed(ours) / _speed(feast):.0f} times"


def _reading(key: tuple[str, str], figures: dict[str, Any]) -> Row:
    store, way = key
    return {
        "store": store,
        "way": way,
        "one customer p50": round(figures["read_1_p50_us"]),
        "p99": round(figures["read_1_p99_us"]),
        "100 customers p50": round(figures["read_100_p50_us"]),
        "100 customers p99": round(figures["read_100_p99_us"]),
        "version": figures["version"],
    }


def _times(found: Figures, store: str) -> Row:
    ours, feast = (found[store, way] for way in WAYS)
    names = [
        (f"{text} p{percent}", f"read_{count}_p{percent}_us")
        for count, text in ((1, "one customer"), (100, "100 customers"))
        for percent in (50, 99)
    ]
    return {"store": store, **{text: round(feast[name] / ours[name], 1) for text, name in names}}


def _writing(key: tuple[str, str], figures: dict[str, Any]) -> Row:
    store, way = key
    early_mb, half_mb = figures.get("early_mb"), figures.get("half_mb")
    return {
        "store": store,
        "way": way,
        "rows": figures["rows"],
        "rows/s": round(_speed(figures)),
        "rows/processor s": round(figures["rows"] / figures["cpu_seconds"]),
        "peak before (MB)": round(figures["before_mb"]),
        "peak (MB)": round(figures["peak_mb"]),
        f"growth after {EARLY_CHUNKS} chunks (MB)": ""
        if early_mb is None
        else round(figures["peak_mb"] - early_mb, 1),
        "growth of the second half (MB)": ""
        if half_mb is None
        else round(figures["peak_mb"] - half_mb, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    main(parser.parse_args().customers)
