"""A staged rollout in the ledger: opening, entering stages, breaches, who is in trial."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.core.rollout.approvals import approval_state
from mlops_pipeline.core.rollout.machine import Event, EventName
from mlops_pipeline.core.rollout.records import Rollout
from mlops_pipeline.lifecycle.rollouts import (
    find_champion,
    find_trial,
    get_rollout,
    list_approvals,
    rollout_events,
    send,
)
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.lifecycle.rollout_steps import (
    STAGED,
    approve,
    open_champion,
    open_trial,
    states,
)
from mlops_pipeline_tests.stores.ops.timestamps import NOON


def happens(database: OpsDatabase, version: int, name: EventName, hours: int = 1) -> Rollout:
    event = Event(name, "mlops", "because", NOON + timedelta(hours=hours), evidence={"rows": 3})
    return send(database, get_rollout(database, "churn", version), event)


def test_first_version_has_nobody_to_be_tried_beside(database: OpsDatabase) -> None:
    opened = open_trial(database, 1)
    assert (opened.state, opened.stages, opened.stage) == ("champion", ("full",), 0)
    assert find_trial(database, "churn") is None


def test_trial_passes_its_stages_and_takes_the_champions_place(database: OpsDatabase) -> None:
    open_champion(database, 1)
    opened = open_trial(database, 2)
    assert (opened.state, opened.stage, opened.entered_at) == ("running", 0, NOON)
    shares = []
    names: tuple[EventName, ...] = ("miss", "pass", "ask")
    for hours, name in enumerate(names, start=1):
        happens(database, 2, name, hours)
        trial = find_trial(database, "churn")
        assert trial is not None
        shares.append((trial.share, trial.rollout.state))
    assert shares == [(0.0, "held"), (0.05, "running"), (0.05, "awaiting_approval")]
    approve(database, "churn", 2, by="ann", reason="good", now=NOON + timedelta(hours=4))
    trial = find_trial(database, "churn")
    assert trial is not None
    assert (trial.share, trial.rollout.entered_at) == (0.5, NOON + timedelta(hours=4))
    happens(database, 2, "pass", 5)
    assert states(database) == {2: "champion", 1: "previous"}
    assert find_trial(database, "churn") is None
    last = rollout_events(database, "churn", 2)[-1]
    assert (last.stage, last.evidence) == (3, {"rows": 3})


@pytest.mark.parametrize("before", ["miss", "pause", "ask"])
def test_breach_ends_a_trial_in_any_status(database: OpsDatabase, before: EventName) -> None:
    open_champion(database, 1)
    open_trial(database, 2)
    happens(database, 2, before)
    happens(database, 2, "breach")
    assert states(database) == {2: "rolled_back", 1: "champion"}


def test_breach_after_full_brings_the_champion_before_back(database: OpsDatabase) -> None:
    open_champion(database, 1)
    open_trial(database, 2)
    for _ in STAGED.stages[1:]:
        happens(database, 2, "pass")
    happens(database, 2, "breach")
    assert states(database) == {2: "rolled_back", 1: "champion"}


def test_newer_version_supersedes_the_one_in_trial(database: OpsDatabase) -> None:
    open_champion(database, 1)
    open_trial(database, 2)
    open_trial(database, 3)
    assert states(database) == {3: "running", 2: "superseded", 1: "champion"}
    champion, trial = find_champion(database, "churn"), find_trial(database, "churn")
    assert champion is not None
    assert trial is not None
    assert (champion.version, trial.rollout.version) == (1, 3)


def test_version_in_trial_may_score_beside_the_champion(database: OpsDatabase) -> None:
    open_champion(database, 1)
    open_trial(database, 2)
    names: tuple[EventName, ...] = ("miss", "ask")
    for name in names:
        found = happens(database, 2, name)
        said = list_approvals(database, "churn")
        assert approval_state(found, said, now=NOON) == "staging"


@pytest.mark.parametrize(
    "stages", [["shadow"], ["full", "shadow"], [{"share": 0.5}, {"share": 0.5}, "full"]]
)
def test_stages_that_do_not_rise_to_full_are_refused(stages: list[object]) -> None:
    with pytest.raises(ValidationError, match="rise to 1"):
        RolloutPolicy.model_validate({"stages": stages})
