"""A rollout with the real service, ledger and log: steps by evidence, planted faults, kills.

A client asks without end. It is never answered with an error, and an entity goes from the champion
to the new version by a stage, or back by a rollback, and not otherwise.
"""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import httpx2 as httpx
import pytest

from mlops_pipeline.core.rollout.assignment import is_canary
from mlops_pipeline.core.rollout.machine import Event
from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.champions import MODEL
from mlops_pipeline.lifecycle.compliance.anchors import verify_audit
from mlops_pipeline.lifecycle.rollouts import send
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline_tests.lifecycle.tried_shop import (
    CUSTOMERS,
    LABELS_DUE,
    NEEDED,
    TriedShop,
    service,
    write_shop,
)
from mlops_pipeline_tests.serving.test_kill import Victim, postgres, rows_of_log
from mlops_pipeline_tests.sizes import size
from mlops_pipeline_tests.worlds import DAY

pytestmark = pytest.mark.campaign
PATIENCE_S = 60.0
FOLLOWED_S = 2.0  # by then every process serves the new split
UNLOADABLE = "cannot be loaded"
FAST_S = 5.0  # by then the service has rolled errors back by itself
SHARES = (0.0, 0.05, 0.25, 0.5, 1.0)
LOOK_LINES = 1_550  # of the package that a look goes through, about; it writes in the last ones
NAMES = ("shadow", "5 %", "25 %", "50 %", "full")
DATABASES = size(("sqlite",), ("sqlite", "postgresql"))


class Answer(NamedTuple):
    """Who was asked about, which version answered, and when it was asked and answered."""

    entity: str
    version: int | None
    role: str
    asked: float
    answered: float


class Client:
    """Asks about one customer after another without end, about each until it is answered."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers, self.failures = list[Answer](), list[str]()
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
            while not self._ending.wait(0.002):
                entity = str(CUSTOMERS[number % len(CUSTOMERS)])
                body = {"entity_id": int(entity), "request_id": str(number)}
                asked = time.monotonic()
                try:
                    said = client.post("/v1/predict", json=body)
                    said.raise_for_status()
                except httpx.HTTPError as error:
                    self.failures.append(f"{error!r} {getattr(error, 'response', None)}")
                    continue  # the same again
                number += 1
                found = said.json()
                times = asked, time.monotonic()
                self.answers.append(Answer(entity, found["model_version"], found["role"], *times))


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


@contextmanager
def placed(database: str, folder: Path) -> Iterator[tuple[Settings, Victim | None]]:
    """Settings of a new project, and the server of its ledger and log, where it has one."""
    given = Settings.from_environment({"MLOPS_DATA_DIR": str(folder / "shop" / "data")})
    given = replace(given, root=folder / "shop", threads=1, memory_limit="1GB")
    if database == "sqlite":
        yield given, None
        return
    with postgres(folder) as (server, url):
        yield replace(given, database_url=url, predictions_url=url), server


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    with placed(request.param, tmp_path) as (given, _):
        yield given


def follow(client: Client) -> None:
    """Wait until a stage has to be followed, and for answers after that."""
    since = time.monotonic() + FOLLOWED_S
    wait_until(
        lambda: len(client.answers) > 100 and client.answers[-100].asked > since,
        str(client.failures[:3]),
    )


def settle(shop: TriedShop, client: Client) -> None:
    """Wait until both versions scored enough answers of the present time."""
    wait_until(lambda: shop.paired() > NEEDED + 50, f"{client.failures[:3]}, {shop.paired()}")


def reach(shop: TriedShop, stage: int) -> None:
    """Bring the version in trial into a stage."""
    for _ in range(stage):
        event = Event("pass", "mlops", "a test", shop.now())
        with shop.ops() as ops:
            send(ops, shop.trial(), event)


def test_version_earns_its_stages_and_nobody_changes_sides_but_by_one(settings: Settings) -> None:
    shop = write_shop(settings.root, "when_complete", settings)
    entered = [(0.0, 0.0)]
    with service(shop) as (_, url), Client(url) as client:
        for stage in range(4):
            assert shop.where() == ("running", NAMES[stage])
            follow(client)
            settle(shop, client)
            shop.step(shop.now() + DAY)
            begun = time.monotonic()
            found = shop.look()
            assert found.step is not None
            if NAMES[stage] == "25 %":
                assert found.step.event == "ask", found.sentence
                assert shop.where() == ("awaiting_approval", "25 %")
                signed = ("--by", "Ada", "--reason", "looks well")
                assert "Ada" in shop.command("approve", "shop", "2", *signed)
            else:
                assert found.step.event == "pass", found.sentence
            entered.append((begun, time.monotonic()))
        follow(client)
    assert client.failures == []
    assert shop.where() == ("champion", "full")
    assert [event.stage for event in shop.events()] == [0, 1, 2, 2, 3, 4]
    with shop.ops() as ops:
        approved = [event for event in ops.audit_events(kind="approval") if event.actor == "Ada"]
    assert len(approved) == 1
    check, _ = verify_audit(shop.settings)
    assert [str(problem) for problem in check.problems] == []
    assert_sides(client.answers, entered, shop.trial().fingerprint)


def assert_sides(answers: list[Answer], entered: list[tuple[float, float]], salt: str) -> None:
    """Each answer is of the side of its stage, or of the one before for a moment.

    A stage begins between two times, and is followed a moment after the second.
    """
    seen = set[int]()
    ends = [*(latest + FOLLOWED_S for _, latest in entered[1:]), float("inf")]
    for one in answers:
        stages = {
            stage
            for stage, ((earliest, _), end) in enumerate(zip(entered, ends, strict=True))
            if one.answered >= earliest and one.asked <= end
        }
        allowed = {2 if is_canary(salt, one.entity, SHARES[stage]) else 1 for stage in stages}
        assert one.version in allowed, (one, stages)
        seen |= stages if len(stages) == 1 else set()
    assert seen == set(range(len(entered)))


class Case(NamedTuple):
    """A fault in a stage, and the guardrail that has to name it."""

    fault: str
    guardrail: str
    stage: int

    def __str__(self) -> str:
        return f"{self.fault}, {NAMES[self.stage]}"


BY_LOOK = {"shifted scores": "score_shift", "unfairness": "fairness"}  # from the first answer on
BY_SERVICE = {"errors": "error_rate", "latency": "latency", UNLOADABLE: "error_rate"}
CASES = [
    Case(fault, guardrail, stage)
    for fault, guardrail in {**BY_SERVICE, **BY_LOOK}.items()
    for stage in range(4)
]


@pytest.mark.parametrize("case", size([CASES[1]], CASES), ids=str)
def test_fault_is_rolled_back_with_its_reason(settings: Settings, case: Case) -> None:
    shop = write_shop(settings.root, "when_complete", settings)
    reach(shop, case.stage)
    if case.fault in BY_LOOK:
        shop.fault.write_text(case.fault)
    if case.fault == UNLOADABLE:
        folder = Lake(settings.lake_uri).documents_folder("shop", shop.trial().fingerprint)
        (folder / MODEL / "model.json").write_text("{}")
    with service(shop) as (_, url), Client(url) as client:
        planted = time.monotonic()
        if case.fault != UNLOADABLE:
            settle(shop, client)
            shop.step(shop.now() + DAY)
        if case.fault in BY_LOOK:
            assert shop.look().sentence.startswith(case.guardrail)
        else:
            if case.fault != UNLOADABLE:
                planted = time.monotonic()
                shop.fault.write_text(case.fault)
            wait_until(lambda: shop.where()[0] == "rolled_back", str(shop.where()))
            assert case.fault != "errors" or time.monotonic() - planted < FAST_S
        assert_champion_only(shop, client, case.guardrail)
    assert client.failures == []


def assert_champion_only(shop: TriedShop, client: Client, guardrail: str) -> None:
    """The version is taken out, with an alert that says why, and nobody is answered by it."""
    assert shop.where() == ("rolled_back", shop.trial().stage_name)
    assert guardrail in shop.events()[-1].reason
    with shop.ops() as ops:
        (alert,) = [item for item in list_alerts(ops, "shop") if item.kind == "rollout"]
    assert guardrail in alert.message
    follow(client)
    assert {one.version for one in client.answers[-100:]} == {1}


@pytest.mark.parametrize("stage", size((1,), range(4)), ids=lambda stage: NAMES[stage])
def test_worse_labels_roll_back_when_they_are_complete_and_hold_until_then(
    settings: Settings, stage: int
) -> None:
    shop = write_shop(settings.root, "required", settings)
    reach(shop, stage)
    shop.fault.write_text("worse labels")
    with service(shop) as (_, url), Client(url) as client:
        settle(shop, client)
        shop.step(shop.now() + 2 * DAY)
        shop.look()
        assert shop.where() == ("held", NAMES[stage])
        assert "realised (waiting)" in shop.events()[-1].reason
        shop.step(LABELS_DUE)
        assert "labels, which have stopped" in shop.look().sentence
        assert shop.where() == ("held", NAMES[stage])
        shop.deliver_labels()
        assert shop.look().sentence.startswith("realised")
        assert_champion_only(shop, client, "realised")
    assert client.failures == []


@pytest.mark.parametrize("database", DATABASES)
def test_rollout_goes_on_after_kills_and_nothing_is_lost(tmp_path: Path, database: str) -> None:
    drawn = random.Random(8)  # where to kill
    with placed(database, tmp_path) as (settings, server):
        shop = write_shop(settings.root, "when_complete", settings)
        entered = [(0.0, 0.0)]
        with service(shop) as (served, url), Client(url) as client:
            for stage in size(range(1), range(2)):
                follow(client)
                settle(shop, client)
                shop.step(shop.now() + DAY)
                begun = time.monotonic()
                lines = killed_looks(shop, size(1, 8), drawn)
                for victim in (served, server):
                    if victim is not None:
                        victim.kill()
                        victim.start()
                if shop.trial().stage == stage:
                    found = shop.look()
                    assert found.step is not None
                    assert found.step.event == "pass", (found.sentence, lines)
                assert shop.where() == ("running", NAMES[stage + 1])
                entered.append((begun, time.monotonic()))
                wait_until(lambda: httpx.get(f"{url}/v2/health/ready").status_code == 200, "ready")
            follow(client)
        assert [event.stage for event in shop.events()] == list(range(len(entered)))
        check, _ = verify_audit(shop.settings)
        assert [str(problem) for problem in check.problems] == []
        rows, acknowledged = rows_of_log(settings.predictions_url), len(client.answers)
        assert len(rows) == len(set(rows))
        assert {str(number) for number in range(acknowledged)} <= set(rows)
    assert_sides(client.answers, entered, "fingerprint-2")


def killed_looks(shop: TriedShop, kills: int, drawn: random.Random) -> list[int]:
    """Kill looks at lines drawn by seed until one has written its step, or so many were killed."""
    before, lines = shop.where(), list[int]()
    while shop.where() == before and len(lines) < kills:
        lines.append(1 + int(LOOK_LINES * drawn.random() ** 0.5))
        done = shop.looked_by_another(kill_at=lines[-1])
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return lines
