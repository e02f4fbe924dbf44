"""Benchmark: 27 window aggregates over 39 million weekly rows on 18 monthly as_of dates.

A hand-written DuckDB query for each as_of beside the features step on the same rows, ingested
before; each in a process of its own. Both have to come to the same values.
"""

import argparse
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measure import Measured, run_module
from benchmarks.result import Result, Row
from benchmarks.windows_ways import COLUMNS, FEATURES, LAST, OUT, POINTS, ROWS, WHOLE

CUSTOMERS, WEEKS = 500_000, 78
BEGIN = "2023-12-25"  # a week before the first as_of: every customer has a row before it
WEEK_SECONDS = 7 * 86_400
NULL_SHARE = 0.03
TOLERANCE = 1e-6  # of sums over all rows of an as_of, relative: values are rounded to 4 places
MEASURED = ("duckdb", "ours")
Sums = Mapping[tuple[str, str], float]


def main(customers: int) -> None:
    """Make the data, run both ways, compare what they wrote, print the ratios."""
    base = os.environ.get("BENCHMARK_DIR")  # where the data fit; default: the system's
    runs: dict[str, tuple[Measured, dict[str, Any]]] = {}
    with TemporaryDirectory(prefix="benchmark-", dir=base) as name:
        folder = Path(name)
        rows = write_rows(folder / ROWS, customers)
        run_module("benchmarks.windows_ways", "prepare", name)
        for way in MEASURED:
            done = run_module("benchmarks.windows_ways", way, name)
            runs[way] = (done, json.loads(done.output.splitlines()[-1]))
        by_hand = sums([str(path) for path in (folder / OUT).iterdir()])
        check_same(sums(_files(runs["ours"][1]["uri"])), by_hand)
    hand, ours = (runs[way][1] for way in MEASURED)
    cpu_ratio = ours["cpu_seconds"] / hand["cpu_seconds"]
    share, of_whole = (ours["one_more_seconds"] / ours[of] for of in ("seconds", "whole_seconds"))
    Result(
        name="windows",
        what=f"window aggregates: {len(FEATURES)} features of {rows:,} weekly rows ({customers:,} "
        f"customers) on {len(POINTS)} as_of dates; the features step on ingested rows, written to "
        "Delta, over a hand-written DuckDB query per as_of, Parquet to Parquet; equal counts and "
        "sums. The data begin with the first as_of, so the first six see part of their widest "
        f"window and the {WHOLE} newest all of it",
        figure=f"{ours['seconds'] / hand['seconds']:.2f} (processor time {cpu_ratio:.2f}), "
        f"{runs['ours'][0].peak_mb:,} MB, one more month {of_whole:.2f} of a month whose windows "
        f"are full, {share:.3f} of all (by hand "
        f"{hand['one_more_seconds'] / hand['seconds']:.3f})",
        target=f"at most 1.3, at most 1,500 MB, one month's share: {1 / len(POINTS):.3f}",
        tables={
            "Ways (work without imports)": [_row(way, *run) for way, run in runs.items()],
            f"Months, seconds (processor seconds); a full one: mean of the newest {WHOLE}": [
                _months(way, taken) for way, (_, taken) in runs.items()
            ],
        },
    ).print()


def _months(way: str, taken: Mapping[str, Any]) -> Row:
    """Return what months took, in seconds (in brackets processor seconds)."""

    def seconds(what: str) -> str:
        return f"{taken[f'{what}seconds']:.2f} ({taken[f'{what}cpu_seconds']:.2f})"

    return {
        "way": way,
        f"all {len(POINTS)}": seconds(""),
        "a full one": seconds("whole_"),
        "one more": seconds("one_more_"),
        "one more / all": round(taken["one_more_seconds"] / taken["seconds"], 3),
        "one more / a full one": round(taken["one_more_seconds"] / taken["whole_seconds"], 2),
    }


def write_rows(path: Path, customers: int) -> int:
    """Write a row for each week and customer, in the order of the weeks; return how many.

    Values come from hashes. A customer's week ends at the customer's own odd second, which is
    never midnight.
    """
    import duckdb

    values = ", ".join(
        f"CASE WHEN hash(customer_id, week, '{name} null') % 1000 >= {NULL_SHARE * 1000:.0f} "
        f"THEN round((hash(customer_id, week, '{name}') % 1000000) / 1e3, 3) END AS {name}"
        for name in COLUMNS
    )
    second = f"hash(customer_id, 'second') % {WEEK_SECONDS // 2} * 2 + 1"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        written = connection.execute(
            f"COPY (SELECT customer_id, TIMESTAMPTZ '{BEGIN}' "
            f"+ to_seconds(week * {WEEK_SECONDS} + ({second})::BIGINT) AS week_end, {values} "
            f"FROM (SELECT number % {customers} AS customer_id, number // {customers} AS week "
            f"FROM range({customers * WEEKS}) numbers(number))) TO '{path}' (FORMAT parquet)"
        ).fetchall()
    return int(written[0][0])


def sums(files: Sequence[str]) -> Sums:
    """Return for each as_of the rows, and of each feature the values and their weighted sum.

    The weight depends on the customer: values of another customer give another sum.
    """
    import duckdb

    found = ", ".join(
        f"count({name}) AS {name}_values, "
        f"coalesce(sum({name} * (1 + customer_id % 97)), 0)::DOUBLE AS {name}"
        for name in FEATURES
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        table = connection.sql(
            f"SELECT strftime(as_of, '%Y-%m-%d') AS point, count(*) AS rows, "
            f"sum(customer_id)::DOUBLE AS keys, {found} FROM read_parquet({list(files)}) "
            f"GROUP BY ALL HAVING point <= '{LAST}'"
        ).to_arrow_table()
    return {
        (row["point"], name): float(value)
        for row in table.to_pylist()
        for name, value in row.items()
        if name != "point"
    }


def check_same(found: Sums, expected: Sums) -> None:
    """Stop when counts are not equal, or sums further apart than the tolerance."""
    other = [
        f"{name} of {point}"
        for point, name in found.keys() | expected.keys()
        if not math.isclose(
            found.get((point, name), math.nan),
            expected.get((point, name), math.nan),
            rel_tol=TOLERANCE if name in FEATURES else 0.0,
        )
    ]
    if other:
        raise SystemExit(f"ours and the hand-written query differ in {', '.join(other[:8])}")


def _files(uri: str) -> list[str]:
    from deltalake import DeltaTable

    return list(DeltaTable(uri).file_uris())


def _row(way: str, measured: Measured, taken: Mapping[str, Any]) -> Row:
    return {
        "way": way,
        "seconds": round(taken["seconds"], 1),
        "processor seconds": round(taken["cpu_seconds"], 1),
        "peak (MB)": measured.peak_mb,
        "memory limit": taken.get("memory_limit", "DuckDB's own"),
        "version": taken["version"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    main(parser.parse_args().customers)
