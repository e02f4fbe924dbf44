"""Where a version and its card stand now: states, approvals, reviews, and the reminder of one.

Belongs here: what the ops database says. The documents are card_documents.py's.
"""

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from mlops_pipeline.config import UseCase
from mlops_pipeline.core.documents.model_card import CardFacts, Standing, later
from mlops_pipeline.core.evaluation.exceptions import GateException
from mlops_pipeline.core.rollout.records import Rollout
from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.lifecycle.alerts import NewAlert, raise_alert, resolve_alerts_by_key
from mlops_pipeline.lifecycle.bookkeeping import NewDecision, list_decisions, record_decision
from mlops_pipeline.lifecycle.champions import documents_folder
from mlops_pipeline.lifecycle.compliance.card_documents import read_facts
from mlops_pipeline.lifecycle.costs import use_case_costs
from mlops_pipeline.lifecycle.exceptions import list_exceptions
from mlops_pipeline.lifecycle.rollouts import (
    find_champion,
    get_rollout,
    list_approvals,
    rollout_events,
)
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

REVIEW = "card_review"  # kind of the decisions that record a review


@dataclass(frozen=True)
class StoredVersion:
    """A deployed, waiting or former version: the folder of its documents, and its card's facts."""

    folder: Path
    facts: CardFacts


def present_version(
    ops: OpsDatabase, settings: Settings, use_case: UseCase, version: int | None, *, now: datetime
) -> StoredVersion:
    """Return the facts of a version as they are now; of the champion when none is named.

    Raises
    ------
    NotFoundError
        When there is no such version, or no champion, or a document is missing.
    """
    rollout = (
        _champion(ops, use_case) if version is None else get_rollout(ops, use_case.name, version)
    )
    lake = Lake(settings.lake_uri)
    folder = documents_folder(lake, use_case, rollout.fingerprint)
    cost = use_case_costs(use_case, ops, lake).to_dict()
    standing = replace(read_standing(ops, rollout), cost=cost)
    return StoredVersion(folder, read_facts(folder, now=now, standing=standing))


def read_standing(ops: OpsDatabase, rollout: Rollout) -> Standing:
    """Return state, approvals, history and reviews of a version."""
    name, version = rollout.use_case, rollout.version
    return Standing(
        state=rollout.state,
        since=rollout.changed_at,
        waiting_for=rollout.waiting_for,
        approvals=[asdict(item) for item in list_approvals(ops, name) if item.version == version],
        exceptions=[_told(item) for item in list_exceptions(ops, name)],
        events=[asdict(item) for item in rollout_events(ops, name, version)],
        reviews=[
            asdict(item)
            for item in reversed(list_decisions(ops, name, kind=REVIEW))
            if item.evidence["version"] == version
        ],
    )


def record_review(
    ops: OpsDatabase, use_case: UseCase, *, by: str, reason: str, now: datetime
) -> int:
    """Record that a person looked at the champion's card, and close the reminder.

    Returns
    -------
    int
        The version whose card was reviewed.

    Raises
    ------
    StateError
        If `by` or `reason` is blank.
    """
    if not by.strip() or not reason.strip():
        raise StateError(
            "A review needs a name and a reason.",
            expected="--by and --reason with a text",
            found="a blank text",
            way_out="say who looked at the card, and what came of it",
        )
    version = _champion(ops, use_case).version
    said = f"{by.strip()}: {reason.strip()}"
    record_decision(
        ops,
        use_case.name,
        NewDecision(REVIEW, "reviewed", said, {"version": version}, actor=by.strip()),
        now=now,
    )
    resolve_alerts_by_key(ops, use_case.name, REVIEW, by=by.strip(), reason=reason.strip(), now=now)
    return version


def remind_of_review(ops: OpsDatabase, use_case: UseCase, *, now: datetime) -> str:
    """Raise an alert when the champion's card is due for review; return what was found."""
    champion = find_champion(ops, use_case.name)
    if champion is None:
        return "there is no champion, so no card to review"
    standing = read_standing(ops, champion)
    months = use_case.governance.review.card_months
    due = later(standing.last_review.date(), months)
    if now.date() < due:
        resolve_alerts_by_key(
            ops, use_case.name, REVIEW, by="reminder", reason="not due any more", now=now
        )
        return f"the card of version {champion.version} is due on {due}"
    message = f"the model card of version {champion.version} was due for review on {due}"
    raise_alert(
        ops,
        use_case.name,
        NewAlert(
            "review_due",
            "warning",
            message,
            f"read `mlops card {use_case.name}`, then "
            f"`mlops card review {use_case.name} --by NAME --reason TEXT`",
            dedupe_key=REVIEW,
        ),
        now=now,
    )
    return message


def _told(item: GateException) -> dict[str, str]:
    told = {"rule": item.subject, "by": item.by, "reason": item.reason}
    told |= {"granted": f"{item.granted_at:%Y-%m-%d}", "until": f"{item.expires_at:%Y-%m-%d}"}
    if item.revoked_at is not None:
        told["revoked"] = f"{item.revoked_at:%Y-%m-%d} by {item.revoked_by}: {item.revocation}"
    return told


def _champion(ops: OpsDatabase, use_case: UseCase) -> Rollout:
    champion = find_champion(ops, use_case.name)
    if champion is None:
        raise NotFoundError(
            f"{use_case.name} has no champion",
            way_out="name a version, or run the lifecycle and approve its version if it waits",
        )
    return champion
