"""Rollouts in the ledger: read -> `advance` -> write, in one transaction of the use case.

    running, held, paused, awaiting_approval -> champion -> previous -> archived
         |      |                                  +-> rolled_back
         |      +-> superseded   a newer version began
         +-> rejected, rolled_back

Belongs here: carrying out what core/rollout/ decides. This is the truth about deployment; MLflow
follows it (project.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mlops_pipeline.config.modelling import RolloutPolicy, Stage
from mlops_pipeline.core.rollout.approvals import (
    check_end,
    check_four_eyes,
    check_waiting,
    is_renewal,
    signed,
)
from mlops_pipeline.core.rollout.machine import Effect, Event, EventName, advance
from mlops_pipeline.core.rollout.records import (
    IN_TRIAL,
    Approval,
    OpeningState,
    Rollout,
    RolloutEvent,
    RolloutState,
    Verdict,
)
from mlops_pipeline.core.rollout.records import Stage as ApprovalStage
from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.stores.ops import NEW, Decision, Ledger, LifecycleRun, Transaction

VERDICT = "rollout_verdict"  # the kind of the decision on a champion's first complete labels


def find_champion(ops: Ledger, use_case: str) -> Rollout | None:
    """Return the rollout of the champion; None if nothing is deployed."""
    return ops.find(Rollout, use_case=use_case, state="champion")


@dataclass(frozen=True)
class Trial:
    """A version that is tried beside the champion, and the share of entities it decides about."""

    rollout: Rollout
    policy: RolloutPolicy
    stage: Stage

    @property
    def share(self) -> float:
        """The share, 0 in shadow."""
        return self.stage.share

    @property
    def next_stage(self) -> Stage:
        """The stage after this one; there always is one."""
        return self.policy.stages[self.policy.stages.index(self.stage) + 1]


def find_trial(ops: Ledger, use_case: str) -> Trial | None:
    """Return the version in trial; None if there is none."""
    rollout = next(
        (item for item in ops.all(Rollout, use_case=use_case, state=IN_TRIAL) if item.is_in_trial),
        None,
    )
    if rollout is None or rollout.stage is None:
        return None
    policy = policy_of(rollout)
    return Trial(rollout, policy, policy.stages[rollout.stage])


def verdict_is_open(ops: Ledger, champion: Rollout) -> bool:
    """Whether a champion that was rolled out in stages is not yet judged by what happened."""
    if champion.state != "champion" or len(champion.stages) == 1:
        return False
    key = {"use_case": champion.use_case, "kind": VERDICT, "run_key": f"v{champion.version}"}
    return ops.find(Decision, **key) is None


def find_judged(ops: Ledger, use_case: str) -> Trial | None:
    """Return the champion as what it was in its trial, until its last verdict; None without one."""
    champion = find_champion(ops, use_case)
    if champion is None or not verdict_is_open(ops, champion):
        return None
    policy = policy_of(champion)
    return Trial(champion, policy, policy.stages[-1])


def open_question(ops: Ledger, use_case: str) -> Rollout | None:
    """Return the version in trial, or the champion whose verdict is open; None if there is none."""
    found = find_trial(ops, use_case) or find_judged(ops, use_case)
    return None if found is None else found.rollout


def policy_of(rollout: Rollout) -> RolloutPolicy:
    """Return the policy by which a version is rolled out."""
    return RolloutPolicy.model_validate(rollout.policy or {})


def get_rollout(ops: Ledger, use_case: str, version: int) -> Rollout:
    """Return the rollout of a version, or raise NotFoundError listing those that have one."""
    found = ops.find(Rollout, use_case=use_case, version=version)
    if found is not None:
        return found
    known = sorted(item.version for item in list_rollouts(ops, use_case))
    raise NotFoundError(
        f"Version {version} of {use_case} has no rollout.",
        expected=f"one of {', '.join(map(str, known))}" if known else None,
        found=None if known else f"no rollout of {use_case} at all",
        way_out=None if known else "Run the lifecycle to make a version.",
    )


def list_rollouts(ops: Ledger, use_case: str) -> list[Rollout]:
    """List the rollouts, the highest version first."""
    return ops.all(Rollout, order=("-version",), use_case=use_case)


def rollout_events(ops: Ledger, use_case: str, version: int | None = None) -> list[RolloutEvent]:
    """List the changes of state of a use case, or of one version, in the order they happened."""
    with ops.read() as tx:
        if version is None:
            return tx.all(RolloutEvent, use_case=use_case)
        found = get_rollout(tx, use_case, version)
        return tx.all(RolloutEvent, rollout_id=found.id)


def list_approvals(ops: Ledger, use_case: str) -> list[Approval]:
    """List approvals and rejections in the order they were given."""
    return ops.all(Approval, use_case=use_case)


def open_rollout(  # noqa: PLR0913 - a rollout records where its model came from
    ops: Ledger,
    use_case: str,
    version: int,
    *,
    mlflow_run_id: str,
    dagster_run_id: str,
    fingerprint: str,
    policy: RolloutPolicy,
    state: OpeningState,
    reason: str,
    waiting_for: str | None,
    now: datetime,
) -> Rollout:
    """Open the rollout of a version; a second call changes nothing and returns the first.

    With state ``awaiting_approval`` it waits for a person (`waiting_for`); otherwise it enters the
    first stage of its `policy` at once. It supersedes those that were waiting or in trial. The
    first champion has nobody to be tried beside: its only stage is the last. A version that has a
    rollout of a model with another fingerprint is refused.
    """
    name: EventName = "ask" if state == "awaiting_approval" else "open"
    event = Event(name, f"run {dagster_run_id}", reason, now, waiting_for)
    with ops.write(use_case) as tx:
        present = tx.find(Rollout, use_case=use_case, version=version)
        if present is not None:
            _refuse_other_model(present, fingerprint)
            return present
        stages = policy.stages if find_champion(tx, use_case) else policy.stages[-1:]
        names = tuple(stage.name for stage in stages)
        opened = advance(None, event, names)
        _change_others(tx, opened.effects, use_case, version, event)
        found = tx.insert(
            Rollout(
                NEW, use_case, version, opened.state, opened.stage, names, mlflow_run_id,
                dagster_run_id, fingerprint, reason, waiting_for, opened_at=now, changed_at=now,
                entered_at=None if opened.stage is None else now,
                policy=policy.model_copy(update={"stages": stages}).model_dump(mode="json"),
            )
        )  # fmt: skip
        _write_event(tx, found, None, event)
        return found


def send(ops: Ledger, rollout: Rollout, event: Event) -> Rollout:
    """Let an event happen to a rollout and, as its effects say, to others; return it as it is now.

    What changes nothing is not written.
    """
    with ops.write(rollout.use_case) as tx:
        transition = advance(rollout, event)
        after = transition.applied_to(rollout, event)
        if (after.state, after.stage) == (rollout.state, rollout.stage):
            return rollout
        # an index allows one champion at any time: it makes room before, and is restored after
        later = tuple(item for item in transition.effects if item == "restore_previous")
        sooner = tuple(item for item in transition.effects if item not in later)
        _change_others(tx, sooner, rollout.use_case, rollout.version, event)
        written = ("state", "stage", "waiting_for", "changed_at", "entered_at")
        tx.change(rollout, **{name: getattr(after, name) for name in written})
        _write_event(tx, after, rollout.state, event)
        _change_others(tx, later, rollout.use_case, rollout.version, event)
        return after


@dataclass(frozen=True)
class PersonsDecision:
    """What a person says about a version that waits.

    For stage `staging` it goes on waiting, and may, or may no longer, make trial scores. From
    `expires_at` on it may not score until a person approves again, which renews a champion's
    approval.
    """

    verdict: Verdict
    by: str
    reason: str
    stage: ApprovalStage = "production"
    expires_at: datetime | None = None


def decide(
    ops: Ledger,
    use_case: str,
    version: int,
    said: PersonsDecision,
    *,
    four_eyes: bool = False,
    now: datetime,
) -> Rollout:
    """Record what a person decides about a version, and let its rollout follow.

    Refused are a version that does not wait, a blank name or reason, an end that is past and, with
    `four_eyes`, an approver who triggered the run that made the version.
    """
    signature = signed(said.by, said.reason, now)
    check_end(said.expires_at, now)
    is_approved = said.verdict == "approved"
    with ops.write(use_case) as tx:
        found = get_rollout(tx, use_case, version)
        is_renewed = is_approved and is_renewal(found, list_approvals(tx, use_case), said.stage)
        if not is_renewed:
            check_waiting(found, said.verdict, list_rollouts(tx, use_case))
        if is_approved and four_eyes:
            run = tx.find(LifecycleRun, use_case=use_case, run_id=found.dagster_run_id)
            check_four_eyes(found, run.triggered_by if run else None, signature.by)
        tx.insert(
            Approval(
                NEW, found.id, use_case, version, said.stage, said.verdict, signature.by,
                signature.reason, now, said.expires_at,
            )
        )  # fmt: skip
        if said.stage == "staging" or is_renewed:
            return found
        name: EventName = "approve" if is_approved else "reject"
        return send(tx, found, Event(name, signature.by, signature.reason, now))


def roll_back(
    ops: Ledger, use_case: str, *, by: str, reason: str, now: datetime
) -> tuple[Rollout, Rollout]:
    """Take the champion out of use and make the one before it champion again; return both."""
    said = signed(by, reason, now)
    with ops.write(use_case) as tx:
        removed, before = find_champion(tx, use_case), _previous(tx, use_case)
        if removed is None or before is None:
            missing = "version before the champion" if removed else "champion"
            raise StateError(
                f"{use_case} has no {missing} to roll back.",
                expected="a champion, and a version in state previous",
                found=f"champion {removed.version}" if removed else "no champion",
                way_out="Make a version on data and code that you trust, and approve it.",
            )
        removed = send(tx, removed, Event("roll_back", said.by, said.reason, now))
        return removed, get_rollout(tx, use_case, before.version)


def _change_others(
    tx: Transaction, effects: Sequence[Effect], use_case: str, version: int, event: Event
) -> None:
    """Send the events that follow for other rollouts from one of `version`."""
    if "supersede_waiting" in effects:
        newer = Event("supersede", event.actor, f"version {version} came instead", event.at)
        for older in tx.all(Rollout, order=("version",), use_case=use_case, state=IN_TRIAL):
            send(tx, older, newer)
    present = find_champion(tx, use_case) if "demote_champion" in effects else None
    if present is not None:
        replaced = Event("replace", event.actor, f"version {version} became champion", event.at)
        for older in tx.all(Rollout, use_case=use_case, state="previous"):
            send(tx, older, replaced)
        send(tx, present, replaced)
    before = _previous(tx, use_case) if "restore_previous" in effects else None
    if before is not None:
        send(tx, before, Event("restore", event.actor, event.reason, event.at))


def _previous(ops: Ledger, use_case: str) -> Rollout | None:
    return ops.find(Rollout, order=("-version",), use_case=use_case, state="previous")


def _write_event(
    tx: Transaction, after: Rollout, before: RolloutState | None, event: Event
) -> None:
    tx.insert(
        RolloutEvent(
            NEW, after.id, after.use_case, after.version, event.at, before, after.state,
            after.stage, event.actor, event.reason, event.evidence,
        )
    )  # fmt: skip


def _refuse_other_model(present: Rollout, fingerprint: str) -> None:
    if present.fingerprint != fingerprint:
        raise StateError(
            f"Version {present.version} of {present.use_case} already has a rollout, "
            "of another model.",
            expected=f"fingerprint {present.fingerprint}",
            found=f"fingerprint {fingerprint}",
            way_out="Registry and ops database do not belong together: was one of them reset?",
        )
