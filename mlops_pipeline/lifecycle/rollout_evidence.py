"""Looking at the evidence about a version in trial: read -> judge -> write what follows, and why.

    look_at_rollout    what the job does: guardrails, the step that follows, the verdict after full
    rollout_status     what `mlops rollout status` shows
    replay_rollout     what the guardrails would have said, look by look, of what was logged

The fast guardrails are judged in the service as well (rollout_watch.py). What follows from evidence
is decided in core/rollout.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.core.data.periods import step_of
from mlops_pipeline.core.documents.plots import LookPoint, rollout_plot
from mlops_pipeline.core.documents.records import EvaluatedTraining, from_plain, plain
from mlops_pipeline.core.metrics.references import ScoreReference
from mlops_pipeline.core.rollout.agreement import agreement
from mlops_pipeline.core.rollout.evidence import Evidence, Rules
from mlops_pipeline.core.rollout.machine import TABLE, Event, advance
from mlops_pipeline.core.rollout.records import MEANINGS, Rollout
from mlops_pipeline.core.rollout.stages import Progress, Step, next_step, verdict
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.bookkeeping import (
    NewDecision,
    get_pointer,
    list_decisions,
    record_decision,
)
from mlops_pipeline.lifecycle.champions import RELEASE
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.live_pairs import LivePairs, read_pairs
from mlops_pipeline.lifecycle.rollout_watch import KIND, take_out
from mlops_pipeline.lifecycle.rollouts import (
    VERDICT,
    find_champion,
    get_rollout,
    list_rollouts,
    open_question,
    policy_of,
    rollout_events,
    send,
    verdict_is_open,
)
from mlops_pipeline.lifecycle.train import EVALUATION, read_facts
from mlops_pipeline.stores.models.files import read_pinned
from mlops_pipeline.stores.ops import Decision, Ledger

BY = "mlops"  # the actor of a step that evidence made
REALISED = "realised"  # the guardrail that is plotted
# sources are taken to deliver once in a step of the grid; what is later is missed
DELIVERED_DAYS: Mapping[str, int] = {"day": 1, "week": 8, "month": 32}
DAILY = timedelta(hours=20)
LOOKS = 5_000  # of a rollout that its plot shows: more than half a year of hourly ones


@dataclass(frozen=True)
class Looked:
    """What a look found: a sentence, and, if there was something to look at, step and evidence."""

    sentence: str
    step: Step | None = None
    document: Mapping[str, Any] = field(default_factory=dict)
    plot: bytes = b""


def why_no_look(ops: Ledger, use_case: str, now: datetime) -> str | None:
    """Return why there is nothing to look at now; None: look.

    A trial is looked at whenever somebody asks, a champion whose verdict is open once a day.
    """
    question = open_question(ops, use_case)
    if question is None:
        return None if _kept_too_long(ops, use_case, now) else "no rollout is under way"
    last = list_decisions(ops, use_case, KIND, 1)
    if not question.is_in_trial and last and now - last[0].at < DAILY:
        return f"looked at {last[0].at.isoformat()}: once a day is enough now"
    return None


def look_at_rollout(context: Context) -> Looked:
    """Judge the version that evidence has to decide about, and write what follows.

    A step is written only if the rollout is as it was when its evidence was read: the next look
    judges anew otherwise.
    """
    ops, name, now = context.ops, context.use_case.name, context.now
    with ops.write(name) as tx:
        if previous := _kept_too_long(tx, name, now):
            send(tx, previous, Event("expire", BY, "its time to be gone back to is over", now))
    rollout = open_question(ops, name)
    beside = None if rollout is None else _beside(ops, rollout)
    if rollout is None or beside is None:
        return Looked("no rollout is under way")
    live = _live(context, rollout, beside, until=now)
    step = _step(
        context, rollout, policy_of(rollout), _evidence(context, rollout, beside, live), now
    )
    document = _document(context, rollout, live, step)
    with ops.write(name) as tx:
        if get_rollout(tx, name, rollout.version) != rollout:
            return Looked("the rollout was changed meanwhile: looked at again next time")
        _write(context, tx, rollout, step, document)
    return Looked(step.reason, step, document, _plot(ops, rollout))


def _plot(ops: Ledger, rollout: Rollout) -> bytes:
    """Plot the realised difference at each look."""
    policy = policy_of(rollout)
    shares = {stage.name: stage.share for stage in policy.stages}
    points = []
    for look in rollout_looks(ops, rollout):
        found: dict[str, Any] = next(
            (item for item in look.evidence["results"] if item["name"] == REALISED), {}
        )
        figures = (found.get(name) for name in ("value", "lower", "upper"))
        points.append(LookPoint(look.at, shares[look.evidence["stage"]], *figures))
    return rollout_plot(points, policy.evidence.brier_margin)


def _write(
    context: Context, tx: Ledger, rollout: Rollout, step: Step, document: dict[str, Any]
) -> None:
    """Write the decision, and the step that follows from it, if one does."""
    name, now, is_champion = rollout.use_case, context.now, rollout.state == "champion"
    if is_champion and step.event is not None:
        key = f"v{rollout.version}"
        verdict = "not worse" if step.event == "pass" else "worse"
        made = NewDecision(VERDICT, verdict, step.reason, document, run_key=key)
        record_decision(tx, name, made, now=now)
    if step.event == "breach":
        take_out(tx, rollout, step.reason, document, by=BY, now=now)
        return
    made = NewDecision(KIND, step.event or "wait", step.reason, document)
    record_decision(tx, name, made, now=now)
    if step.event is not None and (rollout.state, step.event) in TABLE:
        waiting_for = context.use_case.owner if step.event == "ask" else None
        send(tx, rollout, Event(step.event, BY, step.reason, now, waiting_for, document))


def _kept_too_long(ops: Ledger, name: str, now: datetime) -> Rollout | None:
    """Return the version before the champion when its time is over and the champion is judged."""
    champion = find_champion(ops, name)
    previous = ops.find(Rollout, use_case=name, state="previous")
    if champion is None or previous is None or verdict_is_open(ops, champion):
        return None
    days = policy_of(champion).keep_previous_days
    return previous if previous.changed_at + timedelta(days=days) <= now else None


def _beside(ops: Ledger, rollout: Rollout) -> Rollout | None:
    """Return the version that a rollout is, or was, compared with: the champion when it opened."""
    champion = None
    for event in rollout_events(ops, rollout.use_case):
        if event.version == rollout.version:
            break
        if event.to_state == "champion":
            champion = event.version
    return None if champion is None else get_rollout(ops, rollout.use_case, champion)


def _live(context: Context, rollout: Rollout, beside: Rollout, *, until: datetime) -> LivePairs:
    folders = [_folder(context, item) for item in (beside, rollout)]
    trained = max(read_facts(folder).as_of for folder in folders)
    versions = beside.version, rollout.version
    return read_pairs(context, rollout, versions, trained, until=until)


def _folder(context: Context, rollout: Rollout) -> Path:
    return context.lake.documents_folder(rollout.use_case, rollout.fingerprint)


def _step(
    context: Context, rollout: Rollout, policy: RolloutPolicy, evidence: Evidence, now: datetime
) -> Step:
    """Return what follows for a version in trial, or for a champion whose verdict is open."""
    use_case = context.use_case
    rules = Rules(policy, use_case.fairness, use_case.training.costs)
    progress = Progress(
        stage=rollout.stage or 0,
        opened_at=rollout.opened_at,
        entered_at=rollout.entered_at or rollout.opened_at,
        now=now,
        label_delay=timedelta(days=use_case.label_horizon_days),
        grace=timedelta(days=DELIVERED_DAYS[step_of(use_case.grid)]),
    )
    decide = verdict if rollout.state == "champion" else next_step
    return decide(evidence, rules, progress)


def _evidence(context: Context, rollout: Rollout, beside: Rollout, live: LivePairs) -> Evidence:
    share = policy_of(rollout).stages[rollout.stage or 0].share
    references = _reference(context, rollout), _reference(context, beside)
    return Evidence(live.pairs, share, *references, no_labels=live.no_labels)


def _reference(context: Context, rollout: Rollout) -> ScoreReference | None:
    """Return the scores on the test part of a version, as its pinned evaluation has them."""
    pinned = get_pointer(context.ops, rollout.use_case, f"{RELEASE}{rollout.fingerprint}")
    if pinned is None:
        return None
    recorded = {EVALUATION: pinned.value["files"][EVALUATION]}
    way_out = "restore the folder from a backup of the lake"
    text = read_pinned(_folder(context, rollout), recorded, way_out=way_out)[EVALUATION]
    return from_plain(EvaluatedTraining, json.loads(text)).evaluation.scores


def _document(context: Context, rollout: Rollout, live: LivePairs, step: Step) -> dict[str, Any]:
    """Return what is kept of a look."""
    return {
        "version": rollout.version,
        "state": rollout.state,
        "stage": rollout.stage_name,
        "requests": len(live.pairs),
        "unpaired": live.unpaired,
        "agreement": plain(
            agreement(live.pairs, live.slices, context.use_case.fairness.min_group_rows)
        ),
        "labels_through": live.through.isoformat(),
        "needs": list(step.needs),
        "results": [plain(result) for result in step.results],
    }


# shown


def rollout_status(context: Context) -> dict[str, Any]:
    """Return the version in trial, or the one that was tried last, its stages and the last look."""
    ops, name = context.ops, context.use_case.name
    tried = (item for item in list_rollouts(ops, name) if len(item.stages) > 1)
    rollout = open_question(ops, name) or next(tried, None)
    if rollout is None:
        return {"use_case": name, "version": None, "sentence": "no version was tried yet"}
    policy = policy_of(rollout)
    events = reversed(rollout_events(ops, name, rollout.version))
    entered = {event.stage: event.at for event in events}  # the first of each stage stays
    looks = rollout_looks(ops, rollout)
    return {
        "use_case": name,
        "version": rollout.version,
        "state": rollout.state,
        "stage": rollout.stage_name,
        "sentence": f"version {rollout.version}: {MEANINGS[rollout.state].text}",
        "salt": rollout.fingerprint,
        "stages": [
            {**stage.model_dump(), "stage": stage.name, "entered": entered.get(place)}
            for place, stage in enumerate(policy.stages)
        ],
        "last_look": None
        if not looks
        else {"at": looks[-1].at, "step": looks[-1].action, "reason": looks[-1].reason,
              **looks[-1].evidence},
    }  # fmt: skip


def rollout_looks(ops: Ledger, rollout: Rollout) -> list[Decision]:
    """Return the looks at a rollout, the first first."""
    found = list_decisions(ops, rollout.use_case, KIND, LOOKS)
    return [
        item
        for item in reversed(found)
        if item.evidence.get("version") == rollout.version and "results" in item.evidence
    ]


def replay_rollout(
    context: Context, version: int | None, *, days: float, is_present: bool
) -> Iterator[dict[str, Any]]:
    """Yield what each look would have said and done, every so many days, until the rollout's end.

    `is_present`: by the policy that the configuration has now. A stage that wants a person's
    approval goes on at once.
    """
    ops, name = context.ops, context.use_case.name
    tried = [item for item in list_rollouts(ops, name) if version in (None, item.version)]
    found = next(((item, there) for item in tried if (there := _beside(ops, item))), None)
    if found is None:
        raise NotFoundError(
            f"{name} has no {'version' if version is None else f'version {version}'} that was "
            "tried beside a champion",
            way_out="mlops registry history shows the versions",
        )
    rollout, beside = found
    policy = context.use_case.rollout if is_present else policy_of(rollout)
    until = (
        context.now if rollout.is_in_trial or rollout.state == "champion" else rollout.changed_at
    )
    live = _live(context, rollout, beside, until=until)
    evidence = _evidence(context, rollout, beside, live)
    names = tuple(stage.name for stage in policy.stages)
    there = replace(rollout, state="running", stage=0, stages=names, entered_at=rollout.opened_at)
    at = rollout.opened_at
    entered = [(at, policy.stages[0].share)]
    while there.state in ("running", "held") and (at := at + timedelta(days=days)) <= until:
        stage = there.stage or 0
        known = live.until(at, entered)
        evidence = replace(evidence, pairs=known.pairs, share=policy.stages[stage].share)
        step = _step(context, there, policy, evidence, at)
        yield {
            "at": at,
            "stage": names[stage],
            "requests": len(known.pairs),
            "step": step.event or "wait",
            "reason": step.reason,
        }
        if step.event is not None:
            event = Event("pass" if step.event == "ask" else step.event, BY, step.reason, at)
            there = advance(there, event).applied_to(there, event)
            if there.stage != stage:
                entered.append((at, policy.stages[there.stage or 0].share))
