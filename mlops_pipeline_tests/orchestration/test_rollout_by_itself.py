"""A version goes from shadow to full by itself: real service, daemon, client, a stepping Clock."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import httpx2 as httpx
import pytest
import yaml

from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.core.rollout.assignment import is_canary
from mlops_pipeline.lifecycle.rollouts import get_rollout, rollout_events
from mlops_pipeline.stores.settings import parse_time
from mlops_pipeline_tests.lifecycle.trial_steps import open_copy_in_trial, stage_of
from mlops_pipeline_tests.orchestration.test_triggers import LOCATION, end_group
from mlops_pipeline_tests.sizes import size
from mlops_pipeline_tests.world import FIRST_ID, PATIENCE_S, Run, World

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # MLflow's own
]
BEGIN, END = "2024-02-10T00:00:00Z", "2024-02-20T00:00:00Z"
CUSTOMERS = 600
SHARES = size((0.5,), (0.05, 0.25, 0.5))
STAGES: list[Any] = [
    {"share": 0, "days": 1, "requests": 300},
    *({"share": share, "days": 1, "approval": share == 0.5} for share in SHARES),
    "full",
]
ROLLOUT = {
    "stages": STAGES,
    # the model is small, and its world: what is tested here is that it goes on, not by how much
    "guardrails": {"score_shift": 0.9, "parity_difference": 0.9, "latency_ms": 2_000},
}


class Client:
    """Asks about one customer after another without end; who answered, and every failure."""

    def __init__(self, url: str) -> None:
        self.url, self.failures = url, list[str]()
        self.answers: list[tuple[str, str, int | None]] = []  # entity, role, version
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> "Client":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ending.set()
        self._thread.join()

    def _ask(self) -> None:
        number = 0
        with httpx.Client(base_url=self.url, timeout=10) as client:
            while not self._ending.wait(0.005):
                entity = str(FIRST_ID + number % CUSTOMERS)
                said = client.post("/v1/predict", json={"entity_id": entity})
                number += 1
                if said.status_code != 200:
                    self.failures.append(f"{said.status_code}: {said.text[:200]}")
                    continue
                found = said.json()
                self.answers.append((entity, found["role"], found["model_version"]))


@contextmanager
def running(run: Run) -> Iterator[Run]:
    try:
        yield run
    finally:
        os.kill(run.process.pid, signal.SIGTERM)
        run.process.join(PATIENCE_S)
        end_group(run.process.pid)


def command(world: World, *words: str) -> None:
    done = world.command(*words)
    assert done.wait() == 0, done.text()[-2_000:]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 3 * PATIENCE_S) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.1)


@pytest.fixture
def staged(world: World) -> World:
    world.configure(lambda document: document.update(rollout=ROLLOUT))
    (world.root / "location.py").write_text(LOCATION)
    workspace = {"load_from": [{"python_file": {"relative_path": "location.py"}}]}
    (world.root / "workspace.yaml").write_text(yaml.safe_dump(workspace))
    command(world, "mlops", "clock", "step", "--to", BEGIN, "--by", "Tess")
    open_copy_in_trial(world, RolloutPolicy.model_validate(ROLLOUT), parse_time(BEGIN))
    return world


def test_version_goes_from_shadow_to_full_by_itself(staged: World) -> None:
    world = staged
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    service = world.command("mlops", "serve", "churn", "--port", str(port))
    with running(service):
        wait_until(lambda: listens(url), service.text())
        command(world, "sensor", "start", "calendar", "-w", "workspace.yaml")
        with Client(url) as client:
            wait_until(lambda: len(client.answers) > 400, str(client.failures))
            daemon = world.command("daemon", "run", "-w", "workspace.yaml")
            with running(daemon):
                command(world, "mlops", "clock", "step", "--until", END, "--by", "Tess")
                wait_until(lambda: stage_of(world, 2)[0] == "awaiting_approval", daemon.text())
                assert stage_of(world, 2)[1] == size("shadow", "25 %")
                command(
                    world, "mlops", "approve", "churn", "2", "--by", "Ada", "--reason", "looks well"
                )
                wait_until(lambda: stage_of(world, 2)[0] == "champion", daemon.text())
            after = len(client.answers) + 200
            wait_until(lambda: len(client.answers) > after, str(client.failures))
    assert client.failures == []
    with world.ops() as ops:
        events = rollout_events(ops, "churn", 2)
        trial = get_rollout(ops, "churn", 2)
    entered = [event.stage for event in events if event.to_state in ("running", "champion")]
    assert list(dict.fromkeys(entered)) == [*range(len(STAGES))]
    assert "Ada" in {event.actor for event in events}
    assert stage_of(world, 1)[0] == "previous"
    last = {version for _, _, version in client.answers[-100:]}
    assert last - {None} == {2}  # of customers who are not known, nobody decides
    _nobody_changed_sides(client.answers, trial.fingerprint)


def _nobody_changed_sides(answers: list[tuple[str, str, int | None]], salt: str) -> None:
    """Each entity is the champion's until the stage that takes it in, and never goes back.

    A stage's entities come in before those of the next: no answer of a later one before.
    """
    first = dict[str, int]()  # the place of an entity's first answer by the new version
    for place, (entity, _, version) in enumerate(answers):
        if version == 2:
            first.setdefault(entity, place)
        else:
            assert entity not in first, entity
    begins = []
    for below, share in pairwise((0.0, *SHARES, 1.0)):
        joined = [
            place
            for entity, place in first.items()
            if is_canary(salt, entity, share) and not is_canary(salt, entity, below)
        ]
        begins.append(min(joined))
        assert max(joined) < min(joined) + 2 * CUSTOMERS  # all of a stage at once
    assert begins == sorted(begins)


def listens(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v2/health/ready").status_code == 200
    except httpx.HTTPError:
        return False
