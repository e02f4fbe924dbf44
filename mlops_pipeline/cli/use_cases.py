"""The argument that names a use case, and finding its configuration."""

import difflib
from typing import Annotated

import typer

from mlops_pipeline.config import UseCase, load_use_case
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.stores.settings import project_root

Name = Annotated[str, typer.Argument(help="A use case: the name of a file in configs/.")]


def find_use_case(name: str) -> UseCase:
    """Return a use case by name.

    Raises
    ------
    NotFoundError
        Naming the nearest one.
    """
    folder = project_root() / "configs"
    path = folder / f"{name}.yaml"
    if path.is_file():
        return load_use_case(path)
    known = sorted(item.stem for item in folder.glob("*.yaml"))
    near = difflib.get_close_matches(name, known, n=1)
    raise NotFoundError(
        f"there is no use case {name!r}",
        where=str(folder),
        expected=f"one of {', '.join(known)}",
        way_out=f"did you mean {near[0]!r}?" if near else "write its configuration file",
    )
