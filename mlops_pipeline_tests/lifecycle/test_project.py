"""What lies outside of the ledger follows it, also after a process that was killed on the way."""

import os
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.lifecycle import project as projector
from mlops_pipeline.lifecycle.bookkeeping import set_pointer
from mlops_pipeline.lifecycle.compliance import anchors
from mlops_pipeline.lifecycle.compliance.anchors import (
    anchor_chain,
    anchor_lines,
    anchors_file,
    verify_audit,
)
from mlops_pipeline.lifecycle.deployments import decide_approval, roll_back_champion
from mlops_pipeline.lifecycle.project import pending_effects, project, project_registry
from mlops_pipeline.lifecycle.rollouts import (
    PersonsDecision,
    decide,
    get_rollout,
    open_rollout,
)
from mlops_pipeline.stores.models.mlflow import Registry, Tracking, open_tracking
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline_tests.stores.ops.tampering import tamper
from mlops_pipeline_tests.worlds import NOW, shop

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
YES = PersonsDecision("approved", "ada", "better")
LATER = NOW + timedelta(hours=1)
CLIENT = ("set_model_version_tag", "set_registered_model_alias", "delete_registered_model_alias",
          "set_experiment_tag")  # fmt: skip


def settings_in(folder: Path) -> Settings:
    return Settings.from_environment({"MLOPS_DATA_DIR": str(folder)})


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose MLflow has two complete versions: the first in use, the second waiting."""
    folder = tmp_path_factory.mktemp("registered")
    settings, case = settings_in(folder), shop()
    client = open_tracking(settings, case.name).client
    client.create_registered_model(case.name)
    for _ in range(2):
        made = client.create_model_version(case.name, str(folder), run_id="m")
        mark = f"f{made.version}"
        tags = {"run_fingerprint": mark, "mlflow_run_id": "m", "dagster_run_id": "d"}
        tags |= {"metadata_uri": f"/lake/{mark}-release/metadata.json", "complete": "true"}
        for key, value in tags.items():
            client.set_model_version_tag(case.name, made.version, key, value)
    with OpsDatabase.open(settings.database_url) as ops:
        for version in (1, 2):
            waits = version == 2
            open_rollout(
                ops,
                case.name,
                version,
                mlflow_run_id="m",
                dagster_run_id="d",
                fingerprint=f"f{version}",
                policy=RolloutPolicy(),
                state="awaiting_approval" if waits else "champion",
                reason="gate passed",
                waiting_for="ada" if waits else None,
                now=NOW,
            )
        project(ops, settings, case, reason="opened", now=NOW)
    return folder


@pytest.fixture
def settings(registered: Path, tmp_path: Path) -> Settings:
    shutil.copytree(registered, tmp_path / "data")
    return settings_in(tmp_path / "data")


@pytest.fixture
def case() -> UseCase:
    return shop()


def shown(settings: Settings, case: UseCase) -> tuple[dict[str, int], dict[int, str]]:
    """Return MLflow's aliases, and its approval states by version."""
    client = open_tracking(settings, case.name).client
    aliases = client.get_registered_model(case.name).aliases
    versions = client.search_model_versions(f"name = '{case.name}'")
    return (
        {alias: int(version) for alias, version in aliases.items()},
        {int(item.version): item.tags["approval_state"] for item in versions},
    )


def killed(work: Callable[[], object], owner: Any, name: str, call: int) -> None:
    """Do some work in a process that is killed when it calls a function for the n-th time."""
    child = os.fork()
    if child == 0:
        counted, real = [0], getattr(owner, name)

        def kill(*given: Any, **named: Any) -> Any:
            counted[0] += 1
            if counted[0] == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **named)

        setattr(owner, name, kill)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def where(name: str) -> Any:
    if name in CLIENT:
        import mlflow

        return mlflow.MlflowClient
    return anchors if name == "_append" else projector


def test_aliases_and_states_follow_what_was_opened(settings: Settings, case: UseCase) -> None:
    assert shown(settings, case) == (
        {"champion": 1, "challenger": 2},
        {1: "production", 2: "candidate"},
    )


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("check_approval", 1),
        ("project_registry", 1),
        ("set_model_version_tag", 1),
        ("set_registered_model_alias", 1),
        ("set_registered_model_alias", 2),
        ("delete_registered_model_alias", 1),
        ("anchor_chain", 1),
        ("_append", 1),
        ("set_experiment_tag", 1),
    ],
)
def test_killed_at_an_effect_the_next_process_completes_it(
    settings: Settings, case: UseCase, name: str, call: int
) -> None:
    def approve() -> None:
        with OpsDatabase.open(settings.database_url) as own:
            decide_approval(own, settings, case, 2, YES, now=LATER)

    killed(approve, where(name), name, call)
    with OpsDatabase.open(settings.database_url) as ops:
        assert get_rollout(ops, case.name, 2).state == "champion"
        project(ops, settings, case, reason="next", now=LATER)
        assert pending_effects(ops, settings, case.name) == 0
    assert shown(settings, case) == (
        {"champion": 2, "previous": 1},
        {1: "production", 2: "production"},
    )
    found, _ = verify_audit(settings)
    assert (found.problems, found.anchored) == ([], found.count)


def test_projecting_twice_changes_nothing(
    settings: Settings, case: UseCase, ops: OpsDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide_approval(ops, settings, case, 2, YES, now=LATER)
    before = anchor_lines(anchors_file(settings)), ops.audit_head(), shown(settings, case)

    def refuse(*given: object, **named: object) -> None:
        raise AssertionError("there was nothing to do")

    for name in CLIENT:
        monkeypatch.setattr(where(name), name, refuse)
    project(ops, settings, case, reason="again", now=LATER)
    assert before == (anchor_lines(anchors_file(settings)), ops.audit_head(), shown(settings, case))


def test_ledger_that_goes_on_while_it_is_projected_is_projected_again(
    settings: Settings, case: UseCase, ops: OpsDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = Registry.project, []

    def approve_meanwhile(self: Registry, states: Any, approvals: Any) -> None:
        seen.append(dict(states))
        if len(seen) == 1:
            approve_in_ledger(ops, settings, case)
        real(self, states, approvals)

    monkeypatch.setattr(Registry, "project", approve_meanwhile)
    project(ops, settings, case, reason="end of a run", now=LATER)
    assert [states[2] for states in seen] == ["awaiting_approval", "champion"]
    assert shown(settings, case)[0] == {"champion": 2, "previous": 1}


def approve_in_ledger(ops: OpsDatabase, settings: Settings, case: UseCase) -> None:
    """Approve version 2 in the ledger only, as another process just did."""
    decide(ops, case.name, 2, YES, now=LATER)
    assert pending_effects(ops, settings, case.name) == 3  # an approval, and two changes of state


def test_rollback_is_one_transaction_that_everything_follows(
    settings: Settings, case: UseCase, ops: OpsDatabase
) -> None:
    decide_approval(ops, settings, case, 2, YES, now=LATER)
    restored = roll_back_champion(ops, settings, case, by="bo", reason="worse", now=LATER)
    assert (restored.version, restored.state) == (1, "champion")
    assert shown(settings, case) == ({"champion": 1}, {1: "production", 2: "archived"})
    kinds = [event.kind for event in ops.audit_events(limit=7)]
    assert kinds == ["decision", *["record", "rollout", "record"] * 2]
    assert verify_audit(settings)[0].problems == []


@pytest.mark.parametrize("is_before", [True, False])
def test_verify_while_another_process_anchors_finds_nothing(
    settings: Settings,
    case: UseCase,
    ops: OpsDatabase,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_before: bool,
) -> None:
    project(ops, settings, case, reason="the first", now=LATER)
    looks: list[int] = []

    def told(tracking: Tracking) -> dict[int, str]:
        """Read MLflow, while a run ends before or after the first look."""
        found = original(tracking)
        if not looks:
            looks.append(1)
            ops.append_audit("decision", {}, use_case=case.name, actor="run", now=LATER)
            anchor_chain(ops, settings, case, reason="a run", now=LATER)
            return original(tracking) if is_before else found
        return found

    original = anchors._told
    monkeypatch.setattr(anchors, "_told", told)
    check, _ = verify_audit(settings)
    said = [str(problem) for problem in check.problems]
    assert not [text for text in said if "MLflow" in text]


def test_verify_finds_a_change_that_the_machine_would_not_have_made(
    settings: Settings, case: UseCase, ops: OpsDatabase
) -> None:
    tamper(ops, "UPDATE rollout SET stage = 7 WHERE version = 1")
    found, _ = verify_audit(settings)
    said = [str(problem) for problem in found.problems]
    assert (
        "version 1 of shop is in state champion, stage 7; its changes lead to champion, stage 0"
        in said
    )
    tamper(ops, "UPDATE rollout_event SET from_state = 'archived' WHERE to_state = 'champion'")
    found, _ = verify_audit(settings)
    assert any("has changes that nobody could make" in str(problem) for problem in found.problems)


def test_version_that_is_registered_and_not_deployed_is_the_challenger(
    settings: Settings, case: UseCase, ops: OpsDatabase
) -> None:
    decide_approval(ops, settings, case, 2, YES, now=LATER)
    client = open_tracking(settings, case.name).client
    made = client.create_model_version(case.name, str(settings.data_dir))
    client.set_model_version_tag(case.name, made.version, "complete", "true")
    entry = {"version": 3, "fingerprint": "f3", "needs_review": True}
    set_pointer(ops, case.name, "registry", entry, run_id="d", now=LATER)
    project(ops, settings, case, reason="end of a run", now=LATER)
    assert shown(settings, case) == (
        {"champion": 2, "previous": 1, "challenger": 3},
        {1: "production", 2: "production", 3: "candidate"},
    )


def test_anchor_that_was_not_written_is_pending_though_mlflow_shows_all(
    settings: Settings, case: UseCase, ops: OpsDatabase
) -> None:
    decide(ops, case.name, 2, YES, now=LATER)
    registry = Registry(open_tracking(settings, case.name), case.name)
    project_registry(ops, registry, now=LATER)
    assert pending_effects(ops, settings, case.name) == 3
    project(ops, settings, case, reason="next", now=LATER)
    assert pending_effects(ops, settings, case.name) == 0
