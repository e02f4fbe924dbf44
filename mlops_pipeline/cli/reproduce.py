"""`mlops reproduce`: builds a registered version again and compares the bytes."""

import json
from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from mlops_pipeline.cli.console import console, errors, table
from mlops_pipeline.cli.use_cases import Name, project

SAME = {True: Text("same", "green"), False: Text("differs", "yellow"), None: Text("not known")}


def reproduce(
    use_case: Name,
    version: Annotated[int, typer.Argument(help="The model version.")],
    as_json: Annotated[bool, typer.Option("--json", help="One document instead.")] = False,
) -> None:
    """Build a version again from its recorded data, configuration and seed; compare the bytes."""
    from mlops_pipeline.lifecycle.reproduce import reproduce as rebuild

    with project(use_case) as context:
        done = rebuild(
            context, version, report=lambda text: errors.print(escape(text), style="dim")
        )
    if as_json:
        typer.echo(json.dumps(done.to_dict(), indent=2, allow_nan=False))
    else:
        rows = ((item.name, item.recorded, item.here, SAME[item.is_same]) for item in done.inputs)
        console.print(table(("input", "recorded", "here", ""), rows))
        for name, (recorded, rebuilt) in done.files.items():
            verdict = "identical" if recorded == rebuilt else f"differs: rebuilt {rebuilt}"
            console.print(f"{name}: {recorded}, {verdict}")
        console.print(_verdict(done.is_identical, done.different))
    if not done.is_identical:
        raise typer.Exit(1)


def _verdict(is_identical: bool, different: tuple[str, ...]) -> str:
    if is_identical:
        return "[green]identical: the same bytes[/]"
    why = ", ".join(different) or "none of the recorded inputs: a source of chance was missed"
    return f"[red]not identical[/]; what differs: {escape(why)}"
