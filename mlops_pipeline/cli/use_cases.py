"""The argument that names a use case, and finding its configuration."""

from typing import Annotated

import typer

from mlops_pipeline.config import UseCase, load_use_case
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.stores.settings import project_root

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
