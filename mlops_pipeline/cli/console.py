"""The terminal: one console, errors, progress bars."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mlops_pipeline.errors import MlopsError

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(error: MlopsError) -> None:
    """Print a known error: what, where, expected, found, what to do."""
    errors.print(f"[bold red]error:[/] {escape(str(error))}")


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that takes (done, total); the bar shows on a terminal only."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task(title, total=total)

        def advance(done: int, of: int) -> None:
            progress.update(task, completed=done, total=of)

        yield advance
