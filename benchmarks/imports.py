"""Benchmark (c): importing the code location beside importing dagster, in fresh processes."""

import json
import statistics
import sys
from typing import Any

from benchmarks.measure import run_measured

REPEATS = 7
TARGET = 1.5


def measure_imports(repeats: int = REPEATS) -> dict[str, Any]:
    """Return the median seconds of both, alternating, and their ratio."""
    seconds: dict[str, list[float]] = {"dagster": [], "mlops_pipeline.definitions": []}
    for name in seconds:  # once unmeasured: byte code and file cache are warm
        _import(name)
    for _ in range(repeats):
        for name, found in seconds.items():
            found.append(_import(name))
    floor, ours = (statistics.median(found) for found in seconds.values())
    return {
        "name": "imports",
        "what": "import of the code location / import of dagster, fresh processes, median of "
        f"{repeats}, alternating",
        "ratio": round(ours / floor, 3),
        "target": f"at most {TARGET}",
        "seconds": {"dagster": round(floor, 2), "code location": round(ours, 2)},
    }


def _import(name: str) -> float:
    return run_measured([sys.executable, "-c", f"import {name}"]).seconds


if __name__ == "__main__":
    print(json.dumps(measure_imports()))
