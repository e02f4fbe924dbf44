"""What the ops database gives back: one frozen dataclass for each kind of row.

Fields are named like the columns in tables.py. Documents (`value`, `summary`, `evidence`) are
JSON: what was a tuple comes back as a list.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

FeatureReader = Literal["computation", "training", "batch_scoring", "online", "history"]
LeaseState = Literal["held", "lingering", "released"]
OpeningState = Literal["awaiting_approval", "full"]
RolloutState = Literal[
    "awaiting_approval", "full", "previous", "rejected", "superseded", "archived", "rolled_back"
]
ApprovalState = Literal["candidate", "staging", "production", "archived"]
Stage = Literal["staging", "production"]
Verdict = Literal["approved", "rejected"]


@dataclass(frozen=True)
class Lease:
    """Who may work on something now.

    `state` is `held` while a process sends heartbeats, and `lingering` between two processes of
    one holder. `token` rises by one with each new holder (a fencing token); `beats` rises with
    each sign of life of the present holder.
    """

    name: str
    holder: str
    host: str
    pid: int
    state: LeaseState
    token: int
    beats: int
    acquired_at: datetime
    heartbeat_at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class Pointer:
    """A named JSON document of a use case, for example the accepted data versions."""

    use_case: str
    name: str
    value: Mapping[str, Any]
    run_id: str
    updated_at: datetime


@dataclass(frozen=True)
class LifecycleRun:
    """One run of the chain; unfinished while `finished_at` is None."""

    id: int
    use_case: str
    run_id: str
    as_of: datetime
    trigger: str
    started_at: datetime
    finished_at: datetime | None
    verdict: str | None
    fingerprint: str | None
    summary: Mapping[str, Any] | None
    triggered_by: str | None


@dataclass(frozen=True)
class Rollout:
    """One model version on its way to, in, or past production. `full` is the champion."""

    id: int
    use_case: str
    version: int
    state: RolloutState
    stages: tuple[str, ...]
    mlflow_run_id: str
    dagster_run_id: str
    fingerprint: str
    reason: str
    waiting_for: str | None
    opened_at: datetime
    changed_at: datetime


@dataclass(frozen=True)
class RolloutEvent:
    """One change of state; `from_state` is None for the opening."""

    id: int
    rollout_id: int
    use_case: str
    version: int
    at: datetime
    from_state: RolloutState | None
    to_state: RolloutState
    actor: str
    reason: str


@dataclass(frozen=True)
class Approval:
    """What a person said about a version; `by` is self-asserted."""

    id: int
    rollout_id: int
    use_case: str
    version: int
    stage: Stage
    verdict: Verdict
    by: str
    reason: str
    at: datetime
    expires_at: datetime | None


@dataclass(frozen=True)
class Alert:
    """Something a person should look at; `action` is the diagnostic next step."""

    id: int
    use_case: str
    kind: str
    severity: str
    message: str
    action: str
    run_id: str | None
    dedupe_key: str | None
    raised_at: datetime
    last_raised_at: datetime
    times_raised: int
    resolved_at: datetime | None
    resolved_by: str | None
    resolution: str | None


@dataclass(frozen=True)
class Decision:
    """What was decided and on what evidence, also when the decision was not to act."""

    id: int
    use_case: str
    kind: str
    action: str
    reason: str
    evidence: Mapping[str, Any]
    run_key: str | None
    at: datetime


@dataclass(frozen=True)
class AuditEvent:
    """What happened, chained: `hash` covers every other field, `previous_hash` the event before."""

    seq: int
    at: datetime
    use_case: str | None
    kind: str
    actor: str
    detail: Mapping[str, Any]
    previous_hash: str
    hash: str


@dataclass(frozen=True)
class FeatureUse:
    """When a kind of reader first and last used a feature; `computation` is no use of it."""

    use_case: str
    feature: str
    reader: FeatureReader
    first_used_at: datetime
    last_used_at: datetime


@dataclass(frozen=True)
class Tombstone:
    """A person who was forgotten: whose keyed hash, in which use case (`*`: all), by whom and why.

    `model_versions` are those made from data that held the person, by use case; `finished_at` is
    None until every store was cleaned.
    """

    entity: str
    pseudonym: str
    use_case: str
    model_versions: Mapping[str, Sequence[int]]
    by: str
    reason: str
    at: datetime
    finished_at: datetime | None
