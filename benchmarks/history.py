"""Benchmark: the newest values of 45 features from 4 tables for 6 million (entity, as_of) rows.

Every way reads the same Parquet files and writes one; each runs in a process of its own, and all
have to write the same rows and values.
"""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.history_data import FEATURES, MONTHS, TABLES, write_data
from benchmarks.history_ways import WAYS
from benchmarks.measure import Measured, run_module
from benchmarks.result import Result, Row

ENTITIES = 500_000
BY_HAND = "duckdb"  # what the others are compared with


def main(entities: int) -> None:
    """Make the data, run every way, compare what they wrote, print the ratios."""
    base = os.environ.get("BENCHMARK_DIR")  # where the data fit; default: the system's
    runs: dict[str, tuple[Measured, dict[str, Any]]] = {}
    contents: dict[str, dict[str, int]] = {}
    with TemporaryDirectory(prefix="benchmark-", dir=base) as name:
        folder = Path(name)
        counts = write_data(folder, entities)
        for way in WAYS:
            out = folder / f"{way}.out.parquet"
            done = run_module("benchmarks.history_ways", way, str(folder), str(out))
            runs[way] = (done, json.loads(done.output.splitlines()[-1]))
            contents[way] = content(out)
            out.unlink()
    for way, found in contents.items():
        check_same(way, found, contents[BY_HAND])
    rows = [_row(way, *run) for way, run in runs.items()]
    Result(
        name="history",
        what=f"point-in-time join: {len(FEATURES)} latest-value features of {len(TABLES)} tables "
        f"for {counts['spine']:,} (entity, as_of) rows, {entities:,} entities x {MONTHS} as_of; "
        "every way wrote the same rows and values",
        figure=_figure(runs),
        target="at most 1.1 of the hand-written query, and at most 3 GB",
        tables={
            "Ways (Parquet to Parquet; work without imports)": rows,
            "Rows": [{"table": name, "rows": count} for name, count in counts.items()],
        },
    ).print()


def content(path: Path) -> dict[str, int]:
    """Return what a result holds, whatever the order of its rows.

    The rows, and for each feature a sum of hashes over (entity, as_of, value) and how many are
    missing.
    """
    import duckdb

    key = "customer_id, epoch_us(as_of)"
    sums = ", ".join(
        f"sum(hash({key}, {name})::HUGEINT) AS {name}, "
        f"count(*) FILTER ({name} IS NULL) AS {name}_missing"
        for name in FEATURES
    )
    with duckdb.connect() as connection:
        found = connection.sql(
            f"SELECT count(*) AS rows, sum(hash({key})::HUGEINT) AS keys, {sums} FROM '{path}'"
        )
        return dict(zip(found.columns, found.fetchall()[0], strict=True))


def check_same(way: str, found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Stop when two ways wrote other rows or values."""
    other = [name for name, value in expected.items() if found[name] != value]
    if other:
        raise SystemExit(f"{way} and {BY_HAND} differ in {', '.join(other[:8])}")


def _figure(runs: Mapping[str, tuple[Measured, Mapping[str, Any]]]) -> str:
    floor = runs[BY_HAND][1]["seconds"]
    return ", ".join(
        f"{way} {taken['seconds'] / floor:.2f}"
        for way, (_, taken) in runs.items()
        if way != BY_HAND
    )


def _row(way: str, measured: Measured, taken: Mapping[str, Any]) -> Row:
    return {
        "way": way,
        "seconds": round(taken["seconds"], 1),
        "processor seconds": round(taken["cpu_seconds"], 1),
        "peak (MB)": measured.peak_mb,
        "with imports and ingestion (s)": round(measured.seconds, 1),
        "version": taken["version"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", "--customers", type=int, default=ENTITIES)
    main(parser.parse_args().entities)
