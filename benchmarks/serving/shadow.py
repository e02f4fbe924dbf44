"""Benchmark: what scoring beside the answers costs those who wait for them.

Two services of one worker, one of them with a version in shadow beside its champion, the same model
again. Rounds alternate: the highest load of each; then both are asked 80 % of what the one with a
shadow can answer, and latencies are compared in the same round; medians are shown.
"""

import argparse
import os
import statistics
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import func, select

from benchmarks.result import Result, Row
from benchmarks.serving.__main__ import CONNECTIONS, Figures, load, running
from benchmarks.serving.peers import ours
from benchmarks.serving.world import make_project
from mlops_pipeline.stores.predictions import PREDICTION, SHADOW, PredictionLog
from mlops_pipeline.stores.settings import Settings

SHARE, SECONDS, ROUNDS = 0.8, 6, 5
ALONE, BESIDE = "no version in trial", "a version in shadow"


def main(seconds: int, rounds: int) -> None:
    """Load both, and print what their clients saw."""
    highest: list[list[Figures]] = []
    steady: list[list[Figures]] = []
    with TemporaryDirectory(dir=os.environ.get("BENCHMARK_DIR")) as folder:
        root = Path(folder)
        servers = [
            ours(root / name, port, make_project(root / name, "disk", is_tried=is_tried), name)
            for name, port, is_tried in ((ALONE, 8_431, False), (BESIDE, 8_432, True))
        ]
        with ExitStack() as stack:
            pairs = [(one, stack.enter_context(running(one, root))[0]) for one in servers]
            for _ in range(rounds):
                highest.append([load(one, process, root, seconds) for one, process in pairs])
                asked = SHARE * highest[-1][1]["rate"]
                steady.append(
                    [
                        load(one, process, root, seconds, pause_ms=max(_pause_ms(asked, at), 1))
                        for (one, process), at in zip(pairs, highest[-1], strict=True)
                    ]
                )
        scored = [_scored(root / name) for name in (ALONE, BESIDE)]
    report(highest, steady, scored).print()


def _scored(folder: Path) -> float:
    """Return the share of answers that another version scored, too."""
    settings = Settings.from_environment({"MLOPS_DATA_DIR": str(folder / "data")})
    with PredictionLog(settings.predictions_url) as log, log.transaction() as connection:
        counts = [
            connection.scalar(select(func.count()).select_from(one)) for one in (SHADOW, PREDICTION)
        ]
    return float(counts[0] / counts[1])


def _pause_ms(asked: float, highest: Figures) -> float:
    return CONNECTIONS / asked * 1e3 - highest["p50_us"] / 1e3


def report(
    highest: list[list[Figures]], steady: list[list[Figures]], scored: list[float]
) -> Result:
    """Return the medians, and the medians of the ratios in each round."""
    rows: list[Row] = [
        {
            "service": name,
            "highest load (answers/s)": round(_median(highest, place, "rate")),
            "processor (us/answer)": round(_median(highest, place, "cpu_us")),
            "asked (answers/s)": round(_median(steady, place, "rate")),
            "p50 (ms)": round(_median(steady, place, "p50_us") / 1e3, 1),
            "p99 (ms)": round(_median(steady, place, "p99_us") / 1e3, 1),
            "scored beside (%)": round(100 * scored[place], 2),
            "not answered": int(sum(one[place]["failed"] for one in (*highest, *steady))),
        }
        for place, name in enumerate((ALONE, BESIDE))
    ]
    slower = statistics.median(one[1]["p99_us"] / one[0]["p99_us"] for one in steady)
    kept = statistics.median(one[1]["rate"] / one[0]["rate"] for one in highest)
    cost = statistics.median(one[0]["cpu_us"] / one[1]["cpu_us"] for one in highest)
    return Result(
        name="serving.shadow",
        what=f"p99 at 80 % of the highest load with a version in shadow / without one, "
        f"{CONNECTIONS} connections, answers synced",
        figure=f"p99 {slower:.2f} of that without; highest load {kept:.2f} of that without, "
        f"where the processor time allows {cost:.2f}",
        target="p99 at most 1.3 of that without; no errors",
        tables={"": rows},
    )


def _median(found: list[list[Figures]], place: int, figure: str) -> float:
    return statistics.median(one[place][figure] for one in found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    main(given.seconds, given.rounds)
