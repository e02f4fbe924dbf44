"""What the ledger, `mlops status` and MLflow say of a run: while it works, and however it ends."""

import os
import signal
from typing import Any

import pytest

from mlops_pipeline.lifecycle.bookkeeping import (
    LIFECYCLE_BEGUN,
    RUN_ENDED,
    begin_run,
    end_run,
    run_state,
)
from mlops_pipeline.lifecycle.project import project
from mlops_pipeline.lifecycle.status import use_case_status
from mlops_pipeline_tests.world import LATER, World

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
LATER_RUN = {"features": {"as_of": LATER}}
CANDIDATE = "SELECT 1 FROM runs WHERE name = 'large' AND status = 'RUNNING'"


def last_run(world: World) -> dict[str, Any]:
    found = use_case_status(world.use_case, world.settings)["last_run"]
    assert isinstance(found, dict)
    return found


def shown(world: World) -> list[str]:
    """What MLflow says of the runs after that of the template: the run, then its candidates."""
    rows = world.mlflow("SELECT status FROM runs ORDER BY start_time, name")
    return [row[0] for row in rows[3:]]


def follow(world: World) -> None:
    with world.ops() as ops:
        project(ops, world.settings, world.use_case, reason="a test", now=world.settings.now())


def test_run_of_the_template_ended_as_champion(template: World) -> None:
    run = last_run(template)
    assert (run["state"], run["verdict"]) == ("champion", "champion")
    with template.ops() as ops:
        (begun,) = ops.audit_events(kind=LIFECYCLE_BEGUN)
    assert begun.seq == 1  # before the run did anything
    assert begun.detail == {"run_id": run["run_id"], "trigger": "manual"}


def test_run_that_is_refused_at_its_first_asset_is_on_record_as_failed(world: World) -> None:
    (world.data / "sources" / "churn" / "accounts.parquet").write_bytes(b"PAR1")
    before = last_run(world)
    assert world.start(ops=LATER_RUN).wait() != 0
    run = last_run(world)
    assert run["run_id"] != before["run_id"]
    assert (run["state"], run["as_of"], run["verdict"]) == ("failed", None, None)
    assert shown(world) == []


def test_killed_run_is_interrupted_and_the_next_projection_ends_it_in_mlflow(
    world: World,
) -> None:
    run = world.start(ops=LATER_RUN)
    run.wait_until(lambda: bool(world.mlflow(CANDIDATE)))
    follow(world)
    assert (last_run(world)["state"], shown(world)[0]) == ("running", "RUNNING")
    run.kill()
    assert last_run(world)["state"] == "interrupted"
    assert "RUNNING" in shown(world)
    follow(world)
    assert set(shown(world)) == {"KILLED", "FINISHED"}
    assert shown(world)[0] == "KILLED"


def test_run_that_fails_after_training_fails_in_mlflow_too(world: World) -> None:
    world.forget_registration()
    world.configure(lambda document: document["gates"][0].update(at_least=0.999))
    run = world.start(ops={**LATER_RUN, "registry_entry": {"on_rejection": "fail"}})
    assert run.wait() != 0
    assert shown(world) == ["FAILED", "FINISHED", "FINISHED"]
    assert last_run(world)["state"] == "refused"


def test_run_that_is_interrupted_says_so_itself(world: World) -> None:
    run = world.start(ops=LATER_RUN)
    run.wait_until(lambda: bool(world.mlflow(CANDIDATE)))
    os.kill(run.process.pid, signal.SIGINT)
    assert run.wait() != 0
    with world.ops() as ops:
        (ended, _) = ops.audit_events(kind=RUN_ENDED)
    assert (last_run(world)["state"], ended.detail["outcome"]) == ("interrupted", "interrupted")
    assert set(shown(world)) == {"KILLED", "FINISHED"}


@pytest.mark.parametrize("outcome", ["finished", "failed", "interrupted"])
def test_run_that_is_no_lifecycle_is_what_its_process_said(world: World, outcome: Any) -> None:
    given: dict[str, Any] = {"trigger": "manual", "by": "Ann", "now": world.settings.now()}
    with world.ops() as ops:
        begin_run(ops, "churn", "run-1", is_lifecycle=False, **given)
        begin_run(ops, "churn", "run-1", is_lifecycle=False, **given)
        assert [event.actor for event in ops.audit_events(kind="run_begun")] == ["Ann"]
        assert run_state(ops, "churn", "run-1") == "interrupted"
        end_run(ops, "churn", "run-1", outcome, now=given["now"])
        assert run_state(ops, "churn", "run-1") == outcome
