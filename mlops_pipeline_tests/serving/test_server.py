"""The app as a whole: readiness, no pages, and a real server."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx

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
