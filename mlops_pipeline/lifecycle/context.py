"""What a step of one use case works with: a context of what is open, a snapshot of what it reads.

Belongs here: the records that are handed from step to step, and what a run notes of itself. Which
data are accepted, and which as_of a run has, is found in ingest/accepted.py.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.bookkeeping import (
    get_pointer,
    record_feature_use,
    set_pointer,
    step_seconds,
)
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.settings import Settings

if TYPE_CHECKING:
    from mlops_pipeline.stores.lake.engine import Engine
    from mlops_pipeline.stores.models.mlflow import Registry
    from mlops_pipeline.stores.ops import FeatureReader, HeldLease, OpsDatabase


@dataclass(frozen=True)
class AcceptedSource:
    """A source as downstream may read it, without quarantined rows; `removed` rows were erased."""

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


@dataclass(frozen=True)
class Connections:
    """What is connected and imported when a step first asks for it, and closed with the context."""

    settings: Settings
    name: str
    closing: ExitStack

    @cached_property
    def ops(self) -> "OpsDatabase":
        """The ops database."""
        from mlops_pipeline.stores.ops import OpsDatabase

        return self.closing.enter_context(OpsDatabase.open(self.settings.database_url))

    @cached_property
    def engine(self) -> "Engine":
        """The engine that reads the lake."""
        from mlops_pipeline.stores.lake.engine import open_engine

        return self.closing.enter_context(open_engine(self.settings))

    @cached_property
    def models(self) -> "Registry":
        """The versions of the use case's model, in MLflow."""
        from mlops_pipeline.stores.models.mlflow import Registry, open_tracking

        return Registry(open_tracking(self.settings, self.name), self.name)


@dataclass(frozen=True)
class Context:
    """What a step of one use case works with; `now` is the Clock's time when it began."""

    use_case: UseCase
    settings: Settings
    lake: Lake
    now: datetime
    connections: Connections = field(repr=False)

    @property
    def ops(self) -> "OpsDatabase":
        """The ops database."""
        return self.connections.ops

    @property
    def engine(self) -> "Engine":
        """The engine that reads the lake."""
        return self.connections.engine

    @property
    def models(self) -> "Registry":
        """The versions of the use case's model; importing MLflow takes seconds."""
        return self.connections.models


@contextmanager
def open_context(use_case: UseCase, settings: Settings) -> Iterator[Context]:
    """Yield a context; what was opened by it is closed at the end."""
    with ExitStack() as closing:
        connections = Connections(settings, use_case.name, closing)
        lake = Lake(settings.lake_uri)
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield Context(use_case, settings, lake, settings.now(), connections)


@dataclass(frozen=True)
class RunContext(Context):
    """The context of a step in a run that holds the lease of the use case."""

    run_id: str
    lease: "HeldLease"
    log: logging.Logger

    def pointer(self, name: str, made_by: str) -> Mapping[str, Any]:
        """Return a pointer of the ops database."""
        found = get_pointer(self.ops, self.use_case.name, name)
        if found is None:
            raise NotFoundError(
                f"{self.use_case.name} has no {name} yet",
                way_out=f"materialize {self.use_case.name}/{made_by} first",
            )
        return found.value

    def set_pointer(self, name: str, value: Mapping[str, Any]) -> None:
        """Move a pointer, unless the lease was lost meanwhile."""
        self.lease.check()
        set_pointer(
            self.ops, self.use_case.name, name, dict(value), run_id=self.run_id, now=self.now
        )

    def seconds(self) -> float:
        """Return how long the finished steps of this run took."""
        return sum(step_seconds(self.ops, self.use_case.name, self.run_id).values())

    def record_use(self, features: Collection[str], by: "FeatureReader") -> None:
        """Note which features were used, and what for."""
        record_feature_use(self.ops, self.use_case.name, features, by, now=self.now)

    def record_reads(self, asset: str) -> None:
        """Note in the audit chain which versions of tables and source files were read."""
        places = (self.settings.lake_uri, str(self.settings.data_dir))
        reads = {
            _within(address, places): sorted(versions)
            for address, versions in self.engine.reads.items()
        }
        if reads:
            self.ops.append_audit(
                "data_access",
                {"asset": asset, "run_id": self.run_id, "reads": reads},
                use_case=self.use_case.name,
                actor=f"run {self.run_id}",
                now=self.now,
            )


def _within(address: str, places: tuple[str, ...]) -> str:
    """Return an address without the folder that it lies in: the record names no machine."""
    for place in places:
        if address.removeprefix("file://").startswith(f"{place}/"):
            return address.removeprefix("file://").removeprefix(f"{place}/")
    return address
