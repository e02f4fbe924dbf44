"""The app as a whole: readiness, no pages, and a real server."""

import logging
import re
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from mlops_pipeline.errors import ConfigError
from mlops_pipeline.serving import limits, problems
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


def served_at(root: Path, limit_s: int = 20, **options: Any) -> "tuple[Any, threading.Thread, int]":
    listener = socket.create_server((HOST, 0), backlog=64)
    settings = replace(settings_at(root), request_timeout_s=limit_s)
    server = http_server(CASES, settings, listener.getsockname()[1], **options)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    return server, thread, listener.getsockname()[1]


@contextmanager
def running(root: Path, scheme: str = "http", **options: Any) -> Iterator[httpx.Client]:
    """A client of a real server."""
    server, thread, port = served_at(root, **options)
    try:
        with httpx.Client(base_url=f"{scheme}://{HOST}:{port}", timeout=20, verify=False) as client:
            assert client.get("/health/live").status_code == 200
            yield client
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def locked_log(root: Path) -> Iterator[None]:
    """The log of predictions is locked: whoever writes waits."""
    path = settings_at(root).predictions_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


BODY = {"use_case": "shop", "entity_id": 1, "request_id": "a"}


def written(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    """A request as it is on the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: shop", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_requests_sent_at_once_are_answered_in_their_order(changed: Path) -> None:
    json_type = "Content-Type: application/json"
    body = b'{"use_case": "shop", "entity_id": 1}'
    asked = [
        written("POST", "/v1/predict", body, json_type),
        written("POST", "/v1/predict", b"{", json_type),
        written("GET", "/health/live"),
        written("POST", "/v1/predict", body, json_type, "Connection: close"),
    ]
    with running(changed) as client:
        address = (HOST, client.base_url.port)
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(b"".join(asked))
            said = b"".join(iter(lambda: connection.recv(65_536), b""))
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(asked[0][:-5])  # gone before its request was whole
        assert client.get("/health/live").status_code == 200
    assert re.findall(rb"HTTP/1.1 (\d+)", said) == [b"200", b"422", b"200", b"200"]
    assert said.count(b"prediction_id") == 2


def test_head_without_end_is_hung_up(shops: Path) -> None:
    with (
        running(shops) as client,
        socket.create_connection((HOST, client.base_url.port), timeout=20) as connection,
    ):
        connection.sendall(b"GET /health/live HTTP/1.1\r\n")
        with suppress(ConnectionError):
            for number in range(200):
                connection.sendall(b"x-%d: " % number + b"y" * 1_000 + b"\r\n")
            assert connection.recv(1_024) == b""


def test_answer_that_takes_too_long_is_a_problem_and_kept_for_the_same_id(changed: Path) -> None:
    with running(changed, limit_s=1) as client:
        with locked_log(changed):
            late = client.post("/v1/predict", json=BODY)
        assert problem_of(late) == (504, "timed-out")
        assert late.headers["retry-after"] == "1"
        assert client.post("/v1/predict", json=BODY).status_code == 200


def test_what_would_wait_long_is_refused_early(
    changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WORKERS", 2)
    monkeypatch.setattr(limits, "REQUESTS_AT_ONCE", 2)
    with running(changed, limit_s=1) as client, ThreadPoolExecutor(8) as pool:
        with locked_log(changed):
            bodies = [{"use_case": "shop", "entity_id": 1} for _ in range(8)]
            said = list(pool.map(lambda body: client.post("/v1/predict", json=body), bodies))
            assert client.get("/health/live").status_code == 200
        assert sorted(one.status_code for one in said) == [503] * 6 + [504] * 2
        shed = next(one for one in said if one.status_code == 503)
        assert problem_of(shed) == (503, "overloaded")
        assert shed.headers["retry-after"] == "1"


def test_connections_are_bounded(shops: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS", 3)
    with running(shops) as client:
        assert client.get("/health/live").status_code == 200
        with ExitStack() as stack:
            address = (HOST, client.base_url.port)
            for _ in range(2):
                stack.enter_context(socket.create_connection(address, timeout=20))
            assert client.get("/health/live").status_code == 200  # so the two are counted
            refused = stack.enter_context(socket.create_connection(address, timeout=20))
            assert refused.recv(1_024).startswith(b"HTTP/1.1 503 ")
        assert client.get("/health/live").status_code == 200


def test_headers_and_bodies_are_bounded(shops: Path) -> None:
    with running(shops) as client:
        many = {f"x-{n}": "y" * 1_000 for n in range(20)}
        assert problem_of(client.get("/features/customer/1", headers=many))[0] == 431
        large = b'"' + b"x" * limits.BODY_BYTES + b'"'
        assert problem_of(client.post("/v1/predict", content=large)) == (413, "too-large")
        pieces = (large[place : place + 65_536] for place in range(0, len(large), 65_536))
        assert problem_of(client.post("/v1/predict", content=pieces)) == (413, "too-large")


def test_answer_that_nobody_takes_ends_the_connection(
    shops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REQUEST_SECONDS", 0.5)
    server, thread, port = served_at(shops)
    try:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
            one.settimeout(20)
            one.connect((HOST, port))
            ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
            with pytest.raises((ConnectionResetError, BrokenPipeError)):  # noqa: PT012 # until it ends
                while True:
                    one.sendall(ask * 100)
    finally:
        server.should_exit = True
        thread.join()


def test_every_answer_has_security_headers_over_tls_too(shops: Path, tmp_path: Path) -> None:
    pair = tmp_path / "cert.pem", tmp_path / "key.pem"
    name = ["-subj", "/CN=127.0.0.1", "-keyout", str(pair[1]), "-out", str(pair[0])]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *name]
    subprocess.run(made, check=True, capture_output=True)
    with running(shops, "https", tls=pair) as client:
        for path in ("/health/live", "/nothing", "/features/customer/1"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert headers["strict-transport-security"] == "max-age=31536000"
            assert "server" not in headers
    with pytest.raises(ConfigError, match="certificate"):
        http_server(CASES, settings_at(shops), 1, tls=(pair[1], pair[0]))


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
    guarded = set(map(str, problems.GUARDED))
    found = {
        path: {status for status in operation["responses"] if status != "200"}
        for path, methods in paths.items()
        for operation in methods.values()
    }
    assert found["/v1/predict"] == {*guarded, "404", "409", "422"}
    assert found["/v1/predictions/{prediction_id}"] == {*guarded, "404", "422"}
    assert found["/features/{entity}/{entity_id}"] == {*guarded, "404", "422"}
    problem = paths["/v1/predict"]["post"]["responses"]["422"]["content"]
    assert list(problem) == ["application/problem+json"]
