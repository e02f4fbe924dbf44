"""A store that is gone, silent, damaged or empty, and faults of ours, as answers."""

import socket
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlops_pipeline.errors import ContractError, OnlineFullError
from mlops_pipeline.serving.http import HOST, create_app
from mlops_pipeline_tests.serving.client import client_at, problem_of
from mlops_pipeline_tests.serving.shops import SHOP_CASE, settings_at, write_shops

TIMEOUT_MS = 50


# what the store gets wrong


def test_store_that_is_gone_is_503_and_live(shops: Path) -> None:
    with closing(socket.create_server((HOST, 0))) as taken:
        url = f"redis://{HOST}:{taken.getsockname()[1]}/0"
    with client_at(shops, online_url=url) as client:
        answer = client.get("/features/customer/1?features=visits")
        assert problem_of(answer) == (503, "store-unavailable")
        assert answer.headers["retry-after"] == "1"
        assert problem_of(client.get("/health/ready")) == (503, "store-unavailable")
        assert client.get("/health/live").json() == {"status": "live"}


def test_store_that_does_not_answer_is_503_in_time(shops: Path) -> None:
    with closing(socket.create_server((HOST, 0))) as silent:
        url = f"redis://{HOST}:{silent.getsockname()[1]}/0"
        with client_at(shops, online_url=url, online_timeout_ms=TIMEOUT_MS) as client:
            answer = client.get("/features/customer/1?features=visits")
    assert problem_of(answer) == (503, "store-timeout")
    assert answer.elapsed < timedelta(seconds=1)


def test_value_that_is_damaged_is_503_for_its_entity_only(changed: Path) -> None:
    with closing(sqlite3.connect(changed / "data" / "online.db")) as other, other:
        other.execute("UPDATE records SET blob = substr(blob, 1, 20) WHERE entity = '1'")
    with client_at(changed) as client:
        answer = client.get("/features/customer/1?features=visits")
        assert problem_of(answer) == (503, "store-corrupt")
        assert answer.headers["retry-after"] == "60"
        assert client.get("/features/customer/2?features=visits").status_code == 200


def test_what_happened_inside_is_not_told(changed: Path, caplog: pytest.LogCaptureFixture) -> None:
    (changed / "data" / "online.db").unlink()
    with client_at(changed) as client:
        answer = client.get("/features/customer/1?features=visits")
    assert answer.status_code == 503
    assert str(changed) not in answer.text
    assert "store-" in caplog.text


def test_store_that_was_never_filled_is_503_and_ready(tmp_path: Path) -> None:
    write_shops(tmp_path / "project")
    with client_at(tmp_path / "project") as client:
        answer = client.get("/features/customer/1?features=visits")
        assert problem_of(answer) == (503, "store-outdated")
        assert client.get("/health/ready").json()["materialized"] == {"shop": False, "till": False}


class Broken:
    """A reader whose store fails in a way that a file cannot be made to."""

    names = ("visits",)

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.is_closed = False

    def read(self, *_: object, **__: object) -> list[Any]:
        raise self.error

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OnlineFullError("no room"), (503, "store-full")),
        (ContractError("not ours"), (500, "internal")),
        (RuntimeError("a bug"), (500, "internal")),
    ],
)
def test_error_of_a_given_reader_is_a_problem_and_the_reader_stays_open(
    shops: Path, error: Exception, expected: tuple[int, str]
) -> None:
    reader: Any = Broken(error)
    app = create_app({"shop": SHOP_CASE}, settings_at(shops), readers={"shop": reader})
    with TestClient(app, raise_server_exceptions=False) as client:
        assert problem_of(client.get("/features/customer/1?features=visits")) == expected
    assert not reader.is_closed
