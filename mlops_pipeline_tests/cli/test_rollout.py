"""A version in trial through the commands and the job: its looks, steps, and what people may do."""

import json
from datetime import timedelta

import numpy as np
import pytest

from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.core.rollout.machine import Event
from mlops_pipeline.core.rollout.records import Rollout
from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.bookkeeping import NewDecision, list_decisions, record_decision
from mlops_pipeline.lifecycle.context import open_context
from mlops_pipeline.lifecycle.rollout_evidence import look_at_rollout, why_no_look
from mlops_pipeline.lifecycle.rollouts import get_rollout, rollout_events, send
from mlops_pipeline.stores.settings import Settings, parse_time
from mlops_pipeline_tests.cli.conftest import Mlops
from mlops_pipeline_tests.lifecycle.trial_steps import (
    hourly,
    log_answers,
    open_copy_in_trial,
    stage_of,
)
from mlops_pipeline_tests.world import World

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
BEGIN = parse_time("2024-02-10")
DAY = timedelta(days=1)
SIGNED = ("--by", "Ann", "--reason", "looked at it")
POLICY = RolloutPolicy.model_validate(
    {
        "stages": [
            {"share": 0, "days": 1, "requests": 500},
            {"share": 0.5, "approval": True},
            "full",
        ],
        "guardrails": {"score_shift": 0.5},
    }
)
SCORES = np.random.default_rng(5).beta(1, 12, size=1_400)


@pytest.fixture
def trial(in_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("MLOPS_NOW", BEGIN.isoformat())
    open_copy_in_trial(in_world, POLICY, BEGIN)
    return in_world


def look(world: World, monkeypatch: pytest.MonkeyPatch, days: float) -> str:
    monkeypatch.setenv("MLOPS_NOW", (BEGIN + days * DAY).isoformat())
    with open_context(world.use_case, Settings.from_environment()) as context:
        return look_at_rollout(context).sentence


def pass_every_stage(world: World) -> Rollout:
    with world.ops() as ops:
        rollout = get_rollout(ops, "churn", 2)
        for _ in POLICY.stages[1:]:
            rollout = send(ops, rollout, Event("pass", "mlops", "good", BEGIN))
    return rollout


def test_shadow_is_passed_when_it_lasted_and_all_is_well(
    trial: World, mlops: Mlops, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trial.ops() as ops:
        rollout = get_rollout(ops, "churn", 2)
    log_answers(trial, rollout, hourly(BEGIN, len(SCORES)), (SCORES, SCORES))
    assert "it lasts until 2024-02-11 00:00 at least" in look(trial, monkeypatch, 0.9)
    assert stage_of(trial, 2) == ("running", "shadow")
    assert look(trial, monkeypatch, 1.1).startswith("stage shadow is passed")
    assert stage_of(trial, 2) == ("awaiting_approval", "shadow")
    with trial.ops() as ops:
        event = rollout_events(ops, "churn", 2)[-1]
        looks = [item.action for item in list_decisions(ops, "churn", kind="rollout")]
        assert get_rollout(ops, "churn", 2).waiting_for == trial.use_case.owner
    assert looks == ["ask", "wait"]
    assert event.evidence is not None
    assert event.evidence["requests"] == len(SCORES)
    assert mlops("approve", "churn", "2", *SIGNED).exit_code == 0
    assert stage_of(trial, 2) == ("running", "50 %")
    document = json.loads(mlops("rollout", "status", "churn", "--json").output)
    assert [row["stage"] for row in document["stages"]] == ["shadow", "50 %", "full"]
    assert document["last_look"]["step"] == "ask"
    shown = mlops("rollout", "status", "churn")
    assert shown.exit_code == 0
    assert "error_rate" in shown.output
    assert json.loads(mlops("status", "churn", "--json").output)["trial"]["stage"] == "50 %"


def test_errors_take_the_version_out_with_the_reason(
    trial: World, mlops: Mlops, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trial.ops() as ops:
        rollout = get_rollout(ops, "churn", 2)
    log_answers(
        trial, rollout, hourly(BEGIN, 200), (SCORES[:200], SCORES[:200]),
        probability=None, failure="ValueError",
    )  # fmt: skip
    assert "error_rate: 199 of 199 requests" in look(trial, monkeypatch, 0.99)
    assert stage_of(trial, 2)[0] == "rolled_back"
    with trial.ops() as ops:
        (alert,) = [item for item in list_alerts(ops, "churn") if item.kind == "rollout"]
        assert rollout_events(ops, "churn", 2)[-1].actor == "mlops"
    assert "version 2 was rolled back: error_rate" in alert.message
    assert look(trial, monkeypatch, 2) == "no rollout is under way"
    document = json.loads(mlops("rollout", "status", "churn", "--json").output)
    assert (document["version"], document["state"]) == (2, "rolled_back")
    assert document["last_look"]["reason"].startswith("error_rate: 199 of 199 requests")


def test_stage_without_requests_is_not_passed(
    trial: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "0 of at least 500 requests" in look(trial, monkeypatch, 3)
    assert stage_of(trial, 2) == ("running", "shadow")


def test_person_pauses_resumes_moves_on_and_takes_out(trial: World, mlops: Mlops) -> None:
    for command, state in (
        ("pause", "paused"),
        ("resume", "running"),
        ("advance", "awaiting_approval"),
    ):
        done = mlops("rollout", command, "churn", *SIGNED)
        assert done.exit_code == 0, done.output
        assert f"version 2: {state}, stage shadow; recorded: Ann: looked at it" in done.output
        assert stage_of(trial, 2) == (state, "shadow")
    assert mlops("rollout", "rollback", "churn", *SIGNED).exit_code == 0
    assert stage_of(trial, 2)[0] == "rolled_back"
    with trial.ops() as ops:
        actors = [event.actor for event in rollout_events(ops, "churn", 2)]
    assert actors == ["run d", "Ann", "Ann", "Ann", "Ann"]
    refused = mlops("rollout", "pause", "churn", *SIGNED)
    assert "has no version in trial" in str(refused.exception)


def test_replay_says_what_guardrails_would_have_done_and_writes_nothing(
    trial: World, mlops: Mlops, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trial.ops() as ops:
        rollout = get_rollout(ops, "churn", 2)
        before = ops.audit_head()
    for day in range(3):
        log_answers(trial, rollout, hourly(BEGIN + day * DAY, len(SCORES)), (SCORES, SCORES))
    worse = np.full(500, 0.9)
    log_answers(trial, rollout, hourly(BEGIN + 3 * DAY, 500), (SCORES[:500], worse), failure="x")
    monkeypatch.setenv("MLOPS_NOW", (BEGIN + 5 * DAY).isoformat())
    rows = json.loads(mlops("rollout", "replay", "churn", "--json").output)
    assert [row["step"] for row in rows][:2] == ["ask", "pass"]
    assert mlops("rollout", "replay", "churn", "--days", "0.5").exit_code == 0
    with trial.ops() as ops:
        assert ops.audit_head() == before


def test_job_looks_and_shows_the_evidence(trial: World) -> None:
    trial.run(job="churn_rollout")
    with trial.ops() as ops:
        (decision,) = list_decisions(ops, "churn", kind="rollout")
    assert decision.evidence["version"] == 2


def test_version_before_is_kept_until_the_verdict_and_its_days_are_over(
    trial: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pass_every_stage(trial)
    with trial.ops() as ops:
        assert why_no_look(ops, "churn", BEGIN) is None
    assert look(trial, monkeypatch, 20).startswith("the verdict waits for realised")
    with trial.ops() as ops:
        said = why_no_look(ops, "churn", BEGIN + 20.5 * DAY)
        assert said is not None
        assert "once a day" in said
        assert get_rollout(ops, "churn", 1).state == "previous"  # 14 days are over, it is not
        verdict = NewDecision("rollout_verdict", "not worse", "good", {}, run_key="v2")
        record_decision(ops, "churn", verdict, now=BEGIN)
    assert look(trial, monkeypatch, 21) == "no rollout is under way"
    assert stage_of(trial, 1)[0] == "archived"


def test_verdict_that_is_harm_brings_the_version_before_back(
    trial: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = pass_every_stage(trial)
    worse = np.full(len(SCORES), 0.9)
    log_answers(trial, rollout, hourly(BEGIN, len(SCORES)), (SCORES, worse))
    look(trial, monkeypatch, 5)
    assert [stage_of(trial, version)[0] for version in (1, 2)] == ["champion", "rolled_back"]
    with trial.ops() as ops:
        (verdict,) = list_decisions(ops, "churn", kind="rollout_verdict")
    assert verdict.action == "worse"
