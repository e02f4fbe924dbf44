"""Opening rollouts, people's decisions on them, and what they say about a version over time.

Belongs here: what a run or a command does as one. The states are rollouts.py's; what lies outside
of the ledger follows in project.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.documents.records import Provenance
from mlops_pipeline.core.rollout.approvals import signed
from mlops_pipeline.core.rollout.machine import Event, EventName
from mlops_pipeline.core.rollout.records import MEANINGS, OpeningState, Rollout, RolloutEvent
from mlops_pipeline.errors import StateError
from mlops_pipeline.lifecycle.bookkeeping import NewDecision, record_configuration, record_decision
from mlops_pipeline.lifecycle.champions import FILES, pinned_digest
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.project import project
from mlops_pipeline.lifecycle.rollouts import (
    PersonsDecision,
    decide,
    find_champion,
    find_trial,
    list_approvals,
    open_rollout,
    roll_back,
    rollout_events,
    send,
)
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

NOT_SHOWN = ("id", "rollout_id", "use_case")  # of an approval
Steering = Literal["advance", "pause", "resume", "rollback"]
STEERING: Mapping[Steering, EventName] = {
    "advance": "pass", "pause": "pause", "resume": "resume", "rollback": "roll_back",
}  # fmt: skip


@dataclass(frozen=True)
class Registered:
    """The pointer to the newest registered version, and whether its gate asks for a person."""

    version: int
    fingerprint: str
    needs_review: bool


def open_deployment(context: Context, entry: Registered, provenance: Provenance) -> Rollout:
    """Open the rollout of a registered version; the same version keeps the rollout it has."""
    ops, use_case, now = context.ops, context.use_case, context.now
    champion = find_champion(ops, use_case.name)
    state, reason = _opening(use_case, champion, needs_review=entry.needs_review)
    rollout = open_rollout(
        ops,
        use_case.name,
        entry.version,
        mlflow_run_id=provenance.mlflow_run_id,
        dagster_run_id=provenance.dagster_run_id,
        fingerprint=entry.fingerprint,
        policy=_policy(use_case),
        state=state,
        reason=reason,
        waiting_for=use_case.owner if state == "awaiting_approval" else None,
        now=now,
    )
    what = f"{use_case.name} version {entry.version}: {rollout.state}"
    project(ops, context.settings, use_case, reason=what, now=now)
    return rollout


def decide_approval(
    ops: OpsDatabase,
    settings: Settings,
    use_case: UseCase,
    version: int,
    said: PersonsDecision,
    *,
    now: datetime,
) -> Rollout:
    """Record a person's decision on a version, and let everything follow it."""
    name, four_eyes = use_case.name, use_case.rollout.four_eyes
    record_configuration(ops, name, use_case.model_dump(mode="json"), by="approval", now=now)
    with ops.write(name) as tx:
        rollout = decide(tx, name, version, said, four_eyes=four_eyes, now=now)
        record_decision(
            tx,
            name,
            NewDecision(
                "approval",
                said.verdict,
                f"{said.by}: {said.reason}",
                {
                    "version": version,
                    "stage": said.stage,
                    "four_eyes": four_eyes,
                    "fingerprint": rollout.fingerprint,
                    FILES: pinned_digest(tx, name, rollout.fingerprint),
                },
                actor=said.by,
            ),
            now=now,
        )
    what = f"{name} version {version}: {said.verdict} for {said.stage}"
    project(ops, settings, use_case, reason=what, now=now)
    return rollout


def roll_back_champion(
    ops: OpsDatabase, settings: Settings, use_case: UseCase, *, by: str, reason: str, now: datetime
) -> Rollout:
    """Make the version before the champion champion again, and let everything follow."""
    name = use_case.name
    with ops.write(name) as tx:
        removed, rollout = roll_back(tx, name, by=by, reason=reason, now=now)
        record_decision(
            tx,
            name,
            NewDecision(
                "rollback",
                "rolled_back",
                f"{by}: {reason}",
                {"from_version": removed.version, "to_version": rollout.version},
                actor=by,
            ),
            now=now,
        )
    what = f"{name} version {rollout.version}: champion again"
    project(ops, settings, use_case, reason=what, now=now)
    return rollout


def steer_trial(context: Context, action: Steering, *, by: str, reason: str) -> Rollout:
    """Let a person move the version in trial on, hold it, or take it out; everything follows.

    Moving on where the next stage wants an approval asks for it: `mlops approve` gives it.
    """
    ops, name, now = context.ops, context.use_case.name, context.now
    said = signed(by, reason, now)
    with ops.write(name) as tx:
        trial = find_trial(tx, name)
        if trial is None:
            raise StateError(
                f"{name} has no version in trial.",
                expected="a version in a stage before full",
                found="none",
                way_out=f"The champion is taken out with: mlops rollback {name}",
            )
        event = STEERING[action]
        if event == "pass" and trial.next_stage.approval:
            event = "ask"
        waiting_for = context.use_case.owner if event == "ask" else None
        rollout = send(tx, trial.rollout, Event(event, said.by, said.reason, now, waiting_for))
        record_decision(
            tx,
            name,
            NewDecision(
                "rollout",
                event,
                f"{said.by}: {said.reason}",
                {"version": rollout.version, "from_stage": trial.stage.name},
                actor=said.by,
            ),
            now=now,
        )
    what = f"{name} version {rollout.version}: {rollout.state}"
    project(ops, context.settings, context.use_case, reason=what, now=now)
    return rollout


@dataclass(frozen=True)
class Span:
    """A time in which a version was in one state; `until` is None while it lasts."""

    version: int
    state: str
    alias: str | None
    since: datetime
    until: datetime | None
    by: str
    reason: str


def spans(events: Sequence[RolloutEvent]) -> Iterator[Span]:
    """Yield the states of every version, in the order in which they began."""
    for index, event in enumerate(events):
        later = (item.at for item in events[index + 1 :] if item.version == event.version)
        yield Span(
            version=event.version,
            state=event.to_state,
            alias=MEANINGS[event.to_state].alias,
            since=event.at,
            until=next(later, None),
            by=event.actor,
            reason=event.reason,
        )


def registry_history(ops: OpsDatabase, use_case: str) -> dict[str, Any]:
    """Return spans and approvals as plain values."""
    return {
        "use_case": use_case,
        "history": [asdict(span) for span in spans(rollout_events(ops, use_case))],
        "approvals": [
            {name: value for name, value in vars(item).items() if name not in NOT_SHOWN}
            for item in list_approvals(ops, use_case)
        ],
    }


def _opening(
    use_case: UseCase, present: Rollout | None, *, needs_review: bool
) -> tuple[OpeningState, str]:
    if use_case.rollout.approval == "always":
        return (
            "awaiting_approval",
            "the gate passed; the configuration asks for a person's approval",
        )
    if needs_review:
        return "awaiting_approval", "the gate passed, and asks for a person's approval"
    if present is None:
        return "champion", "the gate passed without asking; there is no champion yet"
    if use_case.rollout.is_staged:
        first = use_case.rollout.stages[0].name
        return "running", (
            f"the gate passed without asking; in trial beside version {present.version}, "
            f"from {first} on"
        )
    return "champion", f"the gate passed without asking; replaces version {present.version}"


def _policy(use_case: UseCase) -> RolloutPolicy:
    """Return the policy of a version that opens now, with what other sections say filled in."""
    policy = use_case.rollout
    limit = policy.guardrails.parity_difference
    if limit is None:
        limit = use_case.fairness.demographic_parity_at_most
    guardrails = policy.guardrails.model_copy(update={"parity_difference": limit})
    return policy.model_copy(update={"guardrails": guardrails})
