"""Every contract test runs on a SQLite file and a real Redis server, in a use case of its own."""

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from mlops_pipeline.stores.online.interface import OnlineStore, OnlineTable, open_online_store

LOCAL_REDIS = "redis://127.0.0.1:6379/15"
LONG_MS = 10_000  # for tests that are not about time


@pytest.fixture
def use_case() -> str:
    """A name that no other test uses: the server is shared."""
    return f"test_{uuid.uuid4().hex}"


@pytest.fixture
def table(use_case: str) -> OnlineTable:
    return OnlineTable(use_case, "daily")


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new/online.db"
    found: str = request.getfixturevalue("redis_url")
    return found


@pytest.fixture
def store(url: str) -> Iterator[OnlineStore]:
    with open_online_store(url, timeout_ms=LONG_MS) as opened:
        yield opened


@pytest.fixture
def redis_url(use_case: str) -> Iterator[str]:
    """A real server; what the test left there is removed."""
    found = os.environ.get("MLOPS_TEST_REDIS_URL", LOCAL_REDIS)
    parts = urlsplit(found)
    with socket.socket() as probe:
        probe.settimeout(1)
        is_there = probe.connect_ex((parts.hostname or "", parts.port or 6379)) == 0
    if not is_there:
        reason = "nothing listens at MLOPS_TEST_REDIS_URL or 127.0.0.1:6379"
        if os.environ.get("MLOPS_REQUIRE_SERVICES") == "1":
            pytest.fail(f"MLOPS_REQUIRE_SERVICES=1, but {reason}")
        pytest.skip(reason)
    yield found
    with redis.Redis.from_url(found) as client:
        left = list(client.scan_iter(f"mlops:{use_case}:*", count=1000))
        if left:
            client.delete(*left)
