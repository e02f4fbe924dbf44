"""Benchmark (a): the whole lifecycle beside hand-written features and fits of the same candidates.

The lifecycle also ingests, validates, versions, calibrates, tracks, evaluates, refits, registers
and deploys; the floor does none of that.
"""

import argparse
import json

from benchmarks.measure import Measured, run_module
from benchmarks.result import Result, Row, parts
from benchmarks.world import new_world, run_lifecycle, step_seconds

CUSTOMERS = 500_000


def main(customers: int) -> None:
    """Simulate, run both, print the ratio and where the time went."""
    with new_world(customers) as world:
        floor = run_module("benchmarks.floor", str(world.sources), str(world.folder / "floor"))
        ours = run_lifecycle(world)
        steps = step_seconds(world)
    by_hand = json.loads(floor.output.splitlines()[-1])
    steps["outside the steps (start, imports)"] = ours.seconds - sum(steps.values())
    by_hand["seconds"]["outside the parts (start, imports)"] = floor.seconds - sum(
        by_hand["seconds"].values()
    )
    rows = ", ".join(f"{count:,} {name}" for name, count in by_hand["rows"].items())
    Result(
        name="lifecycle",
        what=f"lifecycle wall time at {customers:,} customers, 24 months / hand-written DuckDB "
        f"feature queries + construct + fit of the same candidates ({rows} rows)",
        figure=f"{ours.seconds / floor.seconds:.2f} (processor time "
        f"{ours.cpu_seconds / floor.cpu_seconds:.2f})",
        target="at most 2, with at most 8 GB",
        tables={
            "Both": [_row("lifecycle", ours), _row("by hand", floor)],
            "Lifecycle, by step": parts(steps, column="step"),
            "By hand": parts(by_hand["seconds"]),
        },
    ).print()


def _row(name: str, measured: Measured) -> Row:
    return {
        "run": name,
        "seconds": round(measured.seconds, 1),
        "processor seconds": round(measured.cpu_seconds, 1),
        "largest process (MB)": measured.peak_mb,
        "all processes (MB)": measured.peak_tree_mb,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    main(parser.parse_args().customers)
