"""Loading a model for scoring: only what its approval state allows (core/rollout/approvals.py).

The files in the release folder of the lake are the model; MLflow's are a copy, and not read. The
digest of every file was pinned in the ledger before the version was complete; what lets it go on, a
promotion or a person's approval, is bound to the digest of those.
"""

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.audit.anchors import canonical
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.core.rollout.approvals import approval_state, has_ended, last_approval
from mlops_pipeline.core.rollout.records import ApprovalState, Rollout
from mlops_pipeline.errors import ModelFilesError, NotFoundError, StateError
from mlops_pipeline.lifecycle.bookkeeping import get_pointer
from mlops_pipeline.lifecycle.rollouts import get_rollout, list_approvals
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.models.files import read_checked
from mlops_pipeline.stores.ops import Decision, Ledger, OpsDatabase
from mlops_pipeline.stores.settings import Settings

NAMES = {"champion": "champion", "previous": "champion before the present one"}
BINDING, FILES = ("approval", "promotion"), "files"  # decisions about a version, and its files
RELEASE = "release/"  # pointers to the files of a version, by fingerprint
MODEL = "model"  # the folder in the release folder that holds a version's text and JSON
WAYS_OUT: dict[ApprovalState, str] = {
    "candidate": "a person lets it into trial scoring: "
    "mlops approve {} {} --stage staging --by NAME --reason TEXT",
    "production": "score without --version: that is what the champion does",
    "archived": "it is never loaded for scoring again; train a new version",
}


def champion_rollout(ops: OpsDatabase, use_case: UseCase, *, now: datetime) -> Rollout:
    """Return the champion's rollout, when its approval holds."""
    return deciding_rollout(ops, use_case, "champion", now=now)


def deciding_rollout(
    ops: Ledger, use_case: UseCase, state: Literal["champion", "previous"], *, now: datetime
) -> Rollout:
    """Return the rollout in this state, when its approval holds."""
    rollout = ops.find(Rollout, use_case=use_case.name, state=state)
    if rollout is None:
        raise NotFoundError(
            f"{use_case.name} has no {NAMES[state]}",
            way_out=f"run {use_case.name}_lifecycle, and approve its version if it waits",
        )
    said = last_approval(rollout, list_approvals(ops, use_case.name), "production")
    if said is not None and said.expires_at is not None and has_ended(said, now):
        raise StateError(
            f"the approval of {use_case.name} version {rollout.version} ended: it may not score",
            expected=f"an approval that holds at {now.isoformat()}",
            found=f"approved by {said.by} until {said.expires_at.isoformat()}",
            way_out="a person renews it: "
            f"mlops approve {use_case.name} {rollout.version} --by NAME --reason TEXT",
        )
    return rollout


def trial_rollout(ops: OpsDatabase, use_case: UseCase, version: int, *, now: datetime) -> Rollout:
    """Return the rollout of a version that may make trial scores, which decide about nobody."""
    found = get_rollout(ops, use_case.name, version)
    state = approval_state(found, list_approvals(ops, use_case.name), now=now)
    if state != "staging":
        raise StateError(
            f"version {version} of {use_case.name} may not make trial scores",
            expected="approval state staging",
            found=f"approval state {state} (rollout: {found.state})",
            way_out=WAYS_OUT[state].format(use_case.name, version),
        )
    return found


def pinned_digest(ops: Ledger, use_case: str, fingerprint: str) -> str | None:
    """Return the sha256 of what is pinned of a version: the digest of every file."""
    pinned = get_pointer(ops, use_case, f"{RELEASE}{fingerprint}")
    if pinned is None:
        return None
    return hashlib.sha256(canonical(pinned.value).encode()).hexdigest()


def undecided(ops: Ledger, use_case: str, fingerprint: str | None = None) -> Iterator[str]:
    """Yield where the files that are pinned of a version, or of any, are not those decided on."""
    for made in ops.all(Decision, use_case=use_case, kind=BINDING):
        mark, bound = str(made.evidence.get("fingerprint")), made.evidence.get(FILES)
        if bound and fingerprint in (None, mark) and pinned_digest(ops, use_case, mark) != bound:
            yield (f"{use_case}: the files pinned of {mark} are not those that "
                   f"decision {made.id} ({made.kind}: {made.action}) was about")  # fmt: skip


def _not_vouched_for(ops: Ledger, use_case: str, fingerprint: str) -> Iterator[str]:
    """Yield the version whose state or approvals are not those that the audit chain tells of."""
    for rollout in ops.all(Rollout, use_case=use_case, fingerprint=fingerprint):
        events = ops.events_after(0, use_case=use_case, kind="approval")
        told = {item.detail["id"] for item in events if item.detail["version"] == rollout.version}
        rows = [row for row in list_approvals(ops, use_case) if row.version == rollout.version]
        is_whole = told <= {row.id for row in rows}  # a later one has its event, too
        if not is_whole or not all(map(ops.is_vouched_for, (rollout, *rows))):
            yield f"version {rollout.version}, {rollout.state}, or its approvals were altered"


def released_model(
    ops: OpsDatabase, settings: Settings, use_case: UseCase, fingerprint: str
) -> ScoringModel:
    """Read a released version's text and JSON; nothing of it is executed."""
    folder, within = (
        Lake(settings.lake_uri).documents_folder(use_case.name, fingerprint),
        f"{MODEL}/",
    )
    pinned = get_pointer(ops, use_case.name, f"{RELEASE}{fingerprint}")
    if pinned is None:
        raise ModelFilesError(
            "nothing says which files the version was released with",
            where=str(folder),
            expected=f"a pointer {RELEASE}{fingerprint} in the ops database",
            way_out="restore the database from a backup; of a version that is older than such "
            "pointers, run the lifecycle at its as_of again",
        )
    of_version = ops, use_case.name, fingerprint
    if found := [*undecided(*of_version), *_not_vouched_for(*of_version)]:
        raise ModelFilesError(
            "the version is not what was decided on",
            where=f"ops database: {use_case.name}, fingerprint {fingerprint}",
            expected="what decisions and the audit chain tell of it",
            found="; ".join(found),
            way_out="mlops audit verify; restore what was altered from a backup",
        )
    recorded = {
        name.removeprefix(within): digest
        for name, digest in pinned.value["files"].items()
        if name.startswith(within)
    }
    return ScoringModel.of_files(read_checked(folder / MODEL, recorded))


def release_document(settings: Settings, use_case: UseCase, fingerprint: str) -> dict[str, Any]:
    """Read a released version's metadata."""
    path = Lake(settings.lake_uri).documents_folder(use_case.name, fingerprint) / "metadata.json"
    try:
        document: dict[str, Any] = {**json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError) as error:
        raise ModelFilesError(
            "the released version's document is gone or damaged",
            where=str(path),
            expected="a JSON object",
            found=f"{type(error).__name__}: {error}",
            way_out="restore the folder from a backup of the lake",
        ) from error
    return document
