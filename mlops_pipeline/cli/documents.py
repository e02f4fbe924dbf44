"""What vouches for a version: the audit chain, its model card, its technical files, its rebuilding.

Belongs here: options and what is printed. What they say is lifecycle/compliance's.
"""

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from mlops_pipeline.cli import console
from mlops_pipeline.errors import visible
from mlops_pipeline.stores.settings import Settings

OnlyUseCase = Annotated[str | None, typer.Option("--use-case", help="Only its events.")]
Version = Annotated[int | None, typer.Argument(help="Default: the champion.")]
SAME = {True: Text("same", "green"), False: Text("differs", "yellow"), None: Text("not known")}


class ShowByDefault(TyperGroup):
    """`mlops card churn` is `mlops card show churn`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Put `show` before what is no command of the group."""
        words = args if args[0] in self.commands else ["show", *args]
        return super().resolve_command(ctx, words)


audit_app = typer.Typer(
    help="The audit chain: is the record whole, and what does it say.", no_args_is_help=True
)
card_app = typer.Typer(
    cls=ShowByDefault, help="The model card of a version, and its reviews.", no_args_is_help=True
)


@audit_app.command("verify")
def verify() -> None:
    """Recompute the chain, hold it against its anchors; exit code 1 if anything is wrong."""
    from mlops_pipeline.lifecycle.compliance.anchors import verify_audit

    found, anchors = verify_audit(Settings.from_environment())
    for problem in found.problems:
        console.say(f" {problem}", lead="wrong:", colour="red")
    if found.total > len(found.problems):
        console.say("", lead=f"and {found.total - len(found.problems):,} more", colour="red")
    console.say(f"{found.count:,} events, head {found.head}")
    console.say(f"{anchors:,} anchors, the chain holds up to event {found.anchored:,}")
    if found.anchored < found.count:
        first = found.anchored + 1
        console.say("", lead=f"not anchored yet: events {first} to {found.count}", colour="yellow")
    if found.total:
        console.say("what to do: docs/runbook.md, `mlops audit verify` finds something")
        raise typer.Exit(1)


@audit_app.command("export")
def export(
    out: Annotated[
        Path | None, typer.Option(help="The file to write; default standard output.")
    ] = None,
    use_case: OnlyUseCase = None,
) -> None:
    """Write every event as a line of JSON, whose hash anybody can recompute (docs/security.md)."""
    from mlops_pipeline.lifecycle.compliance.anchors import exported_lines

    target = contextlib.nullcontext(sys.stdout) if out is None else out.open("w", encoding="ascii")
    with target as file:
        for line in exported_lines(Settings.from_environment(), use_case):
            file.write(f"{line}\n")


@audit_app.command("list")
def list_events(
    use_case: OnlyUseCase = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, for example rollout.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 20,
) -> None:
    """List the newest events, the newest last."""
    from mlops_pipeline.core.audit.anchors import canonical

    with console.open_ops() as ops:
        events = ops.audit_events(use_case=use_case, kind=kind, limit=last)
    for event in reversed(events):
        about = f"{event.use_case or '-'} {event.kind} by {event.actor}"
        console.say(f"{event.seq} {event.at.isoformat()} {about}: {canonical(event.detail)}")


@card_app.command("show")
def show_card(
    use_case: console.Name,
    version: Version = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the card as an HTML file instead.")
    ] = None,
) -> None:
    """Print the card as it stands now, in Markdown (`show` may be left out)."""
    from mlops_pipeline.core.documents.model_card import model_card
    from mlops_pipeline.core.documents.pages import render_html
    from mlops_pipeline.lifecycle.compliance.cards import present_version
    from mlops_pipeline.stores.pages import write_page

    with console.project(use_case) as context:
        _, facts = present_version(context, version)
    text = model_card(facts)
    if html is None:
        typer.echo(visible(text), nl=False)
        return
    html.parent.mkdir(parents=True, exist_ok=True)
    write_page(html, render_html(text))
    console.say(f"{use_case} version {facts.metadata.version}: {html}")


@card_app.command("review")
def review_card(use_case: console.Name, by: console.By, reason: console.Reason) -> None:
    """Record that you reviewed the champion's card; its reminder is resolved."""
    from mlops_pipeline.lifecycle.compliance.cards import record_review

    with console.project(use_case) as context:
        chosen, now = context.use_case, context.now
        version = record_review(context.ops, chosen, by=by, reason=reason, now=now)
        console.say(f"{use_case} version {version}: card reviewed; recorded: {by}")
        console.print_pending(context)


def pack(
    use_case: console.Name,
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write: new, empty, or an earlier pack.")
    ],
    version: Version = None,
) -> None:
    """Write the technical documentation of a version: a folder, zipped, with hashes."""
    from mlops_pipeline.lifecycle.compliance.cards import write_pack

    with console.project(use_case) as context:
        done = write_pack(context, version, out)
    console.say(f"{use_case} version {done.version}: {done.files} files in {out}")
    console.say(f"zip: {done.archive}")
    for status, count in done.points.items():
        console.say(f"{status}: {count} points of Annex IV")


def reproduce(
    use_case: console.Name,
    version: Annotated[int, typer.Argument(help="The model version.")],
    as_json: console.AsJson = False,
) -> None:
    """Build a version again from its recorded data, configuration and seed; compare the bytes."""
    from mlops_pipeline.lifecycle.reproduce import reproduce as rebuild

    with console.project(use_case) as context:
        done = rebuild(
            context, version, report=lambda text: console.errors.print(Text(visible(text), "dim"))
        )
    if as_json:
        console.print_json(done.to_dict())
    else:
        rows = ((item.name, item.recorded, item.here, SAME[item.is_same]) for item in done.inputs)
        console.print_table(("input", "recorded", "here", ""), rows)
        for name, (recorded, rebuilt) in done.files.items():
            verdict = "identical" if recorded == rebuilt else f"differs: rebuilt {rebuilt}"
            console.say(f"{name}: {recorded}, {verdict}")
        why = ", ".join(done.different) or (
            "none of the recorded inputs: a source of chance was missed"
        )
        if done.is_identical:
            console.say("", lead="identical: the same bytes", colour="green")
        else:
            console.say(f"; what differs: {why}", lead="not identical", colour="red")
    if not done.is_identical:
        raise typer.Exit(1)
