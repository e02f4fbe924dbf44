"""What a use case notes of its work: pointers, configuration, decisions, runs, times, uses.

Belongs here: what is written down. What is decided is in the module of its step.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from mlops_pipeline.core.audit.chain import UNKNOWN, AuditEvent, NewAuditEvent
from mlops_pipeline.core.rollout.records import Rollout
from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.stores.ops import (
    NEW,
    Decision,
    FeatureReader,
    FeatureUse,
    Ledger,
    LifecycleRun,
    Pointer,
    StepSeconds,
    get_lease,
    is_at_work,
)

CONFIGURATION = "configuration"  # the name of the pointer, and the kind of the event
NEWEST = ("-started_at", "-id")
LIFECYCLE_BEGUN, RUN_BEGUN, RUN_ENDED = "lifecycle_begun", "run_begun", "run_ended"  # of events
Outcome = Literal["running", "finished", "failed", "interrupted"]  # of the process of a run


def set_pointer(
    ops: Ledger, use_case: str, name: str, value: Mapping[str, Any], *, run_id: str, now: datetime
) -> None:
    """Move a pointer: every later reader sees the whole new document."""
    ops.put(Pointer(use_case, name, dict(value), run_id, now))


def get_pointer(ops: Ledger, use_case: str, name: str) -> Pointer | None:
    """Read a pointer; None if it was never set."""
    return ops.find(Pointer, use_case=use_case, name=name)


def record_configuration(
    ops: Ledger, use_case: str, document: Mapping[str, Any], *, by: str, now: datetime
) -> dict[str, Any]:
    """Note the configuration in force; return the changed keys with old and new values.

    Every asset and every decision of a person does, before it goes by the configuration: `by` says
    which found the change (``run <id>``, ``approval``), not who made it. Audit events with the
    first document and each change tell every configuration by which something was decided.
    """
    with ops.write(use_case) as tx:
        before = tx.find(Pointer, use_case=use_case, name=CONFIGURATION)
        changed = {} if before is None else dict(_changes(before.value, document))
        if before is None or changed:
            tx.replace(Pointer(use_case, CONFIGURATION, dict(document), by, now))
            detail = {"changed": changed} if changed else {"document": dict(document)}
            tx.append([NewAuditEvent(CONFIGURATION, detail, use_case, by, now)])
    return changed


@dataclass(frozen=True)
class NewDecision:
    """What was decided, also not to act; `run_key` is of a run asked for, `actor` who decided."""

    kind: str
    action: str
    reason: str
    evidence: Mapping[str, Any]
    run_key: str | None = None
    actor: str = "mlops"


def record_decision(ops: Ledger, use_case: str, made: NewDecision, *, now: datetime) -> int:
    """Keep a decision and return its id."""
    row = Decision(
        NEW, use_case, made.kind, made.action, made.reason, dict(made.evidence), made.run_key, now
    )
    with ops.write(use_case) as tx:
        return tx.insert(row, actor=made.actor).id


def list_decisions(
    ops: Ledger, use_case: str, kind: str | None = None, limit: int = 100
) -> list[Decision]:
    """List decisions, the last recorded first."""
    wanted = {} if kind is None else {"kind": kind}
    return ops.all(Decision, order=("-id",), limit=limit, use_case=use_case, **wanted)


def begin_run(
    ops: Ledger,
    use_case: str,
    run_id: str,
    *,
    is_lifecycle: bool,
    trigger: str,
    by: str | None,
    now: datetime,
) -> None:
    """Note who started a run, and what did, before it does anything; again changes nothing."""
    kind = LIFECYCLE_BEGUN if is_lifecycle else RUN_BEGUN
    with ops.write(use_case) as tx:
        if _event_of(tx, use_case, kind, run_id) is None:
            detail = {"run_id": run_id, "trigger": trigger}
            tx.append([NewAuditEvent(kind, detail, use_case, by or UNKNOWN, now)])


def end_run(ops: Ledger, use_case: str, run_id: str, outcome: Outcome, *, now: datetime) -> None:
    """Note that the process of a run has ended, and how; a killed one cannot."""
    detail = {"run_id": run_id, "outcome": outcome}
    ops.append_audit(RUN_ENDED, detail, use_case=use_case, actor=f"run {run_id}", now=now)


def run_state(ops: Ledger, use_case: str, run_id: str) -> str:
    """Return what became of a run.

    `running`; `failed`; `interrupted`: it was stopped or killed; `finished`: it was no lifecycle;
    of a lifecycle `refused`, `waiting`, `in_trial`, `champion`, or what its version became since.
    """
    row = ops.find(LifecycleRun, use_case=use_case, run_id=run_id)
    if row is not None and row.verdict == "refused":
        return row.verdict
    if row is not None and row.verdict is not None:
        made = ops.find(Rollout, use_case=use_case, fingerprint=row.fingerprint)
        if made is not None and made.is_in_trial:
            return "in_trial"
        state = made.state if made else row.verdict
        return "waiting" if state == "awaiting_approval" else state
    return run_outcome(ops, use_case, run_id)


def run_outcome(ops: Ledger, use_case: str, run_id: str) -> Outcome:
    """Return how the process of a run ended; a killed one is interrupted."""
    ended = _event_of(ops, use_case, RUN_ENDED, run_id)
    if ended is not None:
        found: Outcome = ended.detail["outcome"]
        return found
    lease = get_lease(ops, f"lifecycle:{use_case}")
    is_running = lease and lease.holder == run_id and is_at_work(lease, datetime.now(UTC))
    return "running" if is_running else "interrupted"


def _event_of(ops: Ledger, use_case: str, kind: str, run_id: str) -> AuditEvent | None:
    """Return the newest event of a kind that tells of a run."""
    events = ops.audit_events(use_case=use_case, kind=kind)
    return next((event for event in events if event.detail["run_id"] == run_id), None)


def start_lifecycle(
    ops: Ledger,
    use_case: str,
    run_id: str,
    *,
    as_of: datetime,
    trigger: str,
    triggered_by: str | None = None,
    now: datetime,
) -> LifecycleRun:
    """Note that a run began, by which trigger and whom; a second call returns the first."""
    with ops.write(use_case) as tx:
        present = tx.find(LifecycleRun, use_case=use_case, run_id=run_id)
        if present is not None:
            return present
        row = LifecycleRun(
            NEW, use_case, run_id, as_of, trigger, started_at=now, finished_at=None, verdict=None,
            fingerprint=None, summary=None, triggered_by=triggered_by,
        )  # fmt: skip
        return tx.insert(row)


def finish_lifecycle(
    ops: Ledger,
    use_case: str,
    run_id: str,
    *,
    verdict: str,
    fingerprint: str | None,
    summary: Mapping[str, Any],
    now: datetime,
) -> LifecycleRun:
    """Note how a run ended; a second call with the same verdict changes nothing."""
    with ops.write(use_case) as tx:
        present = tx.find(LifecycleRun, use_case=use_case, run_id=run_id)
        if present is None:
            raise NotFoundError(
                f"There is no lifecycle run {run_id!r} of {use_case}.",
                way_out="Call start_lifecycle when the run begins.",
            )
        if present.finished_at is None:
            ended = {"verdict": verdict, "fingerprint": fingerprint, "summary": dict(summary)}
            return tx.change(present, **ended, finished_at=now)
        if present.verdict != verdict:
            raise StateError(
                f"Run {run_id} of {use_case} already ended with another verdict.",
                expected=f"an unfinished run, or verdict {present.verdict!r} again",
                found=f"verdict {verdict!r}",
                way_out="Start a new run; a finished one is not rewritten.",
            )
        return present


def last_lifecycle(ops: Ledger, use_case: str) -> LifecycleRun | None:
    """Return the run that started last, finished or not; None if there is none."""
    return ops.find(LifecycleRun, order=NEWEST, use_case=use_case)


def last_finished_lifecycle(ops: Ledger, use_case: str) -> LifecycleRun | None:
    """Return the run that ended last, whatever its verdict; None if none has."""
    runs = ops.all(LifecycleRun, use_case=use_case)
    ended = [(run.finished_at, run.id, run) for run in runs if run.finished_at is not None]
    return max(ended)[-1] if ended else None


def record_step_seconds(
    ops: Ledger, use_case: str, run_id: str, asset: str, seconds: float
) -> None:
    """Add time spent on an asset; the attempts of one run add up."""
    with ops.write(use_case) as tx:
        spent = tx.find(StepSeconds, use_case=use_case, run_id=run_id, asset=asset)
        before = 0.0 if spent is None else spent.seconds
        tx.replace(StepSeconds(use_case, run_id, asset, before + seconds))


def step_seconds(ops: Ledger, use_case: str, run_id: str) -> dict[str, float]:
    """Return the seconds spent by asset; empty if nothing was recorded."""
    return seconds_by_run(ops, use_case, run_id=run_id).get(run_id, {})


def seconds_by_run(ops: Ledger, use_case: str, **wanted: Any) -> dict[str, dict[str, float]]:
    """Return {run id: {asset: seconds}} of every run, lifecycle or not."""
    found: dict[str, dict[str, float]] = {}
    for row in ops.all(StepSeconds, use_case=use_case, **wanted):
        found.setdefault(row.run_id, {})[row.asset] = row.seconds
    return found


def record_feature_use(
    ops: Ledger, use_case: str, features: Collection[str], reader: FeatureReader, *, now: datetime
) -> None:
    """Note that a reader used features; `computation` only says that they exist."""
    with ops.write(use_case) as tx:
        noted = {row.feature: row for row in tx.all(FeatureUse, use_case=use_case, reader=reader)}
        for name in sorted(set(features)):
            found = noted.get(name)
            if found is None:
                tx.insert(FeatureUse(use_case, name, reader, now, now))
            elif found.last_used_at < now:
                tx.change(found, last_used_at=now)


def feature_uses(ops: Ledger, use_case: str) -> list[FeatureUse]:
    """List who used which feature, by feature and reader."""
    return ops.all(FeatureUse, use_case=use_case)


def _changes(before: Any, after: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each key, with dots, whose value differs; a list of another length is one value."""
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        before, after = dict(enumerate(before)), dict(enumerate(after))
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(name for name in after if name not in before)]:
            where = f"{place}.{name}" if place else str(name)
            yield from _changes(before.get(name), after.get(name), where)
    elif before != after:
        yield place, {"old": before, "new": after}
