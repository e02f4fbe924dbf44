"""Benchmark (c): importing the code location beside importing dagster, in fresh processes."""

import statistics
import sys

from benchmarks.measure import run_measured
from benchmarks.result import Result, parts

REPEATS = 7


def main() -> None:
    """Print the median seconds of both, alternating, and their ratio."""
    seconds: dict[str, list[float]] = {"dagster": [], "mlops_pipeline.definitions": []}
    for name in seconds:  # once unmeasured: byte code and file cache are warm
        _import(name)
    for _ in range(REPEATS):
        for name, found in seconds.items():
            found.append(_import(name))
    floor, ours = (statistics.median(found) for found in seconds.values())
    Result(
        name="imports",
        what="import of the code location / import of dagster (fresh processes, median of "
        f"{REPEATS}, alternating)",
        figure=f"{ours / floor:.2f}",
        target="at most 1.5",
        tables={"": parts({name: statistics.median(found) for name, found in seconds.items()})},
    ).print()


def _import(name: str) -> float:
    return run_measured([sys.executable, "-c", f"import {name}"]).seconds


if __name__ == "__main__":
    main()
