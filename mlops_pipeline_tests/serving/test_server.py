"""The app as a whole: readiness, no pages, and a real server."""

import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from mlops_pipeline.serving import limits
from mlops_pipeline.serving.http import HOST, http_server
from mlops_pipeline_tests.serving.client import client_at, problem_of
from mlops_pipeline_tests.serving.shops import CASES, settings_at


def test_ready_says_what_is_materialized(shops: Path) -> None:
    with client_at(shops) as client:
        answer = client.get("/health/ready")
    assert answer.json() == {"status": "ready", "materialized": {"shop": True, "till": True}}


def test_no_page_loads_anything_from_a_network(shops: Path) -> None:
    with client_at(shops) as client:
        assert client.get("/docs").status_code == 404
        assert client.get("/redoc").status_code == 404
        assert client.get("/openapi.json").status_code == 200


def test_real_server_answers_many_at_once(shops: Path) -> None:
    with socket.create_server((HOST, 0), backlog=64) as listener:  # callers wait in its queue
        port = listener.getsockname()[1]
        server = http_server(CASES, settings_at(shops), port)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with (
                httpx.Client(base_url=f"http://{HOST}:{port}", timeout=10) as client,
                ThreadPoolExecutor(8) as pool,
            ):
                paths = [f"/features/customer/{1 + n % 2}?features=spent" for n in range(200)]
                answers = list(pool.map(client.get, paths))
                quoted = client.get("/features/customer/1%2F2?features=spent")
        finally:
            server.should_exit = True
            thread.join()
    assert {answer.status_code for answer in answers} == {200}
    values = [answer.json()["features"]["spent"]["value"] for answer in answers]
    assert values == [12.5, 10.0] * 100
    assert problem_of(quoted) == (422, "unusable-request")


def served_at(root: Path) -> "tuple[Any, threading.Thread, int]":
    listener = socket.create_server((HOST, 0), backlog=64)
    server = http_server(CASES, settings_at(root), listener.getsockname()[1])
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    return server, thread, listener.getsockname()[1]


def test_idle_and_dripping_connections_end(shops: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REQUEST_SECONDS", 0.3)
    server, thread, port = served_at(shops)
    try:
        idle = [socket.create_connection((HOST, port), timeout=20) for _ in range(20)]
        dripping = socket.create_connection((HOST, port), timeout=20)
        dripping.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        for one in (*idle, dripping):
            with one, suppress(ConnectionResetError):
                assert one.recv(1_024) == b""  # the server hung up
        with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=10) as client:
            assert client.get("/health/live").status_code == 200
    finally:
        server.should_exit = True
        thread.join()


def test_no_answer_redirects(shops: Path) -> None:
    with client_at(shops) as client:
        for path in ("/health/live/", "/v1/predict/", "/features/customer"):
            said = client.get(path, headers={"host": "evil.example"}, follow_redirects=False)
            assert said.status_code == 404
            assert "location" not in said.headers


def test_lines_about_requests_that_are_no_http_are_few() -> None:
    few = limits.FewLines()
    record = logging.LogRecord("x", logging.WARNING, "", 0, "Invalid HTTP request", None, None)
    assert sum(few.filter(record) for _ in range(1_000)) == limits.LINES_A_MINUTE
    failure = logging.LogRecord("x", logging.ERROR, "", 0, "failed", None, None)
    assert few.filter(failure)


def test_openapi_documents_the_problems_that_are_given(shops: Path) -> None:
    with client_at(shops) as client:
        paths = client.get("/openapi.json").json()["paths"]
    found = {
        path: {status for status in operation["responses"] if status != "200"}
        for path, methods in paths.items()
        for operation in methods.values()
    }
    assert found["/v1/predict"] == {"401", "403", "404", "409", "422", "503"}
    assert found["/v1/predictions/{prediction_id}"] == {"401", "403", "404", "422", "503"}
    assert found["/features/{entity}/{entity_id}"] == {"401", "403", "404", "422", "503"}
    problem = paths["/v1/predict"]["post"]["responses"]["422"]["content"]
    assert list(problem) == ["application/problem+json"]
