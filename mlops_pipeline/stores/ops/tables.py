"""The tables of the ledger: one declaration each, and the records that no decision reads.

Records that a decision reads are in `core.<room>.records`. A new table is a record and a
declaration; a change of one that exists needs a new number in engine.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Index, text

from mlops_pipeline.core.audit.chain import AuditEvent
from mlops_pipeline.core.evaluation.records import ExceptionEntry
from mlops_pipeline.core.rollout.records import Approval, Rollout, RolloutEvent
from mlops_pipeline.stores.ops.declarations import Audited, CanonicalJson, Declared, Owner

KeyScope = Literal["predict", "label", "review", "read", "admin"]
FeatureReader = Literal["computation", "training", "batch_scoring", "online", "history"]


@dataclass(frozen=True)
class Lease:
    """Who may work on something now.

    `state` is `held` while a process sends heartbeats, `lingering` between two processes of one
    holder, and `released` at the end: the row stays, so that the fencing token never goes back.
    `token` rises by one with each new holder; `beats` with each sign of life of the present one,
    which shows a living holder even where two clocks disagree.
    """

    name: str
    holder: str
    host: str
    pid: int
    state: Literal["held", "lingering", "released"]
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
class StepSeconds:
    """How long an asset worked in a run; attempts add up."""

    use_case: str
    run_id: str
    asset: str
    seconds: float


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
class RolloutWindow:
    """What one process of the service counted of a version in trial in one minute.

    `window` is the minute since 1970 by the machine's time, `first_window` the first that the
    process counted in. `dropped` rows were never scored beside their answer, since it started.
    """

    use_case: str
    version: int
    process: str
    first_window: int
    window: int
    challenger_requests: int
    challenger_errors: int
    challenger_slow: int
    challenger_defaults: int
    champion_requests: int
    champion_errors: int
    champion_slow: int
    champion_defaults: int
    dropped: int
    beat_at: datetime


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


@dataclass(frozen=True)
class ApiKeyEntry:
    """A key of the service, by its hash, or, where `ends` names one, the end it was given."""

    id: int
    name: str
    scopes: tuple[str, ...]
    digest: str | None
    by: str
    at: datetime
    expires_at: datetime
    ends: int | None


@dataclass(frozen=True)
class Projection:
    """Up to which audit event a target outside of the database follows a use case."""

    use_case: str
    target: str
    seq: int


ROLLOUT = Declared(Rollout, "rollout", unique=("use_case", "version"), recorded=("changed_at",))
# The promise "one champion" holds even for a writer that goes round this package.
Index(
    "uq_rollout_one_champion",
    ROLLOUT.table.c.use_case,
    unique=True,
    sqlite_where=text("state = 'champion'"),
    postgresql_where=text("state = 'champion'"),
)
OF_ROLLOUT = Owner("rollout_id", ROLLOUT, ("use_case", "version"))
# fmt: off
DECLARED = (
    ROLLOUT,
    Declared(RolloutEvent, "rollout_event", owner=OF_ROLLOUT, index=("rollout_id",),
            append_only=True, people=("actor",), recorded=("at",), audited=[
        Audited("rollout", ("id", "version", "from_state", "to_state", "reason"), actor="actor")]),
    Declared(Approval, "approval", owner=OF_ROLLOUT, index=("rollout_id",),
            append_only=True, people=("by",), audited=[
        Audited("approval", ("id", "version", "stage", "verdict", "reason", "expires_at"),
                actor="by")]),
    Declared(ExceptionEntry, "gate_exception", refers={"revokes": "gate_exception.id"},
            unique=("revokes",), index=("use_case",), append_only=True, people=("by",),
            recorded=("at",), audited=[
        Audited("exception_revoked", ("id", "rule", "attribute", "reason", "revokes"),
                actor="by", where="revokes"),
        Audited("exception_granted", ("id", "rule", "attribute", "reason", "expires_at"),
                actor="by")]),
    Declared(Decision, "decision", index=("use_case", "kind"), audited=[
        Audited("decision", ("id", "kind", "action", "reason", "evidence", "run_key"))]),
    Declared(LifecycleRun, "lifecycle_run", unique=("use_case", "run_id"),
            people=("triggered_by",), recorded=("finished_at", "started_at"), audited=[
        Audited("run", ("id", "run_id", "trigger", "as_of"), at="started_at",
                actor="triggered_by")]),
    Declared(ApiKeyEntry, "api_key", refers={"ends": "api_key.id"}, append_only=True,
            people=("by",), recorded=("at",), audited=[
        Audited("api_key_ended", ("id", "name", "expires_at", "ends"), actor="by", where="ends"),
        Audited("api_key_created", ("id", "name", "scopes", "digest", "expires_at"),
                actor="by")]),
    Declared(AuditEvent, "audit_event", key=("seq",), append_only=True, people=("actor",),
            types={"detail": CanonicalJson}, uncovered="the chain itself: its own hashes cover it"),
    Declared(Alert, "alert", index=("use_case", "resolved_at"), people=("resolved_by",),
            recorded=("resolved_at", "last_raised_at")),
    Declared(Pointer, "pointer", key=("use_case", "name"), recorded=("updated_at",)),
    Declared(StepSeconds, "lifecycle_step", key=("use_case", "run_id", "asset"),
            uncovered="how long work took: costs show it, nothing is decided by it"),
    Declared(RolloutWindow, "rollout_window", key=("use_case", "version", "process"),
            uncovered="counts of a minute, written each second: a breach has its own in the event"),
    Declared(FeatureUse, "feature_use", key=("use_case", "feature", "reader"),
            uncovered="when features were read: the catalogue shows it"),
    Declared(Tombstone, "tombstone", key=("entity", "pseudonym", "use_case"),
            people=("pseudonym", "by"), recorded=("finished_at", "at")),
    Declared(Lease, "lease", key=("name",),
            uncovered="who works now: it changes every five seconds, and is over with the work"),
    Declared(Projection, "projection", key=("use_case", "target"),
            uncovered="how far MLflow follows the ledger: projecting compares all of it again"),
)
# fmt: on
TABLES = {item.record: item for item in DECLARED}
AUDITED_KINDS = {kind.kind: item.table.name for item in DECLARED for kind in item.audited}
