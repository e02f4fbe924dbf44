"""What the ledger pins, held against what lies outside of it: files, and MLflow's registry.

Belongs here: what `mlops audit verify` looks at besides the chain and the rows (anchors.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path

from mlops_pipeline.core.rollout.approvals import approval_state
from mlops_pipeline.core.rollout.records import MEANINGS, Approval, Rollout
from mlops_pipeline.lifecycle.champions import RELEASE, undecided
from mlops_pipeline.lifecycle.table_pins import TABLES
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
    open_tracking,
)
from mlops_pipeline.stores.ops import LifecycleRun, OpsDatabase, Pointer
from mlops_pipeline.stores.settings import Settings

NOTE_OF_LOADING = "registered_model_meta"  # MLflow leaves it beside a version that it loads
OF_TRAINING = ("trained_model", "evaluation")  # pointers that pin files of a training's folder


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
