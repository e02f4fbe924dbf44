"""What an approval state allows, through the commands, on a version that a run has made."""

import json
import shutil

import pytest

from mlops_pipeline.errors import ModelFilesError, StateError
from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.bookkeeping import get_pointer, list_decisions, set_pointer
from mlops_pipeline.lifecycle.champions import (
    RELEASE,
    champion_rollout,
    pinned_digest,
    released_model,
    trial_rollout,
)
from mlops_pipeline.lifecycle.predictions import predictions_uri
from mlops_pipeline.lifecycle.project import check_approval
from mlops_pipeline.lifecycle.rollouts import get_rollout
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.settings import parse_time
from mlops_pipeline_tests.cli.conftest import Mlops
from mlops_pipeline_tests.lifecycle.rollout_steps import open_waiting
from mlops_pipeline_tests.world import World

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
SIGNED = ("--by", "Ann", "--reason", "looked at it")
SPRING, SUMMER = parse_time("2024-05-01"), parse_time("2024-07-01")


@pytest.fixture
def waiting(in_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world's version waits, in a new ops database, in the spring of 2024."""
    with in_world.ops() as ops:
        made = get_rollout(ops, "churn", 1)
        pinned = get_pointer(ops, "churn", f"{RELEASE}{made.fingerprint}")
    assert pinned is not None
    (in_world.data / "ops.db").unlink()
    shutil.rmtree(in_world.data / "audit")
    monkeypatch.setenv("MLOPS_NOW", SPRING.isoformat())
    with in_world.ops() as ops:
        open_waiting(ops, 1, fingerprint=made.fingerprint)
        set_pointer(ops, "churn", pinned.name, pinned.value, run_id="run", now=SPRING)
    return in_world


def approval_tag(world: World) -> str:
    ((tag,),) = world.mlflow("SELECT value FROM model_version_tags WHERE key = 'approval_state'")
    return str(tag)


def test_version_in_staging_makes_trial_scores_only(waiting: World, mlops: Mlops) -> None:
    use_case = waiting.use_case
    with waiting.ops() as ops, pytest.raises(StateError, match=r"(?s)candidate.*--stage staging"):
        trial_rollout(ops, use_case, 1, now=SPRING)

    assert mlops("approve", "churn", "1", "--stage", "staging", *SIGNED).exit_code == 0
    assert approval_tag(waiting) == "staging"
    waiting.run(job="churn_batch_score", ops={"batch_predictions": {"version": 1}})
    lake = Lake(waiting.settings.lake_uri)
    trial = lake.commit_metadata(predictions_uri(lake, waiting.use_case, is_trial=True))
    assert [(facts["model_version"], facts["for_decisions"]) for facts in trial] == [(1, False)]
    assert lake.commit_metadata(predictions_uri(lake, waiting.use_case)) == []
    with waiting.ops() as ops:
        (read,) = ops.audit_events(kind="data_access")
    assert read.detail["asset"] == "batch_predictions"

    assert mlops("reject", "churn", "1", *SIGNED).exit_code == 0
    assert approval_tag(waiting) == "archived"
    with waiting.ops() as ops, pytest.raises(StateError, match=r"(?s)archived.*never loaded"):
        trial_rollout(ops, use_case, 1, now=SPRING)


def test_champion_whose_approval_ended_does_not_score_until_it_is_renewed(
    waiting: World, mlops: Mlops, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_case = waiting.use_case
    done = mlops("approve", "churn", "1", "--expires", "2024-06-01", *SIGNED)
    assert "churn version 1: champion" in done.output
    with waiting.ops() as ops:
        assert champion_rollout(ops, use_case, now=SPRING).version == 1
        with pytest.raises(StateError, match=r"(?s)approved by Ann until 2024-06-01.*renews"):
            champion_rollout(ops, use_case, now=SUMMER)
        with pytest.raises(StateError, match=r"(?s)state production.*without --version"):
            trial_rollout(ops, use_case, 1, now=SPRING)
        check_approval(ops, waiting.use_case, now=SUMMER)
        check_approval(ops, waiting.use_case, now=SUMMER)
        (alert,) = list_alerts(ops, "churn", open_only=True)
    assert (alert.kind, alert.times_raised) == ("approval_ended", 2)

    monkeypatch.setenv("MLOPS_NOW", SUMMER.isoformat())
    champion = json.loads(mlops("status", "churn", "--json").output)["champion"]
    assert champion["approval_expires"] == "2024-06-01T00:00:00+00:00"
    assert champion["approval_ended"] is True
    assert mlops("approve", "churn", "1", *SIGNED).exit_code == 0
    with waiting.ops() as ops:
        assert list_alerts(ops, "churn", open_only=True) == []
        assert champion_rollout(ops, use_case, now=SUMMER).version == 1


def test_configuration_that_changed_before_an_approval_is_an_event(
    waiting: World, mlops: Mlops
) -> None:
    waiting.configure(lambda document: document["rollout"].update(four_eyes=True))
    mlops("approve", "churn", "1", "--stage", "staging", *SIGNED)  # refused: nobody is known
    waiting.configure(lambda document: document["rollout"].update(four_eyes=False))
    assert mlops("approve", "churn", "1", *SIGNED).exit_code == 0
    with waiting.ops() as ops:
        after, before = ops.audit_events(kind="configuration")
        (approval, *_) = list_decisions(ops, "churn", kind="approval")
    assert before.detail["document"]["rollout"]["four_eyes"] is True
    assert after.detail == {"changed": {"rollout.four_eyes": {"old": True, "new": False}}}
    assert (approval.evidence["version"], approval.evidence["four_eyes"]) == (1, False)


def test_approval_is_bound_to_the_digest_of_every_file_of_the_version(
    waiting: World, mlops: Mlops
) -> None:
    assert mlops("approve", "churn", "1", *SIGNED).exit_code == 0
    with waiting.ops() as ops:
        made = get_rollout(ops, "churn", 1)
        (approval, *_) = list_decisions(ops, "churn", kind="approval")
        assert approval.evidence["files"] == pinned_digest(ops, "churn", made.fingerprint)
        assert released_model(ops, waiting.settings, waiting.use_case, made.fingerprint)
        pin = get_pointer(ops, "churn", f"{RELEASE}{made.fingerprint}")
        assert pin is not None
        moved = {**pin.value, "files": {**pin.value["files"], "more.txt": "0"}}
        set_pointer(ops, "churn", pin.name, moved, run_id="run", now=SPRING)
        with pytest.raises(ModelFilesError, match="is not what was decided on"):
            released_model(ops, waiting.settings, waiting.use_case, made.fingerprint)
    said = mlops("audit", "verify").output
    assert f"decision {approval.id} (approval: approved) was about" in said


def test_history_of_the_registry_as_a_table_and_as_a_document(waiting: World, mlops: Mlops) -> None:
    mlops("approve", "churn", "1", *SIGNED)
    document = json.loads(mlops("registry", "history", "churn", "--json").output)
    assert [span["alias"] for span in document["history"]] == ["challenger", "champion"]
    shown = mlops("registry", "history", "churn").output
    assert "champion" in shown
    assert "looked at it" in shown


def test_what_mlflow_does_not_show_yet_is_said_until_something_projects(
    waiting: World, mlops: Mlops
) -> None:
    assert "1 effect pending" in mlops("registry", "history", "churn").output
    mlops("approve", "churn", "1", *SIGNED)
    assert "pending" not in mlops("registry", "history", "churn").output


def test_stage_with_a_typo_is_refused(waiting: World, mlops: Mlops) -> None:
    done = mlops("approve", "churn", "1", "--stage", "stagin", *SIGNED)
    assert "expected: staging or production" in str(done.exception)
