"""One way of the window aggregates, in a process of its own.

    python -m benchmarks.windows_ways WAY FOLDER

Reads `rows.parquet` of FOLDER (windows.py wrote it) and writes the features of every as_of:
`duckdb` one Parquet file each, `ours` one Delta commit each. `prepare` ingests the file for `ours`.
Prints the seconds and processor seconds of the work, imports left out, as one line of JSON.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.ingested import accepted_in, use_case_of
from benchmarks.prepared import accepted_before, settings_in
from benchmarks.world import grid_points
from mlops_pipeline.config import UseCase

ROWS, OUT, LAKE = "rows.parquet", "by_hand", "lake"  # in the folder
COLUMNS = ("data_gb", "voice_minutes", "sms_count")
AGGREGATES = ("sum", "mean", "max")
WINDOW_DAYS = (30, 90, 180)
FEATURES = {
    f"{column}_{aggregate}_{days}d": (aggregate, column, days)
    for column in COLUMNS
    for aggregate in AGGREGATES
    for days in WINDOW_DAYS
}
FIRST, LAST = "2024-01-01", "2025-06-01"
POINTS = grid_points(FIRST, LAST)
WHOLE = 12  # the newest as_of dates whose widest window lies within the data
ONE_MORE = datetime(2025, 7, 1, tzinfo=UTC)


def main(way: str, folder: Path) -> None:
    """Do the work once and print what it took."""
    with contextlib.redirect_stdout(sys.stderr):
        found = WAYS[way](folder)
    print(json.dumps(found))


def duckdb(folder: Path) -> dict[str, Any]:
    """One query per as_of as one would write it by hand, and then one more.

    Each scans the longest window.
    """
    import duckdb

    (folder / OUT).mkdir()

    def work(points: Sequence[datetime]) -> None:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET preserve_insertion_order = false")
            for point in points:
                out = folder / OUT / f"{point.date()}.parquet"
                query = _by_hand(folder / ROWS, point)
                connection.execute(f"COPY ({query}) TO '{out}' (FORMAT parquet)")
                commits.append((time.perf_counter(), time.process_time()))

    commits: list[tuple[float, float]] = []
    every = _timed(lambda: work(POINTS))
    return {
        **every,
        **_months(commits, _timed(lambda: work([ONE_MORE]))),
        "version": f"duckdb {version('duckdb')}",
    }


def _by_hand(rows: Path, point: datetime) -> str:
    moment = f"TIMESTAMPTZ '{point.date()} 00:00:00+00'"
    made = ", ".join(
        f"{aggregate}({column}) FILTER (week_end >= {moment} - INTERVAL {days} DAY) AS {name}"
        for name, (aggregate, column, days) in FEATURES.items()
    )
    return (
        f"SELECT customer_id, {moment} AS as_of, {made} FROM '{rows}' WHERE week_end < {moment} "
        f"AND week_end >= {moment} - INTERVAL {max(WINDOW_DAYS)} DAY GROUP BY customer_id"
    )


def prepare(folder: Path) -> dict[str, Any]:
    """Ingest and accept the rows, for `ours`."""
    return _timed(lambda: accepted_in(_use_case(folder), folder / LAKE))


def ours(folder: Path) -> dict[str, Any]:
    """build_features on the accepted rows: every as_of, and then one more."""
    from mlops_pipeline.lifecycle.context import Snapshot, open_context
    from mlops_pipeline.lifecycle.features.offline import build_features

    use_case, settings = _use_case(folder), settings_in(folder / LAKE)
    accepted = accepted_before(use_case, settings)
    uris: list[str] = []
    commits: list[tuple[float, float]] = []

    def build(as_of: datetime) -> None:
        with open_context(use_case, settings) as work:
            uris.append(build_features(work, Snapshot(as_of, accepted), progress=done).uri)

    def done(*_finished: object) -> None:
        commits.append((time.perf_counter(), time.process_time()))

    every = _timed(lambda: build(POINTS[-1]))
    return {
        **every,
        **_months(commits, _timed(lambda: build(ONE_MORE))),
        "uri": uris[0],
        "memory_limit": settings.memory_limit,
        "version": f"mlops-pipeline {version('mlops-pipeline')}",
    }


def _months(
    commits: Sequence[tuple[float, float]], one_more: Mapping[str, float]
) -> dict[str, float]:
    """Return what a month of full windows took, and what the one after all months did.

    `commits` are the times at which a month was written, the one more included or not.
    """
    until_whole, last = commits[len(POINTS) - WHOLE - 1], commits[len(POINTS) - 1]
    return {
        "whole_seconds": (last[0] - until_whole[0]) / WHOLE,
        "whole_cpu_seconds": (last[1] - until_whole[1]) / WHOLE,
        "one_more_seconds": one_more["seconds"],
        "one_more_cpu_seconds": one_more["cpu_seconds"],
    }


def _use_case(folder: Path) -> UseCase:
    columns = {"customer_id": "int64", "week_end": "timestamp", **dict.fromkeys(COLUMNS, "float64")}
    source = {
        "uri": str(folder / ROWS),
        "columns": columns,
        "key": ["customer_id", "week_end"],
        "event_time": "week_end",
        "static": True,
    }
    view = {
        "source": "weekly",
        "columns": {
            name: {"aggregate": aggregate, "of": column, "window_days": days}
            for name, (aggregate, column, days) in FEATURES.items()
        },
    }
    # as in the hand-written query: customers with a row in the widest window
    active = max(WINDOW_DAYS)
    return use_case_of({"weekly": source}, {"windows": view}, FIRST, active_within_days=active)


def _timed(work: Callable[[], object]) -> dict[str, Any]:
    begun, spent = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - spent}


WAYS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "duckdb": duckdb,
    "prepare": prepare,
    "ours": ours,
}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
