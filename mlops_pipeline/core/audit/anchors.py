"""Anchors of the audit chain: its count and head hash, written down outside the database.

One line of JSON for each, in a file; every line holds the hash of the line before:

    {"at": ..., "count": 120, "head": ..., "mlflow": true, "previous": ..., "reason": "run 5f0c..."}

MLflow is told count, head and the hash of the line, so that the two witnesses hold each other;
`mlflow` is false for a line from before MLflow was first used.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

GENESIS = "0" * 64
"""The hash before the first event of the chain, and before the first line of the file."""

Source = Literal["file", "MLflow"]
SOURCES: tuple[Source, ...] = ("file", "MLflow")
FIELDS = {"at": str, "count": int, "head": str, "mlflow": bool, "previous": str, "reason": str}

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class Anchor:
    """How many events there were, and the hash of the newest; `place` says where it is written."""

    count: int
    head: str
    source: Source
    place: str


def canonical(document: Any) -> str:
    """Write plain JSON in the one way that is hashed; TypeError or ValueError if it is none."""
    return _ENCODER.encode(document)


def line_hash(line: bytes) -> str:
    """Return the hash of a line of the file, without its end."""
    return hashlib.sha256(line).hexdigest()


def read_line(line: bytes) -> dict[str, Any] | None:
    """Return what a line says; None if it is not a whole line as it was written."""
    try:
        found = json.loads(line)
        is_whole = canonical(found).encode() == line
    except (ValueError, RecursionError):
        return None
    if not is_whole or not isinstance(found, dict) or set(found) != set(FIELDS):
        return None
    return found if all(type(found[name]) is kind for name, kind in FIELDS.items()) else None


def tag_value(line: bytes, entry: Mapping[str, Any]) -> str:
    """Return what MLflow is told of a line."""
    return canonical({"head": entry["head"], "line": line_hash(line)})


def check_anchors(
    lines: Sequence[bytes], in_mlflow: Mapping[int, str]
) -> tuple[list[Anchor], list[str]]:
    """Hold the file's lines against MLflow's values; return the anchors of both, what is wrong."""
    anchors: list[Anchor] = []
    broken: list[str] = []
    different: list[str] = []
    values: dict[int, set[str]] = {}
    previous = GENESIS
    for number, line in enumerate(lines, 1):
        place, entry = f"line {number} of the anchors file", read_line(line)
        if entry is None:
            broken.append(f"{place} is damaged or cut")
        else:
            count = entry["count"]
            anchors.append(Anchor(count, entry["head"], "file", place))
            values.setdefault(count, set()).add(tag_value(line, entry))
            if entry["previous"] != previous:
                broken.append(f"{place} does not follow the line before it: one was "
                              "altered, removed or moved")  # fmt: skip
            if entry["mlflow"] and count not in in_mlflow:
                different.append(f"MLflow lacks {place} ({count} events)")
        previous = line_hash(line)
    for count, value in sorted(in_mlflow.items()):
        about = f"anchor of {count} events"
        anchors.append(Anchor(count, _head(value), "MLflow", f"MLflow's {about}"))
        if count not in values:
            different.append(f"the anchors file lacks MLflow's {about}: it was cut or altered")
        elif value not in values[count]:
            different.append(f"the anchors file and MLflow differ about the {about}")
    return anchors, [*broken, *different]


def _head(value: str) -> str:
    """Return the head of a value; of one that cannot be read a text that is like no event's."""
    try:
        return str(json.loads(value)["head"])
    except (ValueError, TypeError, KeyError):
        return ""
