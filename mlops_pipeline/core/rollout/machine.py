"""The one place that decides how a rollout goes on: a table of (state, event).

A rollout passes its configured stages; a share of requests, or shadow, is what a stage is called
and nothing that the machine knows. Entering the last stage makes a version the champion. Who may
send an event is approvals.py's; carrying out effects on other rollouts is lifecycle/rollouts.py's;
MLflow, alerts and anchors follow from the ledger (lifecycle/project.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from mlops_pipeline.core.rollout.records import Rollout, RolloutState
from mlops_pipeline.errors import StateError

State = RolloutState | Literal["registered"]
EventName = Literal[
    "open", "ask", "approve", "reject", "pass", "miss", "pause", "resume", "breach", "roll_back",
    "restore", "replace", "supersede", "expire",
]  # fmt: skip
Effect = Literal["demote_champion", "supersede_waiting", "restore_previous"]
"""What happens to other rollouts of the use case, in the same transaction."""


NEXT: Literal["next stage"] = "next stage"
"""`running` in it; where it is the last one, `champion`, which demotes the one there is."""

Target = RolloutState | Literal["next stage"]
TABLE: Mapping[tuple[State, EventName], tuple[Target, tuple[Effect, ...]]] = {
    # it begins; `ask`: a person has to approve the next stage
    ("registered", "open"): (NEXT, ("supersede_waiting",)),
    ("registered", "ask"): ("awaiting_approval", ("supersede_waiting",)),
    ("awaiting_approval", "approve"): (NEXT, ()),
    ("awaiting_approval", "reject"): ("rejected", ()),
    ("awaiting_approval", "supersede"): ("superseded", ()),
    ("awaiting_approval", "breach"): ("rolled_back", ()),
    ("awaiting_approval", "roll_back"): ("rolled_back", ()),
    # a stage is under way; evidence passes it, is missing, or is a breach
    ("running", "pass"): (NEXT, ()),
    ("running", "ask"): ("awaiting_approval", ()),
    ("running", "miss"): ("held", ()),
    ("running", "pause"): ("paused", ()),
    ("running", "breach"): ("rolled_back", ()),
    ("running", "roll_back"): ("rolled_back", ()),
    ("running", "supersede"): ("superseded", ()),
    ("held", "pass"): (NEXT, ()),
    ("held", "ask"): ("awaiting_approval", ()),
    ("held", "miss"): ("held", ()),
    ("held", "pause"): ("paused", ()),
    ("held", "breach"): ("rolled_back", ()),
    ("held", "roll_back"): ("rolled_back", ()),
    ("held", "supersede"): ("superseded", ()),
    ("paused", "pause"): ("paused", ()),
    ("paused", "resume"): ("running", ()),
    ("paused", "breach"): ("rolled_back", ()),
    ("paused", "roll_back"): ("rolled_back", ()),
    ("paused", "supersede"): ("superseded", ()),
    # it is, or was, the champion
    ("champion", "replace"): ("previous", ()),
    ("champion", "roll_back"): ("rolled_back", ("restore_previous",)),
    ("champion", "breach"): ("rolled_back", ("restore_previous",)),
    ("previous", "restore"): ("champion", ()),
    ("previous", "replace"): ("archived", ()),
    ("previous", "expire"): ("archived", ()),
}  # fmt: skip
ENDS: frozenset[State] = frozenset({"rejected", "superseded", "archived", "rolled_back"})


@dataclass(frozen=True)
class Event:
    """What happened to a rollout: who says so, why, and whom it waits for from then on."""

    name: EventName
    actor: str
    reason: str
    at: datetime
    waiting_for: str | None = None
    evidence: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Transition:
    """Where a rollout is after an event, what follows for others, and why."""

    state: RolloutState
    stage: int | None
    effects: tuple[Effect, ...]
    reason: str

    def applied_to(self, rollout: Rollout, event: Event) -> Rollout:
        """Return a rollout as it is after the transition."""
        return replace(
            rollout,
            state=self.state,
            stage=self.stage,
            waiting_for=event.waiting_for,
            changed_at=event.at,
            entered_at=rollout.entered_at if self.stage == rollout.stage else event.at,
        )


def advance(rollout: Rollout | None, event: Event, stages: Sequence[str] = ()) -> Transition:
    """Return what an event makes of a rollout; of one that opens with `stages` if it is None.

    StateError when the state has no such event, or the event no reason.
    """
    state: State = "registered" if rollout is None else rollout.state
    stage, stages = (None, stages) if rollout is None else (rollout.stage, rollout.stages)
    found = TABLE.get((state, event.name))
    if found is None or not event.reason.strip():
        known = [name for held, name in TABLE if held == state]
        raise StateError(
            f"A rollout in state {state} cannot take the event {event.name}.",
            expected=f"one of {', '.join(known)}, with a reason" if known else "no event: it ended",
            found=f"{event.name} ({event.reason.strip() or 'no reason'})",
        )
    target, effects = found
    if target != "next stage":
        return Transition(target, stage, effects, event.reason)
    entered = 0 if stage is None else stage + 1
    if entered < len(stages) - 1:
        return Transition("running", entered, effects, event.reason)
    return Transition("champion", len(stages) - 1, (*effects, "demote_champion"), event.reason)


def replay(
    changes: Iterable[tuple[RolloutState | None, RolloutState]], stages: Sequence[str]
) -> tuple[RolloutState | None, int | None]:
    """Return state and stage to which recorded changes lead.

    StateError when one does not begin where the one before ended, or the table has none like it.
    """
    state: RolloutState | None = None
    stage: int | None = None
    for before, after in changes:
        enters = after == "running" and before != "paused"
        is_champion = after == "champion" and before != "previous"
        target = NEXT if enters or is_champion else after
        known = {
            found for (held, _), (found, _) in TABLE.items() if held == (before or "registered")
        }
        if before != state or target not in known:
            raise StateError(f"A rollout in state {state} cannot go from {before} to {after}.")
        state = after
        if is_champion:
            stage = len(stages) - 1
        elif enters:
            stage = 0 if stage is None else stage + 1
    return state, stage
