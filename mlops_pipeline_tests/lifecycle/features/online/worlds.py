"""Worlds whose features go online, and what the lake says of the same entities and moments."""

import os
import random
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
import redis

from mlops_pipeline.config import UseCase, load_use_case
from mlops_pipeline.lifecycle.bookkeeping import set_pointer
from mlops_pipeline.lifecycle.context import AcceptedSource
from mlops_pipeline.lifecycle.features.history import get_historical_features
from mlops_pipeline.lifecycle.features.online.reader import OnlineFeatures
from mlops_pipeline.stores.online.interface import OnlineStore, open_online_store
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import PACKAGE_PARENT, Settings
from mlops_pipeline_tests.stores.online.conftest import LOCAL_REDIS, LONG_MS
from mlops_pipeline_tests.worlds import NOW

STORES = ("sqlite", "redis")


def configured(name: str, *, start: date | None = None) -> UseCase:
    """A use case of the project under a name that no other test uses: the server is shared."""
    found = load_use_case(PACKAGE_PARENT / "configs" / f"{name}.yaml")
    grid = found.grid.model_copy(update={"start": start})
    return found.model_copy(update={"name": f"test_{uuid.uuid4().hex}", "grid": grid})


@contextmanager
def opened(kind: str, folder: Path, use_case: str) -> Iterator[OnlineStore]:
    """A store of one kind; what a use case left on the server is removed."""
    url = f"sqlite:///{folder}/{kind}.db"
    if kind == "redis":
        url = os.environ.get("MLOPS_TEST_REDIS_URL", LOCAL_REDIS)
        _skip_without(url)
    try:
        with open_online_store(url, timeout_ms=LONG_MS) as store:
            yield store
    finally:
        if kind == "redis":
            with redis.Redis.from_url(url) as client:
                for key in client.scan_iter(f"mlops:{use_case}:*", count=1000):
                    client.delete(key)


def _skip_without(url: str) -> None:
    parts = urlsplit(url)
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((parts.hostname or "", parts.port or 6379)) == 0:
            return
    reason = "nothing listens at MLOPS_TEST_REDIS_URL or 127.0.0.1:6379"
    if os.environ.get("MLOPS_REQUIRE_SERVICES") == "1":
        pytest.fail(f"MLOPS_REQUIRE_SERVICES=1, but {reason}")
    pytest.skip(reason)


def publish(settings: Settings, use_case: UseCase, accepted: Mapping[str, AcceptedSource]) -> None:
    """Move the accepted pointer, as `validated_data` does."""
    value = {name: item.to_dict() for name, item in accepted.items()}
    with OpsDatabase.open(settings.database_url) as ops:
        set_pointer(ops, use_case.name, "accepted", value, run_id="test", now=NOW)


def offline(
    settings: Settings,
    use_case: UseCase,
    pairs: Sequence[tuple[str, datetime]],
    features: Sequence[str],
    request: Sequence[Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """The features of (entity, moment) pairs from the lake."""
    key = use_case.entity.key
    kind = use_case.sources[use_case.population.source].column(key).type
    entities = [int(entity) if kind == "int64" else entity for entity, _ in pairs]
    moments = pa.array([moment for _, moment in pairs], pa.timestamp("us", tz="UTC"))
    columns: dict[str, Any] = {key: entities, "as_of": moments}
    for name in request[0] if request else ():
        columns[name] = [row[name] for row in request or ()]
    table = get_historical_features(use_case, pa.table(columns), features, settings=settings)
    found: list[dict[str, Any]] = table.select(list(features)).to_pylist()
    return found


def moments_between(draw: random.Random, first: datetime, last: datetime) -> datetime:
    """A random moment, to the microsecond, of (first, last)."""
    return first + (last - first) * draw.random()


def differences(
    answers: Sequence[OnlineFeatures], expected: Sequence[Mapping[str, Any]]
) -> list[tuple[str, datetime, str, Any, Any]]:
    """Entity, moment, feature and both values where the online one is held and not equal."""
    return [
        (answer.entity, answer.read_at, name, item.value, row[name])
        for answer, row in zip(answers, expected, strict=True)
        for name, item in answer.values.items()
        if item.status != "missing" and name in row and item.value != row[name]
    ]
