"""What a step of one use case works with: its configuration, the settings, lake and engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.stores.lake.engine import Engine, open_engine
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.settings import Settings


@dataclass(frozen=True)
class Context:
    """The lake of one use case with an open engine."""

    use_case: UseCase
    settings: Settings
    lake: Lake
    engine: Engine


@contextmanager
def open_context(use_case: UseCase, settings: Settings) -> Iterator[Context]:
    """Yield a context; its engine is closed at the end."""
    with open_engine(settings) as engine:
        yield Context(use_case, settings, Lake(settings.lake_uri), engine)
