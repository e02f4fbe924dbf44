"""Model cards and packs: the documents of a version, where it stands now, the reminder to review.

A pack is the technical documentation of a version as a folder (docs/model_card.md), and a zip of
it: the same bytes for the same files. Belongs here: reading documents and the ops database, writing
files, recording a review. What the pages say is core/documents/model_card.py's.
"""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import yaml

from mlops_pipeline.config import UseCase, parse_use_case
from mlops_pipeline.core.documents import records
from mlops_pipeline.core.documents.model_card import (
    CardFacts,
    Standing,
    Status,
    later,
    model_card,
    statuses,
    technical_file,
)
from mlops_pipeline.core.documents.pages import Recorded, render_html
from mlops_pipeline.core.rollout.approvals import signed
from mlops_pipeline.core.rollout.records import Rollout
from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.lifecycle import rollouts
from mlops_pipeline.lifecycle.alerts import NewAlert, alert_while, resolve_alerts_by_key
from mlops_pipeline.lifecycle.bookkeeping import NewDecision, list_decisions, record_decision
from mlops_pipeline.lifecycle.compliance.anchors import exported_lines
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.exceptions import list_exceptions
from mlops_pipeline.lifecycle.status import use_case_costs
from mlops_pipeline.stores.files import new_file, new_folder, write_json
from mlops_pipeline.stores.ops import Ledger, OpsDatabase
from mlops_pipeline.stores.pages import write_page

REVIEW = "card_review"  # kind of the decisions that record a review
CONFIG, MODEL_FACTS = "configuration.json", "card_facts.json"
MARKDOWN, HTML = "model_card.md", "model_card.html"
DOCUMENTS = (  # of a version, that its pack holds too
    "report.html",
    "evaluation.json",
    "evidently.html",
    "training.json",
    "metadata.json",
    "data_snapshot.json",
    "requirements.lock",
    "requirements.txt",
)
SUMS = "SHA256SUMS"
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the oldest that the format knows: no trace of the clock
T = TypeVar("T")


def write_card(folder: Path, *, now: datetime) -> None:
    """Write the card of a version that is being registered, beside its documents."""
    _write_page(folder, model_card(_read_facts(folder, None, now=now)), MARKDOWN, HTML)


def present_version(context: Context, version: int | None) -> tuple[Path, CardFacts]:
    """Return the folder of a version (default: the champion) and its facts as they are now."""
    ops, use_case = context.ops, context.use_case
    rollout = (
        _champion(ops, use_case)
        if version is None
        else rollouts.get_rollout(ops, use_case.name, version)
    )
    folder = context.lake.documents_folder(use_case.name, rollout.fingerprint)
    standing = replace(_standing(ops, rollout), cost=use_case_costs(use_case, ops, context.lake))
    return folder, _read_facts(folder, standing, now=context.now)


def read_recorded(folder: Path, version: int) -> Recorded:
    """Read what a successor of a version is compared with."""
    metadata = _read(folder, "metadata.json", records.Metadata)
    return Recorded(
        version=version,
        config=_read(folder, CONFIG, dict),
        inputs=frozenset(item.name for item in metadata.signature.inputs),
        training=_read(folder, "training.json", records.TrainingFacts),
        evaluation=_read(folder, "evaluation.json", records.EvaluatedTraining).evaluation,
    )


def record_review(
    ops: OpsDatabase, use_case: UseCase, *, by: str, reason: str, now: datetime
) -> int:
    """Record a person's review of the champion's card, close the reminder, return the version."""
    said = signed(by, reason, now)
    with ops.write(use_case.name) as tx:
        version = _champion(tx, use_case).version
        review = NewDecision(
            REVIEW, "reviewed", f"{said.by}: {said.reason}", {"version": version}, actor=said.by
        )
        record_decision(tx, use_case.name, review, now=now)
        resolve_alerts_by_key(tx, use_case.name, REVIEW, by=said.by, reason=said.reason, now=now)
    return version


def remind_of_review(ops: OpsDatabase, use_case: UseCase, *, now: datetime) -> str:
    """Raise an alert while the champion's card is due for review; return what was found."""
    champion = rollouts.find_champion(ops, use_case.name)
    if champion is None:
        return "there is no champion, so no card to review"
    months = use_case.governance.review.card_months
    due = later(_standing(ops, champion).last_review.date(), months)
    is_due = now.date() >= due
    message = f"the model card of version {champion.version} was due for review on {due}"
    action = (
        f"read `mlops card {use_case.name}`, then "
        f"`mlops card review {use_case.name} --by NAME --reason TEXT`"
    )
    alert = NewAlert("review_due", "warning", message, action, dedupe_key=REVIEW)
    alert_while(is_due, ops, use_case.name, alert, by="reminder", over="no longer due", now=now)
    return message if is_due else f"the card of version {champion.version} is due on {due}"


@dataclass(frozen=True)
class Pack:
    """A written pack: how many points of the annex have which status."""

    version: int
    archive: Path
    files: int
    points: Mapping[Status, int]


def write_pack(context: Context, version: int | None, out: Path) -> Pack:
    """Write the documentation of a version (default: the champion), whole, over an earlier pack."""
    use_case, settings, out = context.use_case, context.settings, out.absolute()
    archive = out.with_name(f"{out.name}.zip")
    _check_ours(out, archive)
    supplied = _supplied(use_case, settings.root)
    folder, facts = present_version(context, version)
    provided = {slot: f"documents/{slot}{path.suffix}" for slot, path in supplied.items()}
    card, index = model_card(facts), technical_file(facts, provided)
    configured, state = facts.use_case, records.plain(facts.standing)
    if facts.standing and facts.standing.cost:
        state["cost"] = facts.standing.cost.to_dict()
    views = configured.model_dump(mode="json", include={"entity", "views", "derived", "protected"})
    document = configured.model_dump(mode="json", exclude_defaults=True)
    written = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    events = "".join(f"{line}\n" for line in exported_lines(settings, use_case.name))
    out.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(out) as work:
        for name in DOCUMENTS:
            shutil.copy(folder / name, work / name)
        for slot, path in supplied.items():
            (work / "documents").mkdir(exist_ok=True)
            shutil.copy(path, work / provided[slot])
        _write_page(work, card, MARKDOWN, HTML)
        _write_page(work, index, "README.md", "index.html")
        write_json(work / "approvals.json", state)
        write_json(work / "features.json", views, is_sorted=False)
        (work / "audit.jsonl").write_text(events, encoding="ascii")
        (work / "configuration.yaml").write_text(written, encoding="utf-8")
        sums = {name: hashlib.sha256((work / name).read_bytes()) for name in _files(work)}
        lines = [f"{digest.hexdigest()}  {name}\n" for name, digest in sums.items()]
        (work / SUMS).write_text("".join(lines), encoding="utf-8")
    _zip(out, archive)
    return Pack(facts.metadata.version, archive, len(_files(out)), statuses(provided))


def _read_facts(folder: Path, standing: Standing | None, *, now: datetime) -> CardFacts:
    evaluated = _read(folder, "evaluation.json", records.EvaluatedTraining)
    return CardFacts(
        use_case=parse_use_case(_read(folder, CONFIG, dict), folder / CONFIG),
        metadata=_read(folder, "metadata.json", records.Metadata),
        training=_read(folder, "training.json", records.TrainingFacts),
        snapshot=_read(folder, "data_snapshot.json", records.DataSnapshot),
        evaluation=evaluated.evaluation,
        gate=evaluated.gate,
        model=_read(folder, MODEL_FACTS, records.ModelFacts),
        lock_sha256=hashlib.sha256(_text(folder, "requirements.lock").encode()).hexdigest(),
        shown_at=now,
        standing=standing,
    )


def _read(folder: Path, name: str, kind: type[T]) -> T:
    return records.from_plain(kind, json.loads(_text(folder, name)))


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


def _write_page(folder: Path, text: str, markdown: str, html: str) -> None:
    (folder / markdown).write_text(text, encoding="utf-8")
    write_page(folder / html, render_html(text))


def _champion(ops: Ledger, use_case: UseCase) -> Rollout:
    champion = rollouts.find_champion(ops, use_case.name)
    if champion is None:
        raise NotFoundError(
            f"{use_case.name} has no champion",
            way_out="name a version, or run the lifecycle and approve its version if it waits",
        )
    return champion


def _standing(ops: OpsDatabase, rollout: Rollout) -> Standing:
    name, version = rollout.use_case, rollout.version
    return Standing(
        state=rollout.state,
        since=rollout.changed_at,
        waiting_for=rollout.waiting_for,
        approvals=[item for item in rollouts.list_approvals(ops, name) if item.version == version],
        exceptions=list_exceptions(ops, name),
        events=rollouts.rollout_events(ops, name, version),
        reviews=[
            asdict(item)
            for item in reversed(list_decisions(ops, name, kind=REVIEW))
            if item.evidence["version"] == version
        ],
    )


def _check_ours(out: Path, archive: Path) -> None:
    listed = set()
    if (out / SUMS).is_file():
        lines = (out / SUMS).read_text(encoding="utf-8").splitlines()
        listed = {SUMS, *(line.split("  ", 1)[1] for line in lines)}
    strange = [name for name in _files(out) if name not in listed]
    if out.exists() and not out.is_dir():
        strange = [out.name]
    if archive.exists() and not listed:
        strange.append(archive.name)
    if strange:
        raise StateError(
            "the folder is not an earlier pack",
            where=str(out),
            expected="a new or empty folder, or nothing but an earlier pack",
            found=", ".join(strange[:5]),
            way_out="choose another --out, or move these files away",
        )


def _supplied(use_case: UseCase, root: Path) -> dict[str, Path]:
    found = {str(slot): root / text for slot, text in use_case.governance.documents.items()}
    for slot, path in found.items():
        if not path.is_file():
            raise NotFoundError(
                "a document for the technical documentation is missing",
                where=f"configs/{use_case.name}.yaml: governance.documents.{slot}",
                expected="a file, below the project's root",
                found=str(path),
                way_out="write it, or take the key out: the page then says `not provided`",
            )
    return found


def _files(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _zip(folder: Path, archive: Path) -> None:
    with new_file(archive) as work, zipfile.ZipFile(work, "w") as opened:
        for name in _files(folder):
            entry = zipfile.ZipInfo(f"{folder.name}/{name}", ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            opened.writestr(entry, (folder / name).read_bytes())
