"""Benchmark (d): the demo's lifecycle beside the same `dagster job execute` with empty assets."""

import argparse

from benchmarks.measure import Measured
from benchmarks.result import Result, Row, parts
from benchmarks.world import execute_job, new_world, run_lifecycle, step_seconds

CUSTOMERS = 20_000
NAMED_PARTS = 3


def main(customers: int) -> None:
    """Run both in a warm environment and name the biggest parts."""
    with new_world(customers) as world:
        execute_job(world, "benchmarks.empty_assets", "empty_lifecycle")  # warms byte code
        empty = execute_job(world, "benchmarks.empty_assets", "empty_lifecycle")
        ours = run_lifecycle(world)
        steps = step_seconds(world)
    steps["outside the steps (start, imports)"] = ours.seconds - sum(steps.values())
    rows = parts(steps, column="step")
    biggest = ", ".join(f"{row['step']} {row['seconds']} s" for row in rows[:NAMED_PARTS])
    Result(
        name="demo",
        what=f"the demo's lifecycle ({customers:,} customers, fresh data folder) / the same job "
        "with seven empty assets",
        figure=f"{ours.seconds / empty.seconds:.1f}",
        target="reported; the biggest parts: " + biggest,
        tables={
            "Both": [
                _row("lifecycle", ours),
                _row("seven empty assets", empty),
            ],
            "Lifecycle, by step": rows,
        },
    ).print()


def _row(name: str, measured: Measured) -> Row:
    return {
        "run": name,
        "seconds": round(measured.seconds, 1),
        "processor seconds": round(measured.cpu_seconds, 1),
        "largest process (MB)": measured.peak_mb,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    main(parser.parse_args().customers)
