"""One audit event for each minute of requests, with a hash of their lines and no id in it."""

import hashlib
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError

from mlops_pipeline.core.audit.chain import AuditEvent
from mlops_pipeline.errors import MlopsError
from mlops_pipeline.serving.key_uses import KeyUses
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings, pseudonymiser
from mlops_pipeline_tests.serving.client import client_at
from mlops_pipeline_tests.serving.shops import settings_at
from mlops_pipeline_tests.worlds import NOW

ROUTE = "/features/{entity}/{entity_id:path}"
START = datetime(2025, 1, 1, 12, 0, 30, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment({"MLOPS_DATA_DIR": str(tmp_path)})


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def events(settings: Settings) -> list[AuditEvent]:
    with OpsDatabase.open(settings.database_url) as ops:
        return ops.audit_events(kind="key_use")[::-1]


def test_minute_that_is_over_is_one_event_whose_hash_is_of_its_lines(settings: Settings) -> None:
    clock = Clock()
    uses = KeyUses(settings, clock)
    uses.note(ROUTE, 200, "4711")
    uses.note(ROUTE, 404, "4712")
    uses.note(ROUTE, 200, "4711")
    assert uses.flush() == 0  # the minute is not over
    clock.now += timedelta(seconds=30)
    uses.note("/x", 200, None)
    assert uses.flush() == 1
    whom = pseudonymiser(settings)
    time = START.isoformat()
    lines = [
        f"{time} {ROUTE} 200 {whom('4711')}\n",
        f"{time} {ROUTE} 404 {whom('4712')}\n",
        f"{time} {ROUTE} 200 {whom('4711')}\n",
    ]
    (event,) = events(settings)
    assert event.use_case is None
    assert event.detail == {
        "key": "(none)",
        "minute": "2025-01-01T12:00:00+00:00",
        "requests": 3,
        "counts": {f"{ROUTE} 200": 2, f"{ROUTE} 404": 1},
        "sha256": hashlib.sha256("".join(lines).encode()).hexdigest(),
    }
    assert uses.flush(everything=True) == 1
    assert events(settings)[1].detail["counts"] == {"/x 200": 1}


def test_flush_that_fails_keeps_the_minute(settings: Settings) -> None:
    broken = replace(settings, database_url=f"sqlite:///{settings.data_dir}/broken.db")
    uses = KeyUses(broken, Clock())
    uses.note("/x", 200, None)
    path = settings.data_dir / "broken.db"
    path.write_bytes(b"no database" * 100)
    with pytest.raises((MlopsError, DatabaseError)):
        uses.flush(everything=True)
    path.unlink()
    assert uses.flush(everything=True) == 1
    assert events(broken)[0].detail["requests"] == 1


def test_app_chains_the_requests_of_its_life_without_an_id(shops: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(shops, tmp_path / "project"))
    with client_at(root) as client:
        for path in ("customer/1", "customer/1", "customer/999", "tree/1"):
            client.get(f"/features/{path}?features=visits")
        client.get("/nothing/4711")
        client.get("/health/live")
    (event,) = events(settings_at(root, NOW))
    assert event.detail["counts"] == {f"{ROUTE} 200": 2, f"{ROUTE} 404": 2, "(no route) 404": 1}
    assert event.detail["requests"] == 5
    assert "4711" not in str(event.detail)
    assert "999" not in str(event.detail["counts"])
