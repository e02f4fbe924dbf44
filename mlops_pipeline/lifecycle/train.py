"""Training: from the feature table to an artifact folder that is named by the run's fingerprint.

    model/           text and JSON of the chosen candidate
    mitigated/       of the variant that took its place, when the gate refused it (evaluate.py)
    training.json    facts of the training: parts, candidates, choice, train figures
    train_sample.parquet  columns of a bounded sample of the training part, for the drift report
    evaluation.json, report.html, evidently.html  (evaluate.py)

It is written whole or not at all; the same run writes the same bytes. The documents of a registered
version have a folder of their own (release.py).
"""

import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from mlops_pipeline.core.data.frame import LabelledFrame, Parts, split_periods
from mlops_pipeline.core.data.periods import known_labels, no_label_yet
from mlops_pipeline.core.documents.records import TrainingFacts, from_plain, plain
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.core.recipe import train_candidates, training_facts
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.bookkeeping import get_pointer
from mlops_pipeline.lifecycle.champions import RELEASE, release_document
from mlops_pipeline.lifecycle.context import AcceptedSource, Context, RunContext, Snapshot
from mlops_pipeline.lifecycle.features import offline
from mlops_pipeline.lifecycle.ingest.accepted import (
    accepted_sources,
    register_accepted,
)
from mlops_pipeline.lifecycle.provenance import git_state, run_fingerprint
from mlops_pipeline.lifecycle.rollouts import list_rollouts
from mlops_pipeline.lifecycle.run_log import log_training
from mlops_pipeline.stores.files import write_json
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.models.files import pinned_digests, read_pinned, texts, write_files

SAMPLE_ROWS = 5_000  # of the training part, kept for the report of what changed
POINTER = "trained_model"
TRAINING, SAMPLE = "training.json", "train_sample.parquet"
EVALUATION = "evaluation.json"
FAR = datetime(9000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class StoredTraining:
    """A finished training, where its files are, and the plots of the chosen candidate."""

    facts: TrainingFacts
    folder: Path
    plots: Mapping[str, bytes]
    cost: str


@dataclass(frozen=True)
class TrainedModel:
    """The pointer to the newest training: its folder, digests of its files, what it was made of."""

    fingerprint: str
    folder: Path
    as_of: datetime
    mlflow_run_id: str
    accepted: Mapping[str, AcceptedSource]
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def snapshot(self) -> Snapshot:
        """What the training saw."""
        return Snapshot(self.as_of, self.accepted)


def train_model(run: RunContext, *, start_mlflow_run: Callable[[], str]) -> StoredTraining:
    """Train every candidate, choose one, store and log it; a registered fingerprint is final."""
    use_case, git = run.use_case, git_state(run.settings)
    as_of = datetime.fromisoformat(run.pointer("features", "features")["as_of"])
    snapshot = Snapshot(as_of, accepted_sources(run.ops, use_case))
    final = _registered(run, snapshot)
    if final is not None:
        return final
    frame, mlflow_run_id = offline.load_frame(run, snapshot), start_mlflow_run()
    parts, training = train_candidates(
        use_case,
        frame,
        threads=run.settings.threads,
        stopwatch=time.perf_counter,
        report=run.log.info,
    )
    fingerprint = run_fingerprint(use_case, snapshot)
    facts = training_facts(use_case, frame, parts, training, fingerprint=fingerprint, as_of=as_of)
    model = training.chosen.model
    folder = save_training(
        run.lake, facts, model, frame, parts, hidden=use_case.sensitive_features()
    )
    validation = frame.take(parts.validation)
    plots = log_training(
        run, mlflow_run_id, snapshot, facts, training.candidates, validation=validation, git=git
    )
    run.record_use(model.input_names, "training")
    files = pinned_digests(folder)
    pointer = TrainedModel(fingerprint, folder, as_of, mlflow_run_id, snapshot.accepted, files)
    _set_pointer(run, pointer)
    price = use_case.compute_cost
    cost = price.of(sum(item.seconds for item in training.candidates))
    return StoredTraining(facts, folder, plots, f"{cost:.4f} {price.currency}")


def is_registered(run: RunContext, fingerprint: str) -> bool:
    """Whether a complete version was made of this fingerprint, and its evidence is still there."""
    name = run.use_case.name
    is_made = any(item.fingerprint == fingerprint for item in list_rollouts(run.ops, name))
    if not is_made and get_pointer(run.ops, name, f"{RELEASE}{fingerprint}") is not None:
        is_made = run.models.find(fingerprint) is not None  # complete, and not deployed yet
    return is_made and (run.lake.artifact_folder(name, fingerprint) / EVALUATION).is_file()


def _registered(run: RunContext, snapshot: Snapshot) -> StoredTraining | None:
    """Return the training of a version that exists, as this run's; None when there is none."""
    use_case, fingerprint = run.use_case, run_fingerprint(run.use_case, snapshot)
    if not is_registered(run, fingerprint):
        return None
    run.log.info("this training is registered already: its evidence is final, nothing is repeated")
    folder = run.lake.artifact_folder(use_case.name, fingerprint)
    provenance = release_document(run.settings, use_case, fingerprint)["provenance"]
    files = {
        name: digest
        for name, digest in pinned_digests(folder).items()
        if name in (TRAINING, SAMPLE) or name.startswith("model/")
    }
    pointer = TrainedModel(
        *(fingerprint, folder, snapshot.as_of, str(provenance["mlflow_run_id"])),
        *(snapshot.accepted, files),
    )
    _set_pointer(run, pointer)
    return StoredTraining(read_facts(folder), folder, {}, f"0 {use_case.compute_cost.currency}")


def trained_model(run: RunContext) -> TrainedModel:
    """Return the newest training."""
    stored = run.pointer(POINTER, POINTER)
    folder = run.lake.artifact_folder(run.use_case.name, str(stored["fingerprint"]))
    return from_plain(TrainedModel, {**stored, "folder": str(folder)})


def _set_pointer(run: RunContext, trained: TrainedModel) -> None:
    """Move the pointer; where the lake is, is a setting's and not its."""
    document = plain(trained)
    del document["folder"]
    run.set_pointer(POINTER, document)


def save_training(
    lake: Lake,
    facts: TrainingFacts,
    model: ScoringModel,
    frame: LabelledFrame,
    parts: Parts,
    *,
    hidden: Collection[str],
) -> Path:
    """Write the artifact folder of a training, its sample without `hidden` columns; return it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with lake.new_artifacts(facts.use_case, facts.fingerprint) as folder:
        write_files(folder / "model", model.files)
        write_json(folder / TRAINING, plain(facts))
        rng = np.random.default_rng(0)
        rows = np.sort(rng.permutation(parts.train)[:SAMPLE_ROWS])
        sample = {  # each column sorted by itself: its distribution, and no row of anybody
            name: pa.array(values[rows], from_pandas=True).sort()
            for name, values in frame.columns.items()
            if name not in hidden
        }
        pq.write_table(pa.table(sample), folder / SAMPLE)
    return lake.artifact_folder(facts.use_case, facts.fingerprint)


def read_training(trained: TrainedModel) -> tuple[TrainingFacts, ScoringModel, Mapping[str, bytes]]:
    """Read what save_training wrote, and its files as they are; ModelFilesError if they changed."""
    way_out = "materialize trained_model again"
    files = read_pinned(trained.folder, trained.files, way_out=way_out)
    facts = from_plain(TrainingFacts, json.loads(files[TRAINING]))
    return facts, ScoringModel.of_files(texts(files, "model/")), files


def read_facts(folder: Path) -> TrainingFacts:
    """Read the facts of a training, also beside the documents of a version that was made of it."""
    path = folder / TRAINING
    if not path.is_file():
        raise NotFoundError(
            "the trained model's files are gone",
            where=str(folder),
            way_out="materialize trained_model again",
        )
    return from_plain(TrainingFacts, json.loads(path.read_text(encoding="utf-8")))


def refuse_untrainable(context: Context, snapshot: Snapshot) -> None:
    """Raise the error in which a training would end, before a period of features is built."""
    use_case = context.use_case
    tables = register_accepted(context, snapshot.accepted)
    every = offline.use_case_periods(context, snapshot.as_of)
    labelled = offline.periods_with_labels(context, snapshot)
    if every and not labelled:
        raise no_label_yet(use_case, every[0], snapshot.as_of)
    if use_case.label.kind == "column":
        labels = context.engine.compile(known_labels(use_case, tables, FAR))
        first = context.engine.query(f"SELECT min(known_at) FROM ({labels})")[0][0]
        if first is not None and first.replace(tzinfo=UTC) > snapshot.as_of:
            raise no_label_yet(use_case, every[0], snapshot.as_of, first.replace(tzinfo=UTC))
    if use_case.split.method == "time" and every:
        done = offline.finished_periods(context)  # an empty one is no part of a split
        kept = [item for item in labelled if item.name not in done or done[item.name].rows]
        split_periods(use_case, kept)
