"""Benchmark (d): the demo's lifecycle beside the same `dagster job execute` with empty assets."""

import argparse

from benchmarks.result import Result, parts
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
                {"run": "lifecycle", "seconds": round(ours.seconds, 1), "MB": ours.peak_mb},
                {"run": "seven empty assets", "seconds": round(empty.seconds, 1)}
                | {"MB": empty.peak_mb},
            ],
            "Lifecycle, by step": rows,
        },
    ).print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    main(parser.parse_args().customers)
