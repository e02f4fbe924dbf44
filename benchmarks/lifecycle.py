"""Benchmark (a): the whole lifecycle beside hand-written features and fits of the same candidates.

The lifecycle also ingests, validates, versions, calibrates, tracks, evaluates, refits, registers
and deploys; the floor does none of that. Of the use case's gate the parity rule warns here and does
not block, because by hand nothing is mitigated either; what mitigation adds is measured apart.
"""

import argparse
import json
from pathlib import Path

import yaml

from benchmarks.measure import ROOT, Measured, run_module
from benchmarks.result import Result, Row, parts
from benchmarks.world import (
    USE_CASE,
    World,
    materialize,
    new_world,
    run_lifecycle,
    step_seconds,
)

CUSTOMERS = 500_000


def main(customers: int) -> None:
    """Simulate, run both, print the ratio and where the time went."""
    with new_world(customers) as world:
        floor = run_module("benchmarks.floor", str(world.sources), str(world.folder / "floor"))
        project = warning_only(world)
        ours = run_lifecycle(world, folder=project)
        steps = step_seconds(world)
        judged = materialize(world, "evaluation_report", folder=project)
        mitigated = materialize(world, "evaluation_report")
        outcome = mitigation_of(world)
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
        f"{ours.cpu_seconds / floor.cpu_seconds:.2f}); mitigation adds "
        f"{(mitigated.seconds - judged.seconds) / floor.seconds:.2f}",
        target="at most 2, with at most 8 GB, without mitigation",
        tables={
            "Both": [_row("lifecycle", ours), _row("by hand", floor)],
            f"Mitigation: {outcome}": [
                _row("evaluation_report alone, parity rule warns", judged),
                _row("evaluation_report alone, parity rule blocks, as shipped", mitigated),
            ],
            "Lifecycle, by step": parts(steps, column="step"),
            "By hand": parts(by_hand["seconds"]),
        },
    ).print()


def warning_only(world: World) -> Path:
    """Return a project whose configuration is the shipped one, with a parity rule that warns."""
    project = world.folder / "project"
    (project / "configs").mkdir(parents=True)
    document = yaml.safe_load((ROOT / "configs" / f"{USE_CASE}.yaml").read_text(encoding="utf-8"))
    for rule in document["gates"]:
        if rule["rule"] == "demographic_parity":
            rule["effect"] = "warn"
    text = yaml.safe_dump(document, sort_keys=False)
    (project / "configs" / f"{USE_CASE}.yaml").write_text(text, encoding="utf-8")
    return project


def mitigation_of(world: World) -> str:
    """Return what the newest evaluation tried."""
    written = world.data.glob(f"lake/{USE_CASE}/artifacts/*/evaluation.json")
    path = max(written, key=lambda item: item.stat().st_mtime)
    tried = json.loads(path.read_text(encoding="utf-8"))["evaluation"].get("mitigation")
    if tried is None:
        return "none was needed"
    return f"{len(tried['variants']) - 1} variants, {tried['chosen'] or 'none'} chosen"


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
