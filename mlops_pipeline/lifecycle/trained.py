"""The artifacts of one training and its evaluation: a folder named by the run's fingerprint.

    model/           text and JSON of the chosen candidate
    mitigated/       of the variant that took its place, when the gate refused it (mitigated.py)
    training.json    facts of the training: parts, candidates, choice, train figures
    train_sample.parquet  columns of a bounded sample of the training part, for the drift report
    evaluation.json, report.html, evidently.html

It is written whole or not at all; the same run writes the same bytes. The documents of a registered
version have a folder of their own (release.py).
"""

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.data.splits import PARTS, Parts
from mlops_pipeline.core.documents.records import (
    CandidateFacts,
    PartFacts,
    TrainingFacts,
    from_plain,
    plain,
)
from mlops_pipeline.core.metrics.metrics import Estimate, point_metrics
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.core.modelling.train import Training, train_maxima
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.stores.lake.tables import Lake

FIGURE_ROWS = 200_000  # of the training part, for its metrics: their error is far below any gap
SAMPLE_ROWS = 5_000  # of the training part, kept for the report of what changed


def training_facts(
    use_case: UseCase,
    frame: LabelledFrame,
    parts: Parts,
    training: Training,
    *,
    fingerprint: str,
    as_of: datetime,
) -> TrainingFacts:
    """Collect the facts of a finished training."""
    chosen = training.chosen
    return TrainingFacts(
        use_case=use_case.name,
        fingerprint=fingerprint,
        as_of=as_of,
        chosen=chosen.name,
        reason=training.choice.reason,
        candidates=tuple(
            CandidateFacts(
                name=item.name,
                kind=item.model.kind,
                trees=item.fitted.trees,
                seconds=item.seconds,
                validation_log_loss=item.validation_log_loss,
                validation={name: figure.value for name, figure in item.validation.items()},
            )
            for item in training.candidates
        ),
        parts={
            name: PartFacts(
                periods=tuple(parts.periods[name]),
                rows=len(getattr(parts, name)),
                positive_rate=float(np.mean(frame.label[getattr(parts, name)])),
            )
            for name in PARTS
        },
        purged=parts.purged,
        labelled_rows=len(frame),
        dropped_inputs=dict(training.inputs.dropped),
        train_metrics=train_figures(chosen.model, frame, parts, use_case.training.seed),
        train_maxima=dict(train_maxima(chosen.model, frame, parts)),
        importance=dict(chosen.fitted.importance),
    )


def train_figures(
    model: ScoringModel, frame: LabelledFrame, parts: Parts, seed: int
) -> dict[str, Estimate]:
    """Return a model's metrics on the training part."""
    rng = np.random.default_rng(seed)
    rows = frame.take(np.sort(rng.permutation(parts.train)[:FIGURE_ROWS]))
    decided = model.decide(rows.everything)
    return point_metrics(rows.label, decided.probability, decided.threshold)


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
        (folder / "model").mkdir()
        model.write(folder / "model")
        write_json(folder / "training.json", plain(facts))
        rng = np.random.default_rng(0)
        rows = np.sort(rng.permutation(parts.train)[:SAMPLE_ROWS])
        sample = {  # each column sorted by itself: its distribution, and no row of anybody
            name: pa.array(values[rows], from_pandas=True).sort()
            for name, values in frame.columns.items()
            if name not in hidden
        }
        pq.write_table(pa.table(sample), folder / "train_sample.parquet")
    return lake.artifact_folder(facts.use_case, facts.fingerprint)


def read_training(folder: Path) -> tuple[TrainingFacts, ScoringModel]:
    """Read what save_training wrote.

    Raises
    ------
    NotFoundError
        When the folder is not there.
    """
    path = folder / "training.json"
    if not path.is_file():
        raise NotFoundError(
            "the trained model's files are gone",
            where=str(folder),
            way_out="materialize trained_model again",
        )
    facts = from_plain(TrainingFacts, json.loads(path.read_text(encoding="utf-8")))
    return facts, ScoringModel.read(folder / "model")


def write_json(path: Path, document: Mapping[str, Any], *, is_sorted: bool = True) -> None:
    """Write JSON atomically; canonical, with sorted keys, unless their order means something."""
    work = path.with_suffix(".partial")
    text = json.dumps(document, sort_keys=is_sorted, indent=1, allow_nan=False, default=str)
    work.write_text(text + "\n", encoding="utf-8")
    work.replace(path)
