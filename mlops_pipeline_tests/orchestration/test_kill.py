"""SIGKILL while each asset is at work, one after another on one world; then a run to the end."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from mlops_pipeline.lifecycle.bookkeeping import get_pointer, last_finished_lifecycle
from mlops_pipeline.lifecycle.rollouts import find_champion, list_rollouts
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.ops.lease import get_lease
from mlops_pipeline_tests.world import World, write_world

pytestmark = pytest.mark.campaign

LEASE_PATIENCE_S = 20.0  # a dead process of this host is taken over at once; 30 s is the expiry


def _commits(world: World, table: str) -> int:
    return len(list(world.data.glob(f"lake/churn/{table}/_delta_log/*.json")))


def _state(ops: OpsDatabase) -> str | None:
    lease = get_lease(ops, "lifecycle:churn")
    return lease.state if lease else None


def _has_file(world: World, pattern: str) -> bool:
    return any(world.artifacts.glob(pattern))


def _has_rollout(world: World) -> bool:
    with world.ops() as ops:
        return bool(list_rollouts(ops, "churn"))


# A moment within the work of each asset: something of it is there, and not all.
MOMENTS: Mapping[str, Callable[[World], bool]] = {
    "raw_data": lambda world: _commits(world, "raw/accounts") > 0,
    "data_docs": lambda world: _has_file(world, ".data_docs.*"),
    "validated_data": lambda world: _commits(world, "raw/accounts") > 0,
    "features": lambda world: _commits(world, "features/*") > 2,
    "trained_model": lambda world: bool(
        world.mlflow("SELECT 1 FROM runs WHERE name = 'large' AND status = 'RUNNING'")
    ),
    "evaluation_report": lambda world: _has_file(world, "*/evidently.html"),
    "registry_entry": lambda world: bool(world.incomplete_versions()),
    "deployment": _has_rollout,
}


@pytest.fixture(scope="module")
def hit(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("kill") / "world")


@pytest.mark.parametrize("asset", MOMENTS)
def test_kill_at_each_asset_leaves_nothing_in_force(hit: World, asset: str) -> None:
    run = hit.start(ops={"features": {"as_of": "2024-02-01"}})
    starts = 'Started execution of step "churn__{}"'
    run.wait_until(lambda: run.has_said(starts.format("raw_data")))
    since = time.monotonic()
    if len(list(hit.root.glob("run-*.log"))) > 1:  # the killed run before still has the lease
        run.wait_until(lambda: run.has_said(starts.format("data_docs")))
        assert time.monotonic() - since < LEASE_PATIENCE_S
    run.wait_until(lambda: run.has_said(starts.format(asset)))
    with hit.ops() as ops:  # at work: it holds the lease that the step before left lingering
        run.wait_until(lambda: _state(ops) == "held" and MOMENTS[asset](hit))
    run.kill()

    with hit.ops() as ops:
        champion = find_champion(ops, "churn")
        assert last_finished_lifecycle(ops, "churn") is None
    assert (champion is not None) == (asset == "deployment")
    assert hit.complete_versions() == ([] if asset != "deployment" else _one(hit))


def test_run_after_every_kill_ends_as_without_them(hit: World, template: World) -> None:
    hit.lifecycle()

    with hit.ops() as ops:
        champion = find_champion(ops, "churn")
        lifecycle = last_finished_lifecycle(ops, "churn")
        states = [item.state for item in list_rollouts(ops, "churn")]
    assert champion is not None
    assert lifecycle is not None
    assert lifecycle.verdict == "champion"
    assert states == ["champion"]
    assert hit.complete_versions() == [champion.version]
    assert hit.incomplete_versions() == []
    assert hit.model_files(champion.version) == template.model_files(1)
    assert hit.trained_files() == template.trained_files()
    assert _features(hit) == _features(template)
    assert hit.mlflow("SELECT name FROM runs WHERE status = 'RUNNING'") == []
    assert len(hit.mlflow("SELECT 1 FROM runs WHERE status = 'KILLED' AND name LIKE 'churn_%'")) > 0
    assert len([*hit.data.glob("mlflow/artifacts/churn/models/*")]) == 1
    assert _leftovers(hit.data) == []


def _one(world: World) -> list[int]:
    found = world.complete_versions()
    assert len(found) == 1
    return found


def _features(world: World) -> object:
    with world.ops() as ops:
        pointer = get_pointer(ops, "churn", "features")
    assert pointer is not None
    return pointer.value["content_hash"]


def _leftovers(data: Path) -> list[str]:
    """Hidden work folders and half-written documents."""
    return [
        str(path.relative_to(data))
        for path in data.rglob("*")
        if path.name.startswith((".scratch", ".writing")) or path.suffix == ".partial"
    ] + [str(path) for path in data.glob("lake/churn/artifacts/.*")]
