"""The machine over every state and event, and over random lives of several versions."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_pipeline.core.rollout.machine import (
    ENDS,
    NEXT,
    TABLE,
    Event,
    EventName,
    Transition,
    advance,
    replay,
)
from mlops_pipeline.core.rollout.records import IN_TRIAL, MEANINGS, Rollout, RolloutState
from mlops_pipeline.errors import StateError

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
STATES: tuple[RolloutState, ...] = get_args(RolloutState)
EVENTS: tuple[EventName, ...] = get_args(EventName)
CANARY = ("shadow", "5 %", "25 %", "50 %", "full")
OPENING: tuple[EventName, ...] = ("open", "ask")


def event(name: EventName, reason: str = "because") -> Event:
    return Event(name, "ada", reason, NOON)


def in_state(state: RolloutState, stage: int | None = None) -> Rollout:
    return Rollout(
        1, "churn", 1, state, stage, CANARY, "m", "d", "f", "r", None, opened_at=NOON,
        changed_at=NOON, entered_at=None, policy=None,
    )  # fmt: skip


def live(*names: EventName, stages: tuple[str, ...] = CANARY) -> Rollout:
    """Return the rollout to which these events lead."""
    rollout = None
    for name in names:
        step = advance(rollout, event(name), stages)
        held = rollout or replace(in_state("running"), stages=stages)
        rollout = step.applied_to(held, event(name))
    assert rollout is not None
    return rollout


# the table


def test_every_state_has_a_meaning_and_a_way_on_or_is_an_end() -> None:
    assert set(MEANINGS) == set(STATES)
    goes_on = {state for state, _ in TABLE}
    assert goes_on | ENDS == {"registered", *STATES}
    assert not goes_on & ENDS


def test_every_state_is_reached_and_every_state_reaches_an_end() -> None:
    leads: dict[str, set[str]] = {}
    for (state, _), (target, _) in TABLE.items():
        leads.setdefault(state, set()).update(
            {"running", "champion"} if target == NEXT else {target}
        )
    starts: tuple[str, ...] = ("registered", *STATES)
    for start in starts:
        seen, new = {start}, {start}
        while new:
            new = {after for item in new for after in leads.get(item, ())} - seen
            seen |= new
        assert seen & ENDS
        if start == "registered":
            assert seen == {"registered", *STATES}


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("state", STATES)
def test_event_is_in_the_table_or_refused_with_those_that_are(
    state: RolloutState, name: EventName
) -> None:
    if (state, name) in TABLE:
        assert advance(in_state(state, 1), event(name)).reason == "because"
        return
    with pytest.raises(StateError, match=f"state {state} cannot take the event {name}"):
        advance(in_state(state, 1), event(name))


@pytest.mark.parametrize("key", TABLE)
def test_event_without_a_reason_is_refused(key: tuple[RolloutState, EventName]) -> None:
    rollout = None if key[0] not in STATES else in_state(key[0], 0)
    with pytest.raises(StateError, match="with a reason"):
        advance(rollout, event(key[1], " "), CANARY)


@pytest.mark.parametrize("key", [key for key in TABLE if key[0] in STATES])
def test_repeated_event_changes_nothing_or_is_refused(key: tuple[RolloutState, EventName]) -> None:
    if key[1] == "pass":
        return  # evidence of the next stage: another event
    before = in_state(key[0], 1)
    once = advance(before, event(key[1])).applied_to(before, event(key[1]))
    try:
        twice = advance(once, event(key[1])).applied_to(once, event(key[1]))
    except StateError:
        return
    if key != ("champion", "replace"):  # replaced by two newer ones: previous, then archived
        assert (twice.state, twice.stage) == (once.state, once.stage)


# stages


def test_only_stage_makes_a_champion_at_once() -> None:
    assert advance(None, event("open"), ("full",)) == Transition(
        "champion", 0, ("supersede_waiting", "demote_champion"), "because"
    )
    asked = advance(None, event("ask"), ("full",))
    assert (asked.state, asked.stage) == ("awaiting_approval", None)
    assert asked.effects == ("supersede_waiting",)


def test_shadow_and_shares_are_passed_one_by_one_to_the_champion() -> None:
    found = [live("open")]
    for _ in CANARY[1:]:
        step = advance(found[-1], event("pass"))
        found.append(step.applied_to(found[-1], event("pass")))
    assert [(item.state, item.stage) for item in found] == [
        ("running", 0), ("running", 1), ("running", 2), ("running", 3), ("champion", 4),
    ]  # fmt: skip


def test_missing_evidence_holds_and_evidence_lets_it_go_on() -> None:
    assert (live("open", "miss").state, live("open", "miss").stage) == ("held", 0)
    assert (live("open", "miss", "pass").state, live("open", "miss", "pass").stage) == (
        "running",
        1,
    )


def test_stage_that_needs_a_person_waits_before_it_is_entered() -> None:
    waiting = live("open", "pass", "ask")
    assert (waiting.state, waiting.stage) == ("awaiting_approval", 1)
    approved = live("open", "pass", "ask", "approve")
    assert (approved.state, approved.stage) == ("running", 2)


def test_paused_goes_on_in_its_stage_and_a_breach_ends_it() -> None:
    resumed = live("open", "pass", "pause", "resume")
    assert (resumed.state, resumed.stage) == ("running", 1)
    assert live("open", "pause", "breach").state == "rolled_back"


def test_champion_is_demoted_by_the_last_stage_only() -> None:
    assert advance(live("open"), event("pass")).effects == ()
    assert advance(live("open", "pass", "pass", "pass"), event("pass")).effects == (
        "demote_champion",
    )


# lives

names = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(EVENTS)), max_size=60)
configured = st.sampled_from([("full",), ("shadow", "full"), CANARY])


class House:
    """Versions of a use case, with the effects on each other carried out as the ledger does."""

    def __init__(self, stages: tuple[str, ...]) -> None:
        self.stages = stages
        self.rollouts: dict[int, Rollout] = {}
        self.changes: dict[int, list[tuple[RolloutState | None, RolloutState]]] = {}

    def send(self, version: int, name: EventName) -> None:
        present = self.rollouts.get(version)
        step = advance(present, event(name), self.stages)
        assert step.reason
        if "supersede_waiting" in step.effects:
            for other in [v for v in self.rollouts if v != version]:
                if self.rollouts[other].state in IN_TRIAL:
                    self.send(other, "supersede")
        if "demote_champion" in step.effects and self.of("champion"):
            for other in self.of("previous"):
                self.send(other, "replace")
            for other in self.of("champion"):
                self.send(other, "replace")
        base = present or replace(in_state("running"), version=version, stages=self.stages)
        after = step.applied_to(base, event(name))
        self.rollouts[version] = after
        before = None if present is None else present.state
        moved = before is None or (after.state, after.stage) != (base.state, base.stage)
        if moved:
            self.changes.setdefault(version, []).append((before, after.state))
        if "restore_previous" in step.effects:
            for other in self.of("previous")[-1:]:
                self.send(other, "restore")

    def of(self, state: RolloutState) -> list[int]:
        return sorted(v for v, item in self.rollouts.items() if item.state == state)


def run(stages: tuple[str, ...], sent: list[tuple[int, EventName]]) -> House:
    house = House(stages)
    for version, name in sent:
        # `restore` comes from a rollback alone: it is an effect, nobody's to send
        if name == "restore" or (version in house.rollouts) == (name in OPENING):
            continue
        try:
            house.send(version, name)
        except StateError:
            continue
        assert len(house.of("champion")) <= 1
    return house


@given(configured, names)
def test_at_most_one_champion_whatever_happens(
    stages: tuple[str, ...], sent: list[tuple[int, EventName]]
) -> None:
    run(stages, sent)


@given(configured, names)
def test_replaying_the_changes_gives_state_and_stage(
    stages: tuple[str, ...], sent: list[tuple[int, EventName]]
) -> None:
    house = run(stages, sent)
    for version, rollout in house.rollouts.items():
        assert replay(house.changes[version], stages) == (rollout.state, rollout.stage)


@pytest.mark.parametrize(
    "changes",
    [
        [(None, "previous")],
        [(None, "champion"), ("champion", "running")],
        [(None, "awaiting_approval"), ("champion", "previous")],
        [(None, "awaiting_approval"), ("awaiting_approval", "rejected"), ("rejected", "champion")],
    ],
)
def test_replaying_what_the_table_does_not_know_is_refused(
    changes: list[tuple[RolloutState | None, RolloutState]],
) -> None:
    with pytest.raises(StateError, match="cannot go from"):
        replay(changes, ("full",))
