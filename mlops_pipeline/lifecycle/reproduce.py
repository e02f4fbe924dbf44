"""Building a registered version again from what was recorded, and comparing the bytes.

Features are computed anew, from the recorded versions of the raw tables, in a scratch lake; then
training, choice and refit run as they did. What differs between then and now (code, lock, machine)
is named, and does not stop the comparison: the bytes decide. Data that are gone stop it.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from mlops_pipeline.config import UseCase, config_hash
from mlops_pipeline.core.documents.records import EvaluatedTraining, Metadata, from_plain
from mlops_pipeline.core.fairness.variants import Mitigated
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.core.recipe import build
from mlops_pipeline.errors import MlopsError, NotFoundError
from mlops_pipeline.lifecycle.champions import MODEL
from mlops_pipeline.lifecycle.context import AcceptedSource, Context, Snapshot
from mlops_pipeline.lifecycle.features.offline import build_features, load_frame
from mlops_pipeline.lifecycle.provenance import (
    environment_lock,
    git_state,
    hardware,
    run_fingerprint,
)
from mlops_pipeline.lifecycle.release import read_metadata
from mlops_pipeline.stores.files import scratch_folder
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.models.files import digests, pinned_digests
from mlops_pipeline.stores.models.mlflow import Registry
from mlops_pipeline.stores.settings import Settings

SHARED_LAYERS = ("raw", "quarantine")  # read from the real lake, at recorded versions
SHOWN_PACKAGES = 5  # of those whose locked version changed


@dataclass(frozen=True)
class InputCheck:
    """One recorded input beside what is here; `is_same` is None where it cannot be told."""

    name: str
    recorded: str
    here: str
    is_same: bool | None


@dataclass(frozen=True)
class Reproduction:
    """How a rebuilt version compares, file by file: name -> sha256 recorded, rebuilt."""

    use_case: str
    version: int
    inputs: tuple[InputCheck, ...]
    files: Mapping[str, tuple[str, str]]

    @property
    def is_identical(self) -> bool:
        """Whether every file of the model has the same bytes."""
        return all(recorded == rebuilt for recorded, rebuilt in self.files.values())

    @property
    def different(self) -> tuple[str, ...]:
        """The inputs that differ from the recorded ones."""
        return tuple(item.name for item in self.inputs if item.is_same is False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "use_case": self.use_case,
            "version": self.version,
            "is_identical": self.is_identical,
            "inputs": [asdict(item) for item in self.inputs],
            "files": {
                name: {"recorded": recorded, "rebuilt": rebuilt}
                for name, (recorded, rebuilt) in self.files.items()
            },
        }


@dataclass(frozen=True)
class _Record:
    """What a version's documents say it was made from."""

    use_case: UseCase
    snapshot: Snapshot
    metadata: Metadata
    lock: str
    model_folder: Path
    mitigation: Mitigated | None


def reproduce(context: Context, version: int, *, report: Callable[[str], None]) -> Reproduction:
    """Build a registered version again, compare it with what is stored, and record the outcome."""
    try:
        done = _reproduce(context, version, report)
    except MlopsError as error:
        _record(context, version, identical=False, failed=type(error).__name__)
        raise
    _record(context, version, identical=done.is_identical, differ=done.different)
    return done


def _record(context: Context, version: int, **outcome: object) -> None:
    context.ops.append_audit(
        "reproduced",
        {"version": version, **outcome},
        use_case=context.use_case.name,
        actor="mlops reproduce",
        now=context.settings.now(),
    )


def _reproduce(context: Context, version: int, report: Callable[[str], None]) -> Reproduction:
    record = _read(context.models, version)
    inputs = _inputs(record, context.settings)
    with _scratch(context, record.use_case) as scratch:
        for source, accepted in record.snapshot.accepted.items():
            _check_files(scratch, source, accepted)
        report(f"computing features from {len(record.snapshot.accepted)} recorded tables")
        build_features(scratch, record.snapshot)
        rebuilt = build(
            record.use_case,
            partial(load_frame, scratch, record.snapshot),
            mitigation=record.mitigation,
            threads=scratch.settings.threads,
            stopwatch=time.perf_counter,
            report=report,
        )
    files = _compare(record, rebuilt.model)
    return Reproduction(context.use_case.name, version, inputs, files)


def _read(registry: Registry, version: int) -> _Record:
    found = registry.get(version)
    documents = Path(found.tags["metadata_uri"]).parent
    snapshot = json.loads(_text(documents / "data_snapshot.json"))
    evaluated = json.loads(_text(documents / "evaluation.json"))
    sources = snapshot["sources"].items()
    return _Record(
        use_case=UseCase.model_validate_json(_text(documents / "configuration.json")),
        snapshot=Snapshot(
            datetime.fromisoformat(snapshot["as_of"]),
            {name: AcceptedSource.from_dict(item) for name, item in sources},
        ),
        metadata=read_metadata(documents),
        lock=_text(documents / "requirements.lock"),
        model_folder=documents / MODEL,
        mitigation=from_plain(EvaluatedTraining, evaluated).evaluation.mitigation,
    )


def _text(path: Path) -> str:
    if not path.is_file():
        raise NotFoundError(
            "a document of the version is gone",
            where=str(path),
            way_out="restore it from a backup of the lake (all but configuration.json and "
            "training.json are also in the version's MLflow artifacts, folder `release`)",
        )
    return path.read_text(encoding="utf-8")


def _inputs(record: _Record, settings: Settings) -> tuple[InputCheck, ...]:
    provenance = record.metadata.provenance
    git = git_state(settings)
    fingerprint = run_fingerprint(record.use_case, record.snapshot)
    recorded_machine, machine = provenance.hardware, hardware(settings)
    pairs = {
        "configuration": (provenance.config_hash, config_hash(record.use_case)),
        "commit": (
            _commit(provenance.git_commit, dirty=provenance.git_dirty),
            _commit(git.commit, dirty=git.is_dirty),
        ),
        "data, configuration, code and seed together": (provenance.run_fingerprint, fingerprint),
        "machine": tuple(
            f"{item['machine']} {item['system']} Python {item['python']}"
            for item in (recorded_machine, machine)
        ),
    }
    checks = [InputCheck(name, then, now, then == now) for name, (then, now) in pairs.items()]
    lock = environment_lock(settings.root)
    return (*checks, InputCheck("lock", *_locks(record.lock, lock), record.lock == lock))


def _commit(commit: str, *, dirty: bool) -> str:
    return f"{commit[:12]}{' with uncommitted changes' if dirty else ''}"


def _locks(recorded: str, here: str) -> tuple[str, str]:
    """Return what differs between two lock files, package by package."""
    then, now = (
        {line.split("==")[0]: line.split()[0] for line in text.splitlines() if "==" in line}
        for text in (recorded, here)
    )
    names = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    shown = names[:SHOWN_PACKAGES]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    said = [
        ", ".join(item.get(name, f"no {name}") for name in shown) + more for item in (then, now)
    ]
    if not names:
        said = [hashlib.sha256(text.encode()).hexdigest()[:12] for text in (recorded, here)]
    return said[0], said[1]


class _ScratchLake(Lake):
    """A lake whose raw tables are those of another one; everything else is its own."""

    def __init__(self, uri: str, source: Lake) -> None:
        super().__init__(uri)
        self._source = source

    def table_uri(self, use_case: str, layer: str, name: str = "") -> str:
        """Return the address of a table."""
        if layer in SHARED_LAYERS:
            return self._source.table_uri(use_case, layer, name)
        return super().table_uri(use_case, layer, name)


@contextmanager
def _scratch(context: Context, use_case: UseCase) -> Iterator[Context]:
    with scratch_folder(context.settings.data_dir) as folder:
        settings = replace(context.settings, lake_uri=str(folder))
        lake = _ScratchLake(str(folder), context.lake)
        yield replace(context, use_case=use_case, settings=settings, lake=lake)


def _check_files(context: Context, source: str, accepted: AcceptedSource) -> None:
    tables = {"raw": accepted.version, "quarantine": accepted.quarantine_version}
    for layer, version in tables.items():
        if version is None:
            continue
        uri = context.lake.table_uri(context.use_case.name, layer, source)
        state = context.lake.state(uri, version)
        files = () if state is None else state.files
        gone = [file for file in files if "://" not in file and not Path(file).is_file()]
        if state is None or gone:
            raise NotFoundError(
                f"the recorded data of source {source} are gone",
                where=f"{uri}, version {version}",
                expected=f"{len(files)} files" if state else "a table",
                found=f"{len(gone)} of them removed" if state else "none",
                way_out="restore them from a backup; after an erasure the version cannot be "
                "rebuilt (docs/security.md)",
            )


def _compare(record: _Record, rebuilt: ScoringModel) -> dict[str, tuple[str, str]]:
    """Compare digests with those that were released; name a stored file that has changed since."""
    released, stored = record.metadata.model_files, pinned_digests(record.model_folder)
    made = digests(rebuilt.files)
    pairs = {name: (released.get(name), made.get(name)) for name in {*released, *made}}
    for name in {*released, *stored}:
        if released.get(name) != stored.get(name):
            pairs[f"{name} as it is stored now"] = (released.get(name), stored.get(name))
    return {
        name: (was or "(none)", found or "(none)") for name, (was, found) in sorted(pairs.items())
    }
