"""Model cards: the documents of a version, where it and its card stand now, and the reminder.

Belongs here: reading documents and the ops database, writing the card's two files, recording a
review. What a card says is core/documents/model_card.py's.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from mlops_pipeline.config import UseCase, parse_use_case
from mlops_pipeline.core.documents.model_card import CardFacts, Standing, later, model_card
from mlops_pipeline.core.documents.pages import Recorded, render_html
from mlops_pipeline.core.documents.records import (
    DataSnapshot,
    EvaluatedTraining,
    Metadata,
    ModelFacts,
    TrainingFacts,
    from_plain,
)
from mlops_pipeline.core.rollout.records import Rollout
from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.lifecycle.alerts import NewAlert, alert_while, resolve_alerts_by_key
from mlops_pipeline.lifecycle.bookkeeping import NewDecision, list_decisions, record_decision
from mlops_pipeline.lifecycle.exceptions import list_exceptions
from mlops_pipeline.lifecycle.rollouts import (
    find_champion,
    get_rollout,
    list_approvals,
    rollout_events,
)
from mlops_pipeline.lifecycle.status import use_case_costs
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

REVIEW = "card_review"  # kind of the decisions that record a review
CONFIG, MODEL_FACTS = "configuration.json", "card_facts.json"
MARKDOWN, HTML = "model_card.md", "model_card.html"
T = TypeVar("T")


@dataclass(frozen=True)
class StoredVersion:
    """A deployed, waiting or former version: the folder of its documents, and its card's facts."""

    folder: Path
    facts: CardFacts


def write_card(folder: Path, *, now: datetime) -> None:
    """Write the card of a version that is being registered, beside its documents."""
    write_page(folder, model_card(read_facts(folder, now=now)), MARKDOWN, HTML)


def write_page(folder: Path, text: str, markdown: str, html: str) -> None:
    """Write a page as Markdown and as HTML."""
    (folder / markdown).write_text(text, encoding="utf-8")
    (folder / html).write_text(render_html(text), encoding="utf-8")


def read_facts(folder: Path, *, now: datetime, standing: Standing | None = None) -> CardFacts:
    """Read the documents of a version; NotFoundError when one is missing."""
    evaluated = _read(folder, "evaluation.json", EvaluatedTraining)
    return CardFacts(
        use_case=parse_use_case(_read(folder, CONFIG, dict), folder / CONFIG),
        metadata=_read(folder, "metadata.json", Metadata),
        training=_read(folder, "training.json", TrainingFacts),
        snapshot=_read(folder, "data_snapshot.json", DataSnapshot),
        evaluation=evaluated.evaluation,
        gate=evaluated.gate,
        model=_read(folder, MODEL_FACTS, ModelFacts),
        lock_sha256=hashlib.sha256(_text(folder, "requirements.lock").encode()).hexdigest(),
        shown_at=now,
        standing=standing,
    )


def read_recorded(folder: Path, version: int) -> Recorded:
    """Read what a successor of a version is compared with."""
    metadata = _read(folder, "metadata.json", Metadata)
    return Recorded(
        version=version,
        config=_read(folder, CONFIG, dict),
        inputs=frozenset(item.name for item in metadata.signature.inputs),
        training=_read(folder, "training.json", TrainingFacts),
        evaluation=_read(folder, "evaluation.json", EvaluatedTraining).evaluation,
    )


def present_version(
    ops: OpsDatabase, settings: Settings, use_case: UseCase, version: int | None, *, now: datetime
) -> StoredVersion:
    """Return the facts of a version as they are now; of the champion when none is named."""
    rollout = (
        _champion(ops, use_case) if version is None else get_rollout(ops, use_case.name, version)
    )
    lake = Lake(settings.lake_uri)
    folder = lake.documents_folder(use_case.name, rollout.fingerprint)
    standing = replace(read_standing(ops, rollout), cost=use_case_costs(use_case, ops, lake))
    return StoredVersion(folder, read_facts(folder, now=now, standing=standing))


def read_standing(ops: OpsDatabase, rollout: Rollout) -> Standing:
    """Return state, approvals, history and reviews of a version."""
    name, version = rollout.use_case, rollout.version
    return Standing(
        state=rollout.state,
        since=rollout.changed_at,
        waiting_for=rollout.waiting_for,
        approvals=[item for item in list_approvals(ops, name) if item.version == version],
        exceptions=list_exceptions(ops, name),
        events=rollout_events(ops, name, version),
        reviews=[
            asdict(item)
            for item in reversed(list_decisions(ops, name, kind=REVIEW))
            if item.evidence["version"] == version
        ],
    )


def record_review(
    ops: OpsDatabase, use_case: UseCase, *, by: str, reason: str, now: datetime
) -> int:
    """Record a person's review of the champion's card, close the reminder, return the version."""
    by, reason = by.strip(), reason.strip()
    if not by or not reason:
        raise StateError(
            "A review needs a name and a reason.",
            expected="--by and --reason with a text",
            found="a blank text",
            way_out="say who looked at the card, and what came of it",
        )
    version = _champion(ops, use_case).version
    record_decision(
        ops,
        use_case.name,
        NewDecision(REVIEW, "reviewed", f"{by}: {reason}", {"version": version}, actor=by),
        now=now,
    )
    resolve_alerts_by_key(ops, use_case.name, REVIEW, by=by, reason=reason, now=now)
    return version


def remind_of_review(ops: OpsDatabase, use_case: UseCase, *, now: datetime) -> str:
    """Raise an alert when the champion's card is due for review; return what was found."""
    champion = find_champion(ops, use_case.name)
    if champion is None:
        return "there is no champion, so no card to review"
    standing = read_standing(ops, champion)
    months = use_case.governance.review.card_months
    due = later(standing.last_review.date(), months)
    is_due = now.date() >= due
    message = f"the model card of version {champion.version} was due for review on {due}"
    action = (
        f"read `mlops card {use_case.name}`, then "
        f"`mlops card review {use_case.name} --by NAME --reason TEXT`"
    )
    alert = NewAlert("review_due", "warning", message, action, dedupe_key=REVIEW)
    alert_while(is_due, ops, use_case.name, alert, by="reminder", over="no longer due", now=now)
    return message if is_due else f"the card of version {champion.version} is due on {due}"


def _read(folder: Path, name: str, kind: type[T]) -> T:
    return from_plain(kind, json.loads(_text(folder, name)))


def _text(folder: Path, name: str) -> str:
    path = folder / name
    if not path.is_file():
        raise NotFoundError(
            "a document of the version is missing",
            where=str(path),
            way_out="restore it from a backup; a version registered before there were model "
            "cards has none: run the lifecycle again",
        )
    return path.read_text(encoding="utf-8")


def _champion(ops: OpsDatabase, use_case: UseCase) -> Rollout:
    champion = find_champion(ops, use_case.name)
    if champion is None:
        raise NotFoundError(
            f"{use_case.name} has no champion",
            way_out="name a version, or run the lifecycle and approve its version if it waits",
        )
    return champion
