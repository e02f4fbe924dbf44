"""What follows from the evidence: the next event of a rollout, and the reason in plain words.

Harm rolls back at any time. A stage ends when it has lasted long enough and every guardrail that it
needs is ok: what is missing, or cannot be computed, holds it. What an event does is machine.py's.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np

from mlops_pipeline.core.rollout.evidence import Evidence, GuardrailResult, Pairs, Rules
from mlops_pipeline.core.rollout.guardrails import FAST, GUARDRAILS, judge

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEWEST = 10  # labels have stopped when fewer than half of the newest tenth that is due are there


@dataclass(frozen=True)
class Progress:
    """Where a rollout is in time; `label_delay`: from an answer to its complete label, at least.

    `grace` is how much later it may be before it is missed: as sources deliver, by the day, month.
    """

    stage: int
    opened_at: datetime
    entered_at: datetime
    now: datetime
    label_delay: timedelta
    grace: timedelta = timedelta(days=1)

    @property
    def first_labels_at(self) -> datetime:
        """When the first labels can be complete."""
        return self.opened_at + self.label_delay


@dataclass(frozen=True)
class Step:
    """The event that follows, None while there is nothing to say yet; and what is still needed."""

    event: Literal["breach", "miss", "pass", "ask"] | None
    reason: str
    results: tuple[GuardrailResult, ...]
    needs: tuple[str, ...] = ()


def next_step(evidence: Evidence, rules: Rules, progress: Progress) -> Step:
    """Return what follows for a version in trial, in a stage before full.

    breach: a guardrail says harm. None: the stage has not lasted long enough. miss: what it needs
    is missing. ask, pass: the next stage may begin, after a person's approval or at once.
    """
    results = judge(evidence, rules)
    if harm := _harm(results):
        return Step("breach", harm, results)
    stage, following = rules.policy.stages[progress.stage : progress.stage + 2]
    if early := _early(evidence.pairs, rules, progress):
        return Step(None, f"stage {stage.name}: {early}", results)
    needs = [
        _need(one) for one in results if one.outcome != "ok" and _is_needed(one, rules, progress)
    ]
    needs += _stopped(evidence, progress)
    if needs:
        return Step(
            "miss", f"stage {stage.name} waits for {'; '.join(needs)}", results, tuple(needs)
        )
    said = f"stage {stage.name} is passed: {_ok(results)}"
    if following.approval:
        return Step("ask", f"{said}; a person approves {following.name}", results)
    return Step("pass", said, results)


def verdict(evidence: Evidence, rules: Rules, progress: Progress) -> Step:
    """Return what follows for the champion while the one before it is kept to go back to.

    pass: complete labels say that it is not worse. breach: it is rolled back. None: neither yet.
    """
    results = judge(evidence, rules)
    if harm := _harm(results):
        return Step("breach", harm, results)
    needs = [_need(one) for one in results if one.name == "realised" and one.outcome != "ok"]
    needs += _stopped(evidence, progress)
    if needs:
        return Step(None, f"the verdict waits for {'; '.join(needs)}", results, tuple(needs))
    return Step("pass", f"the version stays: {_ok(results)}", results)


def labels_are_required(rules: Rules, progress: Progress) -> bool:
    """Whether no stage ends without complete labels.

    Where it is not configured: where they come before the stages in front of full are over.
    """
    if rules.policy.evidence.labels is not None:
        return rules.policy.evidence.labels == "required"
    days = sum(stage.days for stage in rules.policy.stages[:-1])
    return progress.label_delay <= timedelta(days=days)


def _is_needed(result: GuardrailResult, rules: Rules, progress: Progress) -> bool:
    holds = GUARDRAILS[result.name].holds
    if holds == "with labels":
        is_due = progress.now >= progress.first_labels_at
        return is_due or labels_are_required(rules, progress)
    return holds == "always"


def _early(pairs: Pairs, rules: Rules, progress: Progress) -> str | None:
    stage = rules.policy.stages[progress.stage]
    until = progress.entered_at + timedelta(days=stage.days)
    if progress.now < until:
        return f"it lasts until {until:%Y-%m-%d %H:%M} at least"
    answered = int((pairs.at_us >= _microseconds(progress.entered_at)).sum())
    if answered < stage.requests:
        return f"{answered:,} of at least {stage.requests:,} requests were answered in it"
    return None


def _stopped(evidence: Evidence, progress: Progress) -> list[str]:
    """Return what is to be said where labels that should be complete are not there."""
    latest = progress.now - progress.label_delay - progress.grace
    pairs = evidence.pairs
    due = int(np.searchsorted(pairs.at_us, _microseconds(latest), side="right"))
    if due == 0 or evidence.no_labels is not None:
        return []
    newest = pairs.is_complete[due - max(1, due // NEWEST) : due]
    if newest.mean() >= 0.5:
        return []
    return [
        f"labels, which have stopped: of the newest {len(newest):,} answers until "
        f"{latest:%Y-%m-%d %H:%M} only {int(newest.sum()):,} have one"
    ]


def _harm(results: tuple[GuardrailResult, ...]) -> str:
    return "; ".join(f"{one.name}: {one.reason}" for one in results if one.outcome == "harm")


def _need(result: GuardrailResult) -> str:
    said = f"{result.name} ({result.outcome}): {result.reason}"
    if result.needed is None:
        return said
    return (
        f"{said}; about {result.needed:,} more {'requests' if result.name in FAST else 'entities'}"
    )


def _ok(results: tuple[GuardrailResult, ...]) -> str:
    passed = [one.name for one in results if one.outcome == "ok"]
    others = [f"{one.name} is {one.outcome}" for one in results if one.outcome != "ok"]
    return "; ".join([f"{', '.join(passed)} are ok", *others])


def _microseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)
