"""What a person may say about a version, and the approval state that follows.

    candidate    registered, waiting: it may not score anybody
    staging      in trial: it scores beside the champion, and decides for its stage's share; or
                 waiting, and a person approved stage `staging`: trial scores, never decisions
    production   the champion, and the one before it, kept for a rollback
    archived     rejected, superseded, replaced: never loaded for scoring again

The states are a projection of the rollout's state and of approvals; nothing stores them. The name
of the person is what they say it is: a record, not an access control.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from mlops_pipeline.core.audit.chain import UNKNOWN
from mlops_pipeline.core.rollout.records import (
    MEANINGS,
    Approval,
    ApprovalState,
    Rollout,
    Stage,
    Verdict,
)
from mlops_pipeline.errors import StateError

MAX_NAME, MAX_REASON = 200, 10_000  # characters
# letters of other scripts that look like Latin ones (Unicode TR 39), for comparing names only
LOOKALIKES = str.maketrans("авеіјкмнорсѕтухһԁԛԝαβεικνορτυχϲ", "abeijkmhopcstyxhdqwabeikvoptuxc")


@dataclass(frozen=True)
class Signed:
    """Who decides, why and when; neither name nor reason is blank."""

    by: str
    reason: str
    at: datetime


def signed(by: str, reason: str, now: datetime) -> Signed:
    """Return what a person says; StateError if who or why is blank, too long or hidden."""
    return Signed(person_name(by), _written("reason", reason, MAX_REASON, also="\n\t"), now)


def person_name(name: str) -> str:
    """Return a name as it is kept: composed letters, single blanks, nothing that does not show."""
    return _written("by", " ".join(unicodedata.normalize("NFKC", name).split()), MAX_NAME)


def _written(option: str, text: str, longest: int, also: str = "") -> str:
    kept = text.strip()
    hidden = sorted({one for one in kept if not one.isprintable() and one not in also})
    if any(one.isalnum() for one in kept) and len(kept) <= longest and not hidden:
        return kept
    shown = "".join(f", U+{ord(one):04X}" for one in hidden[:8])
    raise StateError(
        f"What a person decides needs {option!r} in letters that show.",
        expected=f"1 to {longest:,} characters, a letter or digit among them, none that is hidden",
        found=f"{len(kept):,} characters{shown}",
        way_out=f"Say it with --{option}.",
    )


def approval_state(
    found: Rollout, approvals: Iterable[Approval], *, now: datetime
) -> ApprovalState:
    """Return what a version may be used for; see the table above."""
    state = MEANINGS[found.state].approval
    if state != "candidate":
        return state
    if found.is_in_trial:
        return "staging"
    last = last_approval(found, approvals, "staging")
    is_staging = last is not None and last.verdict == "approved" and not has_ended(last, now)
    return "staging" if is_staging else "candidate"


def last_approval(found: Rollout, approvals: Iterable[Approval], stage: Stage) -> Approval | None:
    """Return what was said last about a version and a stage; None if nothing was."""
    said = [item for item in approvals if (item.version, item.stage) == (found.version, stage)]
    return said[-1] if said else None


def has_ended(said: Approval | None, now: datetime) -> bool:
    """Whether an approval had an end, and it is past."""
    return said is not None and said.expires_at is not None and said.expires_at <= now


def is_renewal(found: Rollout, approvals: Iterable[Approval], stage: Stage) -> bool:
    """Whether approving only renews: it is champion by an approval that has an end."""
    if (stage, found.state) != ("production", "champion"):
        return False
    said = last_approval(found, approvals, "production")
    return said is not None and said.expires_at is not None


def check_end(expires_at: datetime | None, now: datetime) -> None:
    """Refuse an approval that would have ended already."""
    if expires_at is not None and expires_at <= now:
        raise StateError(
            "An approval cannot end before it begins.",
            expected=f"a time after {now.isoformat()}",
            found=expires_at.isoformat(),
            way_out="Give --expires a later date.",
        )


def check_waiting(found: Rollout, verdict: Verdict, rollouts: Sequence[Rollout]) -> None:
    """Refuse a decision on a version that waits for none, and name those that do."""
    if found.state == "awaiting_approval":
        return
    waiting = [str(item.version) for item in rollouts if item.state == "awaiting_approval"]
    raise StateError(
        f"Version {found.version} of {found.use_case} cannot be {verdict} now.",
        expected="state awaiting_approval",
        found=f"state {found.state}, since {found.changed_at.isoformat()}",
        way_out=f"Waiting for a decision: version {', '.join(sorted(waiting, key=int))}."
        if waiting
        else "No version is waiting; run the lifecycle to make one.",
    )


def check_four_eyes(found: Rollout, triggered_by: str | None, approver: str) -> None:
    """Refuse an approver who triggered the run that made the version, or a run of nobody."""
    trigger = triggered_by or UNKNOWN
    if _same_name(trigger) not in {_same_name(approver), UNKNOWN}:
        return
    raise StateError(
        f"Version {found.version} of {found.use_case} needs the approval of somebody else.",
        where="rollout.four_eyes",
        expected="an approver who did not trigger the run that made the version",
        found=f"approver {approver}, run triggered by {trigger}",
        way_out="Ask a colleague to approve it."
        if trigger != UNKNOWN
        else "Nobody said who triggered it: make the version with `mlops run --by NAME`.",
    )


def _same_name(name: str) -> str:
    """Return what two spellings of one name share: letters and digits, however they are written.

    Case, blanks, accents, marks and scripts whose letters look alike do not count.
    """
    parts = unicodedata.normalize("NFKD", name.casefold())
    return "".join(one for one in parts if one.isalnum()).translate(LOOKALIKES)
