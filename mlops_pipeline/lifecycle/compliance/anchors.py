"""Anchoring the audit chain outside the database, and verifying it against the anchors.

    <folder of the lake>/../audit/anchors.jsonl   append-only, each line hashed into the next
    MLflow, experiment `audit-anchors`            a tag `audit.anchor.<count>` for each line

Belongs here: reading and writing the two witnesses, and what the ledger pins, held against files
and MLflow's registry. What they mean is in core/audit/.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.audit.anchors import (
    GENESIS,
    canonical,
    check_anchors,
    line_hash,
    read_line,
    tag_value,
)
from mlops_pipeline.core.audit.chain import ChainCheck, RecordCheck, time_text
from mlops_pipeline.core.rollout.approvals import approval_state
from mlops_pipeline.core.rollout.machine import replay
from mlops_pipeline.core.rollout.records import MEANINGS, Approval, Rollout
from mlops_pipeline.errors import StateError
from mlops_pipeline.lifecycle.alerts import NewAlert, raise_alert
from mlops_pipeline.lifecycle.champions import RELEASE, undecided
from mlops_pipeline.lifecycle.ingest.accepted import TABLES
from mlops_pipeline.stores.files import file_digests
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.models.address import is_in_use
from mlops_pipeline.stores.models.files import pinned_digests
from mlops_pipeline.stores.models.mlflow import (
    ALIASES,
    APPROVAL,
    COMPLETE,
    FINGERPRINT,
    RegisteredVersion,
    Registry,
    Tracking,
    open_tracking,
)
from mlops_pipeline.stores.ops import LifecycleRun, OpsDatabase, Pointer, audit
from mlops_pipeline.stores.ops.tables import AUDITED_KINDS
from mlops_pipeline.stores.settings import Settings

EXPERIMENT = "audit-anchors"  # no use case can be called this
TAG = "audit.anchor."
LOOKS, BETWEEN_LOOKS_S = 4, 0.25  # telling MLflow takes a fraction of a second
BROKEN = "audit_chain_broken"  # the kind of the alert
NOTE_OF_LOADING = "registered_model_meta"  # MLflow leaves it beside a version that it loads
OF_TRAINING = ("trained_model", "evaluation")  # pointers that pin files of a training's folder


def anchor_chain(
    ops: OpsDatabase, settings: Settings, use_case: UseCase, *, reason: str, now: datetime
) -> None:
    """Write count and head of the chain into the file and MLflow; nothing new writes nothing.

    What an earlier, killed process did not tell MLflow is told now. Nothing that MLflow has is
    changed. An alert is raised if the chain is not the one that was anchored last.
    """
    path = anchors_file(settings)
    with ops.write("audit_anchor") as tx:  # one process at a time writes them
        count, head = tx.audit_head()
        lines = anchor_lines(path)
        last = read_line(lines[-1]) if lines else None
        if count and (last is None or (last["count"], last["head"]) != (count, head)):
            previous = line_hash(lines[-1]) if lines else GENESIS
            line = canonical(
                {"at": time_text(now), "count": count, "head": head,
                 "mlflow": is_in_use(settings), "previous": previous, "reason": reason}
            ).encode()  # fmt: skip
            _append(path, line)
            lines.append(line)
    if is_in_use(settings):  # if not, a later anchor tells it of this one, too
        _tell_mlflow(settings, lines)
    if last is not None and ops.audit_hash(last["count"]) != last["head"]:
        message = f"the audit chain is not the one that was anchored at {last['count']} events"
        action = "mlops audit verify; see docs/runbook.md"
        alert = NewAlert(BROKEN, "error", message, action, dedupe_key=BROKEN)
        raise_alert(ops, use_case.name, alert, now=now)


def verify_audit(settings: Settings) -> tuple[ChainCheck, int]:
    """Read the chain, the rows it vouches for and all anchors; return the check, and how many."""
    lines, told = _witnesses(settings)
    anchors, wrong = check_anchors(lines, told)
    check = ChainCheck(anchors)
    for text in wrong:
        check.report(text)
    with OpsDatabase.open(settings.database_url) as ops:
        verify_rows(ops, check, chain(_impossible_changes(ops), altered_evidence(ops, settings)))
    return check, len(lines)


def _witnesses(settings: Settings) -> tuple[list[bytes], dict[int, str]]:
    """Return the file's lines and what MLflow was told, read first: a run may be anchoring."""
    tracking = open_tracking(settings, EXPERIMENT) if is_in_use(settings) else None
    told = _told(tracking) if tracking else {}
    lines = anchor_lines(anchors_file(settings))
    newest = read_line(lines[-1]) if lines else None
    for _ in range(LOOKS):
        if tracking is None or newest is None or newest["count"] in told:
            break
        time.sleep(BETWEEN_LOOKS_S)
        told = _told(tracking)
    return lines, told


def verify_rows(ops: OpsDatabase, check: ChainCheck, beside: Iterable[str] = ()) -> None:
    """Read the chain, its rows and what guards them; add what is wrong `beside`; end the check."""
    known, _ = ops.audit_head()
    rows = audit.stored_records(ops), audit.stored_digests(ops)
    records = RecordCheck(*rows, known, AUDITED_KINDS, check.report)
    for event in audit.stored_events(ops):
        check.add(event)
        records.add(event)
    for text in (*audit.altered_guards(ops), *beside):
        check.report(text)
    check.finish()
    records.finish()


def _impossible_changes(ops: OpsDatabase) -> Iterator[str]:
    """Yield the rollouts whose recorded changes the machine would not have made."""
    for row, changes in audit.recorded_changes(ops):
        name = f"version {row.version} of {row.use_case}"
        try:
            state, stage = replay(changes, json.loads(row.stages))
        except (StateError, ValueError, TypeError) as error:
            yield f"{name} has changes that nobody could make: {error}"
            continue
        if (state, stage) != (row.state, row.stage):
            yield (f"{name} is in state {row.state}, stage {row.stage}; "
                   f"its changes lead to {state}, stage {stage}")  # fmt: skip


def exported_lines(settings: Settings, use_case: str | None = None) -> Iterator[str]:
    """Yield each event as a line of canonical JSON, as stored."""
    with OpsDatabase.open(settings.database_url) as ops:
        for event in audit.stored_events(ops):
            if use_case is None or event.use_case == use_case:
                yield canonical(event.document())


def anchors_file(settings: Settings) -> Path:
    """Return where the anchors lie: beside the lake."""
    return Lake(settings.lake_uri).local().parent / "audit" / "anchors.jsonl"


def anchor_lines(path: Path) -> list[bytes]:
    """Return the lines of the file, the last one also when it is cut; none if it is not there."""
    return path.read_bytes().removesuffix(b"\n").split(b"\n") if path.exists() else []


def anchored_events(settings: Settings) -> int:
    """Return how many events of the chain the newest whole line of the file covers."""
    lines = map(read_line, reversed(anchor_lines(anchors_file(settings))))
    return next((int(line["count"]) for line in lines if line), 0)


def _append(path: Path, line: bytes) -> None:
    """Write a line through to the disk; one that was cut by a crash is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_cut = path.exists() and not path.read_bytes().endswith(b"\n")
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "ab") as file:
        file.write(b"\n" * is_cut + line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _tell_mlflow(settings: Settings, lines: list[bytes]) -> None:
    tracking = open_tracking(settings, EXPERIMENT)
    told = _told(tracking)
    for line in lines:
        said = read_line(line)
        if said is not None and said["count"] not in told:
            key = f"{TAG}{said['count']:012}"
            tracking.client.set_experiment_tag(tracking.experiment_id, key, tag_value(line, said))


def _told(tracking: Tracking) -> dict[int, str]:
    tags: dict[str, Any] = tracking.client.get_experiment(tracking.experiment_id).tags
    return {
        int(key.removeprefix(TAG)): str(value)
        for key, value in tags.items()
        if key.startswith(TAG) and key.removeprefix(TAG).isdigit()
    }


def altered_evidence(ops: OpsDatabase, settings: Settings) -> Iterator[str]:
    """Yield what is not as the ledger says."""
    lake, pins = Lake(settings.lake_uri), ops.all(Pointer)
    for pin in pins:
        if pin.name.startswith(RELEASE):
            folder = lake.documents_folder(pin.use_case, pin.name.removeprefix(RELEASE))
            yield from _differences(str(folder), pin.value["files"], pinned_digests(folder))
        elif pin.name in OF_TRAINING:
            folder, files = lake.artifact_folder(pin.use_case, pin.value["fingerprint"]), pin.value
            found = {name: digest for name, digest in pinned_digests(folder).items()
                     if name in files["files"]}  # fmt: skip
            yield from _differences(str(folder), files["files"], found)
        elif pin.name == TABLES:
            for name, table in pin.value.items():
                folder = Path(lake.table_uri(pin.use_case, name))
                found = file_digests(folder, table["files"])
                yield from _differences(str(folder), table["files"], found)
    names = sorted({item.use_case for item in ops.all(Rollout)})
    yield from chain.from_iterable(undecided(ops, name) for name in names)
    if is_in_use(settings):
        packages = {
            (pin.use_case, pin.name.removeprefix(RELEASE)): pin.value["package"]
            for pin in pins
            if pin.name.startswith(RELEASE)
        }
        for name in names:
            yield from _registry(ops, settings, name, packages)


def _registry(
    ops: OpsDatabase,
    settings: Settings,
    name: str,
    packages: Mapping[tuple[str, str], Mapping[str, str]],
) -> Iterator[str]:
    """Yield where MLflow shows a use case otherwise than the ledger does."""
    rollouts, approvals = ops.all(Rollout, use_case=name), ops.all(Approval, use_case=name)
    newest = ops.find(Pointer, use_case=name, name="registry")
    held, versions = Registry(open_tracking(settings, name), name).shown()
    states = {item.version: item.state for item in rollouts}
    wanted = {ALIASES[state]: number for number, state in states.items() if state in ALIASES}
    if newest is not None and newest.value["version"] not in states:
        wanted[ALIASES["awaiting_approval"]] = newest.value["version"]
    for alias in sorted(ALIASES.values()):
        if held.get(alias) != wanted.get(alias):
            yield (f"MLflow's alias {alias} of {name} names {held.get(alias)}, the ledger says "
                   f"{wanted.get(alias)}")  # fmt: skip
    made = {rollout.fingerprint for rollout in rollouts}
    for number, shown in versions.items():
        mark = shown.tags.get(FINGERPRINT, "")  # one without a rollout may be just complete
        if number not in states and (mark in made or (name, mark) not in packages):
            yield f"MLflow has a version {number} of {name} that the ledger does not know"
    for rollout in rollouts:
        what, version = f"version {rollout.version} of {name}", versions.get(rollout.version)
        if version is None:
            yield f"MLflow has no complete {what}"
            continue
        yield from _version(what, rollout, version, approvals, now=settings.now())
        run = ops.find(LifecycleRun, use_case=name, run_id=rollout.dagster_run_id)
        if run is not None and version.tags.get("as_of") != run.as_of.isoformat():
            yield f"MLflow's as_of of {what} is not that of its run"
        package = packages.get((name, rollout.fingerprint))
        if package is not None:
            found = {
                file: digest
                for file, digest in pinned_digests(version.model_folder).items()
                if file != NOTE_OF_LOADING
            }
            yield from _differences(f"MLflow's files of {what}", package, found)


def _version(
    what: str,
    rollout: Rollout,
    version: RegisteredVersion,
    approvals: Sequence[Approval],
    *,
    now: datetime,
) -> Iterator[str]:
    """Yield tags and links of a version that the ledger does not bear out."""
    # an approval of trials that ended by itself shows until the next projection
    states = {approval_state(rollout, approvals, now=at) for at in (now, rollout.changed_at)}
    states.add(MEANINGS[rollout.state].approval)
    if version.tags.get(APPROVAL) not in states:
        yield f"MLflow shows {what} as {version.tags.get(APPROVAL)}, the ledger does not"
    wanted = {FINGERPRINT: rollout.fingerprint, COMPLETE: "true"}
    wanted |= {key: getattr(rollout, key) for key in ("mlflow_run_id", "dagster_run_id")}
    for key, value in wanted.items():
        if version.tags.get(key) != value:
            yield f"MLflow's {key} of {what} is not the rollout's"
    if version.mlflow_run_id != rollout.mlflow_run_id:
        yield f"MLflow's run of {what} is not the rollout's"
    document = f"{rollout.fingerprint}-release/metadata.json"  # where the lake is, a setting says
    if not str(version.tags.get("metadata_uri")).endswith(f"/{document}"):
        yield f"MLflow's metadata_uri of {what} does not lead to {document}"
    if not version.is_in_place:
        yield f"MLflow's addresses of {what} lead to different places"


def _differences(where: str, pinned: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*pinned, *found}):
        if pinned.get(name) != found.get(name):
            was = "gone" if name not in found else "altered" if name in pinned else "put there"
            yield f"{where}: {name} is {was}"
