"""Run the benchmarks, print their figures, and write docs/benchmarks.md.

    python -m benchmarks.run [--only NAME] [--customers N] [--out FILE] [--date DATE]

Each runs in a process of its own. None asserts a time. `serving` needs wrk, and shows the peers
that are installed below BENCHMARK_PEERS.
"""

import argparse
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import ROOT, CommandFailedError, machine, run_module
from benchmarks.report import conditions, remember, show, write_page
from benchmarks.result import Result

NAMES = (
    *("lifecycle", "one_month", "imports", "demo", "real_sets"),
    *("history", "windows", "online", "score_row", "fraud", "fairness"),
    *("statistics", "gate_rules", "rollouts"),
    *("serving", "serving.soak", "serving.shadow"),
)
SIZED = frozenset(NAMES) - {
    *("imports", "real_sets", "score_row", "fairness", "statistics", "gate_rules"),
    "rollouts",
    *("serving", "serving.soak", "serving.shadow"),
}  # take --customers


def main() -> int:
    """Run what was asked for; return 1 when one could not run."""
    asked = _arguments()
    chosen = [asked.only] if asked.only else list(NAMES)
    failed = 0
    for name in chosen:
        sized = asked.customers is not None and name in SIZED
        size = ["--customers", str(asked.customers)] if sized else []
        before = machine()
        try:
            done = run_module(f"benchmarks.{name}", *size)
        except CommandFailedError as error:
            print(f"{name} could not run: {error}", file=sys.stderr)
            failed += 1
            continue
        result = Result.of_output(done.output)
        facts = {"seconds": round(done.seconds, 1), "peak_mb": done.peak_mb, **conditions(before)}
        remember(result, date=asked.date, facts=facts)
        print(json.dumps({**asdict(result), **facts}))
        show(result)
    write_page(asked.out, NAMES)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--only", choices=NAMES, help="run this one only")
    parser.add_argument("--customers", type=int, help="size of the simulated ones")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument("--date", default=datetime.now(UTC).date().isoformat())
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
