"""What changed from one version to the next, in sentences: the changelog of a model card."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlops_pipeline.core.documents.pages import metric_title, number, signed
from mlops_pipeline.core.documents.records import TrainingFacts
from mlops_pipeline.core.evaluation.evaluation import Evaluation

SHOWN_KEYS = 20  # of the configuration; beyond, only their number
METRICS = ("roc_auc", "pr_auc", "log_loss", "brier", "ece")


@dataclass(frozen=True)
class Recorded:
    """The documents of a version that its successor is compared with."""

    version: int
    config: Mapping[str, Any]
    inputs: frozenset[str]
    training: TrainingFacts
    evaluation: Evaluation


def changes(new: Recorded, old: Recorded | None) -> list[str]:
    """Return the differences of a version from the champion that it was compared with."""
    if old is None:
        return ["This is the first version."]
    return [
        f"Compared with version {old.version}.",
        _kind(new.training.kind, old.training.kind),
        _mitigation(new.evaluation, old.evaluation),
        f"Data known on {new.training.as_of:%Y-%m-%d} instead of {old.training.as_of:%Y-%m-%d}.",
        *_figures(new, old),
        *_features(new, old),
        *_keys(new, old),
    ]


def _kind(new: str, old: str) -> str:
    if new == old:
        return f"The same kind of model: {new}."
    return f"Another kind of model: {new} instead of {old}."


def _mitigation(new: Evaluation, old: Evaluation) -> str:
    """Say whether the two were mitigated for fairness, and decide, in the same way."""
    ours, theirs = (
        (side.mitigation and side.mitigation.chosen) or "no mitigation" for side in (new, old)
    )
    if ours == theirs:
        return f"Fairness: {ours}, as before."
    return f"Fairness: {ours} instead of {theirs}: the two decide by other weights or thresholds."


def _figures(new: Recorded, old: Recorded) -> Iterator[str]:
    for name in METRICS:
        ours, theirs = (side.evaluation.metrics[name].value for side in (new, old))
        both = f"{_number(ours)}, version {old.version} {_number(theirs)}"
        yield f"{metric_title(name)} {both}; each on its own test part."
    found = new.evaluation.champion
    if found is None or found.version != old.version:
        return
    if found.reason is not None:
        yield f"On the same cases the two cannot be compared: {found.reason}."
        return
    differences = [
        f"{metric_title(name)} {signed(value)}"
        for name in METRICS
        if name in found.differences and (value := found.differences[name].value) is not None
    ]
    yield f"On {found.rows:,} cases that neither had seen: {', '.join(differences)}."


def _features(new: Recorded, old: Recorded) -> Iterator[str]:
    for word, names in (("Added", new.inputs - old.inputs), ("Removed", old.inputs - new.inputs)):
        if names:
            yield f"{word} inputs: {', '.join(sorted(names))}."
    if new.inputs == old.inputs:
        yield "The same inputs."


def _keys(new: Recorded, old: Recorded) -> Iterator[str]:
    ours, theirs = dict(_flat(new.config)), dict(_flat(old.config))
    changed = (k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    names = sorted({_shown(key) for key in changed})
    if not names:
        yield "The same configuration."
        return
    more = f" and {len(names) - SHOWN_KEYS} more" if len(names) > SHOWN_KEYS else ""
    yield f"Configuration keys that changed: {', '.join(names[:SHOWN_KEYS])}{more}."


def _shown(key: str) -> str:
    """Return a key without the names of single columns or protected attributes."""
    parts = key.split(".")
    return ".".join(parts[: 1 if parts[0] == "protected" else 3])


def _flat(document: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(document, Mapping) and document:
        for key, value in document.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, document


def _number(value: float | None) -> str:
    return "not computable" if value is None else number(value, 3)
