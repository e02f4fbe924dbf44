"""SIGKILL of the service, of PostgreSQL and of Redis under load: the log has what was acknowledged.

Clients ask again with the same request_id until they are answered, so in the end the log has every
request once: one that was lost, or stored twice, is seen.
"""

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2 as httpx
import pytest
from sqlalchemy import create_engine

from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.lifecycle.context import open_context
from mlops_pipeline.lifecycle.features.online.materialize import materialize_accepted, open_writer
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.predictions import PredictionLog
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline_tests.serving.served_shop import release
from mlops_pipeline_tests.serving.shops import SHOP_CASE, settings_at
from mlops_pipeline_tests.sizes import size
from mlops_pipeline_tests.worlds import NOW

pytestmark = pytest.mark.campaign
CLIENTS, KILLS = 4, size(1, 10)
PATIENCE_S = 60
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


class Victim:
    """A process that is started, killed and started again until it answers."""

    def __init__(self, command: list[str], is_up: Callable[[], bool], **options: object) -> None:
        self.command, self.is_up, self.options = command, is_up, options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if self.process is None or self.process.poll() is not None:
                self.process = subprocess.Popen(self.command, **self.options)  # type: ignore[call-overload] # of each
            if self.is_up():
                return
            time.sleep(0.1)
        raise AssertionError(f"{self.command[0]} does not answer")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Load:
    """Clients that ask without end, each request until it is acknowledged."""

    def __init__(self, url: str) -> None:
        self.url, self.acknowledged, self.statuses = url, [], set[int]()
        self.roles: set[str] = set()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]

    acknowledged: list[str]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        count = 0
        with httpx.Client(base_url=self.url, timeout=10) as client:
            while not self._ending.is_set():
                count += 1
                asked = {"entity_id": 1 + count % 2, "request_id": f"{number}-{count}"}
                self._until_acknowledged(client, asked)

    def _until_acknowledged(self, client: httpx.Client, body: dict[str, object]) -> None:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            try:
                said = client.post("/v1/predict", json=body)
            except httpx.HTTPError:
                time.sleep(0.05)  # as clients do
                continue
            self.statuses.add(said.status_code)
            if said.status_code == 200:
                self.roles.add(said.json()["role"])
                self.acknowledged.append(str(body["request_id"]))
                return
            time.sleep(0.05)
        raise AssertionError(f"{body} was never answered: {self.statuses}")

    def more(self, count: int, role: str = "champion") -> None:
        """Wait for so many more answers, and one of a role."""
        wanted, until = len(self.acknowledged) + count, time.monotonic() + PATIENCE_S
        self.roles.clear()
        while len(self.acknowledged) < wanted or role not in self.roles:
            assert time.monotonic() < until, (self.statuses, self.roles)
            time.sleep(0.01)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def service(root: Path, settings: Settings) -> Iterator[tuple[Victim, str]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        try:
            return httpx.get(f"{url}/v2/health/ready", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    given = {
        "MLOPS_DATA_DIR": str(settings.data_dir),
        "MLOPS_NOW": NOW.isoformat(),
        "MLOPS_PREDICTIONS_URL": settings.predictions_url,
        "MLOPS_ONLINE_URL": settings.online_url,
    }
    command = [sys.executable, "-m", "mlops_pipeline", "serve", "shop", "--port", str(port)]
    victim = Victim(command, is_up, cwd=root, env={**os.environ, **given})
    victim.start()
    try:
        yield victim, url
    finally:
        victim.kill()


@contextmanager
def postgres(folder: Path) -> Iterator[tuple[Victim, str]]:
    """A cluster of its own; PostgreSQL refuses to run as root."""
    if not POSTGRES:
        pytest.skip("PostgreSQL's server is not installed")
    bin_folder, port = POSTGRES[-1], free_port()
    who = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    made = ["mktemp", "-d", "/tmp/mlops-cluster-XXXXXX"]
    data = subprocess.run(made, capture_output=True, text=True, check=True, **who).stdout.strip()  # type: ignore[call-overload] # who
    init = [str(bin_folder / "initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"]
    subprocess.run(init, check=True, capture_output=True, cwd="/", **who)  # type: ignore[call-overload] # who
    command = [str(bin_folder / "postgres"), "-D", data, "-k", data, "-p", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"

    def is_up() -> bool:
        ready = [str(bin_folder / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        return subprocess.run(ready, check=False).returncode == 0

    victim = Victim(command, is_up, **who, **quiet)
    victim.start()
    try:
        yield victim, url
    finally:
        victim.kill()
        subprocess.run(["rm", "-rf", data], check=True)


@contextmanager
def redis(folder: Path) -> Iterator[tuple[Victim, str]]:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--dir", str(folder), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always"]
    victim = Victim(command, lambda: listens(port), stdout=subprocess.DEVNULL)
    victim.start()
    try:
        yield victim, f"redis://127.0.0.1:{port}/0"
    finally:
        victim.kill()


def rows_of_log(url: str) -> list[str]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT request_id FROM prediction")
        rows = [str(row[0]) for row in found]
    engine.dispose()
    return rows


@pytest.mark.parametrize("whom", ["service", "postgresql", "redis"])
def test_log_has_each_acknowledged_prediction_once_after_kills(
    changed: Path, tmp_path: Path, whom: str
) -> None:
    settings, draw = settings_at(changed), random.Random(1)
    release(settings)
    release(settings, 2, policy=RolloutPolicy.model_validate({"stages": ["shadow", "full"]}))
    with ExitStack() as stack:
        victim = None
        if whom == "postgresql":
            victim, url = stack.enter_context(postgres(tmp_path))
            settings = replace(settings, predictions_url=url)
        if whom == "redis":
            victim, url = stack.enter_context(redis(tmp_path))
            settings = replace(settings, online_url=url)
            with (
                OpsDatabase.open(settings.database_url) as ops,
                open_writer(settings) as store,
                open_context(SHOP_CASE, settings) as work,
            ):
                materialize_accepted(work, ops, store, now=NOW)
        served, url = stack.enter_context(service(changed, settings))
        with Load(url) as load:
            for _ in range(KILLS):
                load.more(draw.randrange(20, 80))
                (victim or served).kill()
                if whom == "redis":
                    load.more(10, role="default")
                    assert httpx.get(f"{url}/v2/health/ready").status_code == 200
                if whom == "postgresql":
                    said = wait_for(lambda: httpx.get(f"{url}/v2/health/ready"), 503)
                    assert said.json()["type"] == "urn:mlops:problem:log-unavailable"
                (victim or served).start()
            with PredictionLog(settings.predictions_url) as log:
                until = time.monotonic() + PATIENCE_S
                while not log.shadows("shop"):  # scores follow their answers
                    assert time.monotonic() < until, "nothing is scored beside the answers"
                    load.more(50)
        assert wait_for(lambda: httpx.get(f"{url}/v2/health/ready"), 200)
        assert sorted(rows_of_log(settings.predictions_url)) == sorted(load.acknowledged)
    assert load.statuses <= ({200, 503, 504} if whom == "postgresql" else {200, 504})


def wait_for(ask: Callable[[], httpx.Response], status: int) -> httpx.Response:
    until = time.monotonic() + PATIENCE_S
    while (said := ask()).status_code != status:
        assert time.monotonic() < until, said.text
        time.sleep(0.05)
    return said
