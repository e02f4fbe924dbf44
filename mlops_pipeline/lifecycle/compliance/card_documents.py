"""The documents of a version that its model card is made of, and the card's two files.

Belongs here: reading and writing them in one folder. What the card says is
core/documents/model_card.py's, where a version stands now is cards.py's.
"""

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from mlops_pipeline.config import parse_use_case
from mlops_pipeline.core.documents.changes import Recorded
from mlops_pipeline.core.documents.metadata import Metadata
from mlops_pipeline.core.documents.model_card import CardFacts, Standing, model_card
from mlops_pipeline.core.documents.pages import render_html
from mlops_pipeline.core.documents.records import (
    DataSnapshot,
    EvaluatedTraining,
    ModelFacts,
    TrainingFacts,
    from_plain,
)
from mlops_pipeline.errors import NotFoundError

T = TypeVar("T")
CONFIG, MODEL_FACTS = "configuration.json", "card_facts.json"
MARKDOWN, HTML = "model_card.md", "model_card.html"


def write_card(folder: Path, *, now: datetime) -> None:
    """Write the card of a version that is being registered, beside its documents."""
    text = model_card(read_facts(folder, now=now))
    (folder / MARKDOWN).write_text(text, encoding="utf-8")
    (folder / HTML).write_text(render_html(text), encoding="utf-8")


def read_facts(folder: Path, *, now: datetime, standing: Standing | None = None) -> CardFacts:
    """Read the documents of a version.

    Raises
    ------
    NotFoundError
        When one is missing: it was removed, or the version is older than model cards.
    """
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
