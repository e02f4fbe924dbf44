"""The argument that names a use case, its configuration, and a context for its commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_pipeline.cli.console import console
from mlops_pipeline.config import UseCase, load_use_case
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.stores.settings import Settings, project_root

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.context import Context

Name = Annotated[str, typer.Argument(help="A use case: the name of a file in configs/.")]


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


def print_pending(context: "Context") -> None:
    """Say what MLflow does not show yet of the ledger, which this command leaves to others."""
    from mlops_pipeline.lifecycle.rollouts import pending_effects

    pending = pending_effects(context.ops, context.use_case.name)
    if pending:
        console.print(
            f"[yellow]{pending} effect{'s' if pending > 1 else ''} pending[/]: MLflow does not "
            "show what was decided; the next lifecycle, approval or rollback completes it"
        )
