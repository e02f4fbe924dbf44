"""The technical documentation of a version as a folder, a zip of it, and a list of hashes.

    <folder>/README.md, index.html   what is filled and what is not, point by point
    <folder>/model_card.*            the card as it stands now
    <folder>/report.html ...         documents of the version
    <folder>/approvals.json          state, approvals, history, reviews
    <folder>/audit.jsonl             the audit events of the use case
    <folder>/documents/              what people supplied (`governance.documents`)
    <folder>/SHA256SUMS              of every other file; `sha256sum -c` reads it
    <folder>.zip                     the same, byte for byte the same for the same files

Belongs here: files. What the pages say is core/documents/model_card.py's.
"""

import hashlib
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.documents.model_card import (
    Standing,
    Status,
    model_card,
    statuses,
    technical_file,
)
from mlops_pipeline.core.documents.records import plain
from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.lifecycle.compliance.anchors import exported_lines
from mlops_pipeline.lifecycle.compliance.cards import HTML, MARKDOWN, present_version, write_page
from mlops_pipeline.stores.files import new_file, new_folder, write_json
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

DOCUMENTS = (
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


@dataclass(frozen=True)
class Pack:
    """A written pack: how many points of the annex have which status."""

    version: int
    archive: Path
    files: int
    points: Mapping[Status, int]


def write_pack(
    ops: OpsDatabase,
    settings: Settings,
    use_case: UseCase,
    version: int | None,
    out: Path,
    *,
    now: datetime,
) -> Pack:
    """Write the technical documentation of a version; of the champion when none is named.

    The folder appears whole or not at all, and replaces an earlier pack.
    """
    out = out.absolute()
    archive = out.with_name(f"{out.name}.zip")
    _check_ours(out, archive)
    supplied = _supplied(use_case, settings.root)
    found = present_version(ops, settings, use_case, version, now=now)
    provided = {slot: f"documents/{slot}{path.suffix}" for slot, path in supplied.items()}
    card, index = model_card(found.facts), technical_file(found.facts, provided)
    out.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(out) as work:
        for name in DOCUMENTS:
            shutil.copy(found.folder / name, work / name)
        for slot, path in supplied.items():
            (work / "documents").mkdir(exist_ok=True)
            shutil.copy(path, work / provided[slot])
        write_page(work, card, MARKDOWN, HTML)
        write_page(work, index, "README.md", "index.html")
        write_json(work / "approvals.json", _standing(found.facts.standing))
        events = exported_lines(settings, use_case.name)
        (work / "audit.jsonl").write_text("".join(f"{line}\n" for line in events), encoding="ascii")
        write_json(work / "features.json", _features(found.facts.use_case), is_sorted=False)
        (work / "configuration.yaml").write_text(_yaml(found.facts.use_case), encoding="utf-8")
        (work / SUMS).write_text(_sums(work), encoding="utf-8")
    _zip(out, archive)
    return Pack(found.facts.metadata.version, archive, len(_files(out)), statuses(provided))


def _check_ours(out: Path, archive: Path) -> None:
    listed = set()
    if (out / SUMS).is_file():
        lines = (out / SUMS).read_text(encoding="utf-8").splitlines()
        listed = {SUMS, *(line.split("  ", 1)[1] for line in lines)}
    strange = [name for name in _files(out) if name not in listed] if out.is_dir() else []
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
    found = {slot: root / text for slot, text in use_case.governance.documents.items()}
    for slot, path in found.items():
        if not path.is_file():
            raise NotFoundError(
                "a document for the technical documentation is missing",
                where=f"configs/{use_case.name}.yaml: governance.documents.{slot}",
                expected="a file, below the project's root",
                found=str(path),
                way_out="write it, or take the key out: the page then says `not provided`",
            )
    return {str(slot): path for slot, path in found.items()}


def _standing(standing: Standing | None) -> dict[str, Any]:
    if standing is None or standing.cost is None:
        raise StateError("a pack needs the present state of its version")
    return {**plain(standing), "cost": standing.cost.to_dict()}


def _features(use_case: UseCase) -> dict[str, Any]:
    return use_case.model_dump(mode="json", include={"entity", "views", "derived", "protected"})


def _yaml(use_case: UseCase) -> str:
    document = use_case.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def _files(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _sums(folder: Path) -> str:
    lines = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}"
        for name in _files(folder)
    ]
    return "\n".join(lines) + "\n"


def _zip(folder: Path, archive: Path) -> None:
    with new_file(archive) as work, zipfile.ZipFile(work, "w") as opened:
        for name in _files(folder):
            entry = zipfile.ZipInfo(f"{folder.name}/{name}", ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            opened.writestr(entry, (folder / name).read_bytes())
