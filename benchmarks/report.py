"""The figures as docs/benchmarks.md and on the terminal.

The last figures of every benchmark are kept in benchmarks/figures.json, each with its date and
machine, so that running one of them renews its own part of the page only.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, machine, versions
from benchmarks.result import Result, Row

FIGURES = ROOT / "benchmarks" / "figures.json"
INTRODUCTION = """# Benchmarks

Written by `python -m benchmarks.run` (`make bench`); do not edit. `--only NAME` renews one part, \
`--customers N` runs the simulated ones at another size. Nothing asserts a time: each figure is a \
ratio of two things measured one after the other on the same machine, which other work may have \
shared. "Largest process" is the kernel's high-water mark of the largest process, "all processes" \
the sampled sum of a run's processes. All commands run with OMP_WAIT_POLICY=passive.
"""


def remember(result: Result, *, date: str, facts: Mapping[str, Any]) -> None:
    """Replace one benchmark's figures; `facts` are those of its process and of the machine."""
    kept = read_figures()
    kept[result.name] = {**asdict(result), "date": date, **facts, "versions": versions()}
    text = json.dumps(kept, indent=1)  # not sorted: rows and columns keep their order
    FIGURES.write_text(text + "\n", encoding="utf-8")


def read_figures() -> dict[str, Any]:
    """Return the last figures by benchmark."""
    if not FIGURES.is_file():
        return {}
    kept: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return kept


def conditions(before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the machine, with its load when the benchmark began and ended."""
    found = machine()
    load = f"{before['load_1min']} to {found.pop('load_1min')}"
    return {"machine": {**found, "load": load}}


def write_page(path: Path, names: Sequence[str]) -> None:
    """Write the page of all figures, in the order of `names`."""
    kept = read_figures()
    summary: list[Row] = [
        {
            "benchmark": name,
            "figure": kept[name]["figure"],
            "target": kept[name]["target"],
            "date": kept[name]["date"],
        }
        for name in names
        if name in kept
    ]
    parts = [INTRODUCTION, _table(summary)]
    parts += [_section(name, kept[name]) for name in names if name in kept]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts), encoding="utf-8")


def show(result: Result) -> None:
    """Print one benchmark as tables on the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"[bold]{result.name}[/bold] {result.figure} (target: {result.target})")
    console.print(result.what)
    for title, rows in result.tables.items():
        table = Table(*rows[0], title=title or None, title_justify="left")
        for row in rows:
            table.add_row(*map(str, row.values()))
        console.print(table)


def _section(name: str, kept: Mapping[str, Any]) -> str:
    host = kept["machine"]
    where = (
        f"{kept['date']}; {host['cores']} cores, {host['memory_gib']} GiB, {host['machine']}; load "
        f"{host['load']}; {kept['seconds']:.0f} s in all."
    )
    used = ", ".join(f"{library} {version}" for library, version in kept["versions"].items())
    lines = [f"## {name}: {kept['figure']}", "", f"{kept['what']}.", "", f"{where} {used}.", ""]
    for title, rows in kept["tables"].items():
        lines += [*([f"{title}:", ""] if title else []), _table(rows)]
    return "\n".join(lines)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    lines = ["| " + " | ".join(rows[0]) + " |", "| " + " | ".join("---" for _ in rows[0]) + " |"]
    lines += ["| " + " | ".join(str(cell) for cell in row.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"
