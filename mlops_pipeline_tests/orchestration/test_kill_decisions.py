"""SIGKILL inside every command that decides, at lines drawn by seed; then one projection.

Whatever the line was: the database, MLflow, the anchors and the files agree after it. The command
again ends as one that nobody killed, and nothing is there twice.
"""

import random
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.core.evaluation.records import ExceptionEntry
from mlops_pipeline.core.rollout.records import Approval, Rollout, RolloutEvent
from mlops_pipeline.lifecycle.champions import champion_rollout, released_model
from mlops_pipeline.lifecycle.compliance.anchors import anchored_events, verify_audit
from mlops_pipeline.lifecycle.project import pending_effects, project
from mlops_pipeline.stores.ops import Decision, Ledger, Tombstone
from mlops_pipeline_tests.sizes import size
from mlops_pipeline_tests.world import FIRST_ID, LATER, World

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.sized,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # MLflow's own
]
SIGNED = ("--by", "Ann", "--reason", "a test")
RULE = ("--rule", "metric:roc_auc", "--expires", "9999-01-01")
COMMANDS: Mapping[str, Sequence[str]] = {
    "lifecycle": (),
    "approve": ("mlops", "approve", "churn", "2", *SIGNED),
    "reject": ("mlops", "reject", "churn", "2", *SIGNED),
    "rollback": ("mlops", "rollback", "churn", *SIGNED),
    "exception": ("mlops", "exception", "grant", "churn", *RULE, *SIGNED),
    "forget": ("mlops", "forget", "customer", str(FIRST_ID + 7), *SIGNED, "--yes"),
}
KILLS = size(
    {"lifecycle": 0, "approve": 2, "forget": 2},
    {"lifecycle": 4, "approve": 4, "reject": 3, "rollback": 3, "exception": 2, "forget": 4},
)
SEED = 20
IN_STEPS = ("forget", "lifecycle")  # each is whole, and the command again goes on from there


@dataclass(frozen=True)
class Worlds:
    """Before each command; after it, where nobody killed it; and how many lines it has."""

    before: dict[str, World]
    after: dict[str, World]
    lines: dict[str, int]


def start(world: World, name: str, kill_at: int | None = None) -> Any:
    if name == "lifecycle":
        return world.start(ops={"features": {"as_of": LATER}}, kill_at=kill_at)
    return world.command(*COMMANDS[name], kill_at=kill_at)


@pytest.fixture(scope="module")
def worlds(template: World, tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    """Run every command once to its end: a challenger waits, is approved, is rolled back."""
    before = {"lifecycle": template, "exception": template, "forget": template}
    made, folder = Worlds(before, {}, {}), tmp_path_factory.mktemp("worlds")
    for name, kills in KILLS.items():
        world = made.before[name].copy_to(folder / name)
        run = start(world, name, 0 if kills else None)
        assert run.wait() == 0, run.text()[-3_000:]
        made.after[name] = world
        if kills:  # counting takes its time
            made.lines[name] = int(Path(f"{run.log}.lines").read_text())
        if name == "lifecycle":
            before["approve"] = before["reject"] = world
        if name == "approve":
            before["rollback"] = world
    return made


def follow(world: World) -> None:
    with world.ops() as ops:
        project(ops, world.settings, world.use_case, reason="a test", now=world.settings.now())


def agreed(world: World) -> None:
    """Database, MLflow, anchors and files agree, and the champion scores."""
    follow(world)
    check, _ = verify_audit(world.settings)
    assert [str(problem) for problem in check.problems] == []
    assert world.mlflow("SELECT name FROM runs WHERE status = 'RUNNING'") == []
    with world.ops() as ops:
        assert pending_effects(ops, world.settings, "churn") == 0
        assert anchored_events(world.settings) == ops.audit_head()[0]
        champion = champion_rollout(ops, world.use_case, now=world.settings.now())
        released_model(ops, world.settings, world.use_case, champion.fingerprint)


def decided(ops: Ledger) -> Mapping[str, object]:
    """What people and gates decided: each thing once."""
    made = [(row.kind, row.action) for row in ops.all(Decision)]
    again = {item for item in made if item[0] == "promotion"}  # a second run says its own
    return {
        "rollouts": [(row.version, row.state) for row in ops.all(Rollout)],
        "changes": sorted((row.version, row.to_state) for row in ops.all(RolloutEvent)),
        "approvals": [(row.version, row.verdict) for row in ops.all(Approval)],
        "exceptions": [(row.rule, row.by) for row in ops.all(ExceptionEntry)],
        "decisions": sorted([*again, *(item for item in made if item not in again)]),
        "forgotten": [row.finished_at is not None for row in ops.all(Tombstone)],
        "counts": [
            {key: event.detail[key] for key in ("rows", "mlflow", "predictions")}
            for event in ops.audit_events(kind="forgotten")
        ],
    }


def points() -> Iterator[tuple[str, float]]:
    drawn = random.Random(SEED)  # where to kill
    for name, kills in KILLS.items():
        for number in range(kills):  # one in each part of the command
            yield name, (number + drawn.random()) / kills


@pytest.mark.parametrize(("name", "part"), [*points()])
def test_command_that_was_killed_leaves_a_whole_and_is_finished_by_the_next(
    worlds: Worlds, tmp_path: Path, name: str, part: float
) -> None:
    world = worlds.before[name].copy_to(tmp_path / "world")
    with world.ops() as ops, worlds.after[name].ops() as other:
        start_of_it, end_of_it = decided(ops), decided(other)
    killed = start(world, name, max(1, int(part * worlds.lines[name])))
    assert killed.wait() == -signal.SIGKILL

    agreed(world)
    with world.ops() as ops:
        state = decided(ops)
    is_done = state == end_of_it
    assert is_done or not killed.has_said("; recorded: ")  # what was acknowledged is kept
    assert is_done or state == start_of_it or name in IN_STEPS
    if not is_done:
        assert start(world, name).wait() == 0
    elif name not in IN_STEPS:
        start(world, name).wait()  # what was decided is refused, or is as it was
    agreed(world)
    with world.ops() as ops:
        assert decided(ops) == end_of_it
