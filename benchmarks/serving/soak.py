"""Benchmark: the prediction service at 80 % of its highest load for a while.

The highest load is measured first, for ten seconds; then wrk's connections pause between requests
so that about 80 % of it is asked. Meanwhile a version goes from shadow to full, stage by stage. In
slices of half a minute: answers, latencies, memory.
"""

import argparse
import os
import statistics
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import PAGE_BYTES
from benchmarks.result import Result, Row
from benchmarks.serving.__main__ import CONNECTIONS, load, running
from benchmarks.serving.peers import ours
from benchmarks.serving.world import make_project
from mlops_pipeline.core.rollout.machine import Event
from mlops_pipeline.lifecycle.rollouts import get_rollout, send
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

SHARE, SLICE_SECONDS, SECONDS = 0.8, 30, 600


def main(seconds: int) -> None:
    """Load the service, and print what each slice saw."""
    with TemporaryDirectory(dir=os.environ.get("BENCHMARK_DIR")) as folder:
        root = Path(folder)
        server = ours(
            root / "disk", 8_421, make_project(root / "disk", "disk", is_tried=True), "ours"
        )
        with running(server, root) as (process, _):
            highest = load(server, process, root, 10)
            pause_ms = CONNECTIONS / (SHARE * highest["rate"]) * 1e3 - highest["p50_us"] / 1e3
            rows: list[Row] = []
            failed = 0.0
            for begun in range(0, seconds, SLICE_SECONDS):
                stage = _stage(root / "disk", begun / seconds)
                found = load(server, process, root, SLICE_SECONDS, pause_ms=max(pause_ms, 1))
                failed += found["failed"]
                rows.append(
                    {
                        "second": begun,
                        "stage": stage,
                        "answers/s": round(found["rate"]),
                        "p50 (ms)": round(found["p50_us"] / 1e3, 1),
                        "p99 (ms)": round(found["p99_us"] / 1e3, 1),
                        "memory (MB)": round(_resident_mb(process)),
                        "not answered": int(found["failed"]),
                    }
                )
    rates = [float(row["answers/s"]) for row in rows]
    grown = float(rows[-1]["memory (MB)"]) - float(rows[0]["memory (MB)"])
    Result(
        name="serving.soak",
        what=f"{seconds} seconds at {statistics.mean(rates) / highest['rate']:.0%} of the highest "
        f"load ({highest['rate']:.0f} answers a second), {CONNECTIONS} connections, answers synced",
        figure=f"{int(failed)} not answered of {sum(rates) * SLICE_SECONDS:,.0f}; memory "
        f"{grown:+.0f} MB after the first slice",
        target="no errors, p99 steady, memory flat",
        tables={"": rows},
    ).print()


def _stage(folder: Path, share_of_time: float) -> str:
    """Let the version in trial enter the stage that it should be in by now; return its name."""
    settings = Settings.from_environment({"MLOPS_DATA_DIR": str(folder / "data")})
    with OpsDatabase.open(settings.database_url) as ops:
        rollout = get_rollout(ops, "bench", 2)
        wanted = int(share_of_time * len(rollout.stages))
        while rollout.stage is not None and rollout.stage < wanted:
            event = Event("pass", "bench", "its time has come", datetime.now(UTC))
            rollout = send(ops, rollout, event)
    return str(rollout.stage_name)


def _resident_mb(process: int) -> float:
    pages = int((Path("/proc") / str(process) / "statm").read_text().split()[1])
    return pages * PAGE_BYTES / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    main(parser.parse_args().seconds)
