"""What commands share: the terminal, options that several have, a use case and its stores."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from mlops_pipeline.config import UseCase, load_use_case, load_use_cases
from mlops_pipeline.errors import NotFoundError, visible
from mlops_pipeline.stores.settings import Settings, project_root

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.context import Context
    from mlops_pipeline.stores.ops import OpsDatabase

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

Name = Annotated[str, typer.Argument(help="A use case: the name of a file in configs/.")]
By = Annotated[str, typer.Option("--by", help="Your name (self-asserted, recorded).")]
OptionalBy = Annotated[str | None, typer.Option("--by", help="Who does: self-asserted, recorded.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; recorded for good.")]
AsJson = Annotated[bool, typer.Option("--json", help="One document instead.")]


def all_use_cases() -> dict[str, UseCase]:
    """Return every use case of the project by its name."""
    return load_use_cases(project_root() / "configs")


def find_use_case(name: str) -> UseCase:
    """Return a use case by name."""
    folder = project_root() / "configs"
    path = folder / f"{name}.yaml"
    if path.is_file():
        return load_use_case(path)
    known = sorted(item.stem for item in folder.glob("*.yaml"))
    raise NotFoundError.of(
        "use case", name, known, where=str(folder), way_out="write its configuration file"
    )


@contextmanager
def project(name: str) -> "Iterator[Context]":
    """Yield a use case with its settings and stores; what a command does not use is not opened."""
    from mlops_pipeline.lifecycle.context import open_context

    with open_context(find_use_case(name), Settings.from_environment()) as context:
        yield context


def open_ops() -> "OpsDatabase":
    """Open the ops database, for a command that needs no more."""
    from mlops_pipeline.stores.ops import OpsDatabase

    return OpsDatabase.open(Settings.from_environment().database_url)


def print_pending(context: "Context") -> None:
    """Say what MLflow and the anchors do not show yet, which this command leaves to others."""
    from mlops_pipeline.lifecycle.project import pending_effects

    pending = pending_effects(context.ops, context.settings, context.use_case.name)
    if pending:
        say(
            ": MLflow or the anchors do not show what was decided; the next lifecycle, approval "
            "or rollback completes it",
            lead=f"{pending} effect{'s' if pending > 1 else ''} pending",
            colour="yellow",
        )


def say(text: str, *, lead: str = "", colour: str = "") -> None:
    """Print a line, after its first words in a colour; nothing in it is markup."""
    console.print(Text.assemble((visible(lead), colour), visible(text)))


def print_json(document: Any) -> None:
    """Print a document as scripts read it."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False, default=datetime.isoformat))


def print_table(
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    right: Sequence[str] = (),
) -> None:
    """Print a table, plain or with a title and lines; `right` names the columns of numbers."""
    if title is None:
        made = Table(box=None, pad_edge=False, header_style="bold")
    else:
        made = Table(title=title, title_justify="left")
    for head in heads:
        made.add_column(head, overflow="fold", justify="right" if head in right else "left")
    for row in rows:
        made.add_row(*map(_cell, row))
    console.print(made)


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return Text(visible(value.plain), value.style)
    if isinstance(value, datetime):
        return Text(f"{value:%Y-%m-%d %H:%M:%S}")
    return Text("" if value is None else visible(str(value)))


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that takes (done, total); the bar shows on a terminal only."""
    columns = "{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done, _: progress.update(task, completed=done)
