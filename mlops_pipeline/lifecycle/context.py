"""What a step of one use case works with: a context of what is open, a snapshot of what it reads.

Belongs here: the records that are handed from step to step. Which data are accepted, and which
as_of a run has, is found in ingest/accepted.py.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

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


@dataclass(frozen=True)
class AcceptedSource:
    """One source as downstream may read it: a version without its quarantined rows.

    `removed` counts the numbered rows of people who were erased.
    """

    version: int
    quarantine_version: int | None
    rows: int
    quarantined: int
    content_hash: str
    watermark: datetime | None
    has_revisions: bool
    has_repeated_keys: bool = True
    removed: int = 0

    @property
    def numbered(self) -> int:
        """How many row numbers were given: every `_row_no` is below it."""
        return self.rows + self.quarantined + self.removed

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        mark = self.watermark.isoformat() if self.watermark else None
        return {**asdict(self), "watermark": mark}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "AcceptedSource":
        """Read what to_dict wrote."""
        mark = given["watermark"]
        return cls(**{**given, "watermark": datetime.fromisoformat(mark) if mark else None})


Accepted = Mapping[str, AcceptedSource]  # by source


@dataclass(frozen=True)
class Snapshot:
    """What a run sees: every source at its accepted version, as of one time (UTC)."""

    as_of: datetime
    accepted: Accepted
