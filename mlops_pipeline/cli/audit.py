"""`mlops audit`: verify, export and list the audit chain."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from mlops_pipeline.cli.console import console
from mlops_pipeline.stores.settings import Settings

audit_app = typer.Typer(
    help="The audit chain: is the record whole, and what does it say.", no_args_is_help=True
)


@audit_app.command("verify")
def verify() -> None:
    """Recompute the chain, hold it against its anchors; exit code 1 if anything is wrong."""
    from mlops_pipeline.lifecycle.compliance.anchors import verify_audit

    found = verify_audit(Settings.from_environment())
    for problem in found.problems:
        console.print(f"[red]wrong:[/] {escape(problem)}")
    if found.total > len(found.problems):
        console.print(f"[red]and {found.total - len(found.problems):,} more[/]")
    console.print(f"{found.events:,} events, head {found.head}")
    console.print(f"{found.anchors:,} anchors, the chain holds up to event {found.anchored:,}")
    if found.unanchored:
        first, last = found.unanchored
        console.print(f"[yellow]not anchored yet: events {first} to {last}[/]")
    if found.total:
        console.print("what to do: docs/runbook.md, `mlops audit verify` finds something")
        raise typer.Exit(1)


@audit_app.command("export")
def export(
    out: Annotated[
        Path | None, typer.Option(help="The file to write; default standard output.")
    ] = None,
    use_case: Annotated[str | None, typer.Option(help="Only its events.")] = None,
) -> None:
    """Write every event as a line of JSON, whose hash anybody can recompute (docs/security.md)."""
    from mlops_pipeline.lifecycle.compliance.anchors import exported_lines

    target = contextlib.nullcontext(sys.stdout) if out is None else out.open("w", encoding="ascii")
    with target as file:
        for line in exported_lines(Settings.from_environment(), use_case):
            file.write(f"{line}\n")


@audit_app.command("list")
def list_events(
    use_case: Annotated[str | None, typer.Option(help="Only its events.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, for example rollout.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 20,
) -> None:
    """List the newest events, the newest last."""
    from mlops_pipeline.core.audit.anchors import canonical
    from mlops_pipeline.stores.ops import OpsDatabase

    with OpsDatabase.open(Settings.from_environment().database_url) as ops:
        events = ops.audit_events(use_case=use_case, kind=kind, limit=last)
    for event in reversed(events):
        about = f"{event.use_case or '-'} {event.kind} by {event.actor}"
        console.print(f"{event.seq} {event.at.isoformat()} {escape(about)}: "
                      f"{escape(canonical(event.detail))}")  # fmt: skip
