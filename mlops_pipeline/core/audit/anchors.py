"""Anchors of the audit chain: its count and head hash, written down outside the database.

One line of JSON for each, in a file; every line holds the hash of the line before:

    {"at": ..., "count": 120, "head": ..., "mlflow": true, "previous": ..., "reason": "run 5f0c..."}

MLflow is told count, head and the hash of the line, so that the two witnesses hold each other;
`mlflow` is false for a line from before MLflow was first used.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
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


def noted(line: bytes, said: Mapping[str, Any]) -> str:
    """Return what MLflow is told of a line."""
    return canonical({"head": said["head"], "line": line_hash(line)})


def check_anchors(
    lines: Sequence[bytes], told: Mapping[int, str]
) -> tuple[list[Anchor], list[str]]:
    """Compare the file's lines with what MLflow was told (by count, see `noted`).

    Return the anchors of both, and what is wrong.
    """
    return [*_file_anchors(lines), *_told_anchors(told)], [
        *_broken_lines(lines),
        *_differences(lines, told),
    ]


def _file_anchors(lines: Sequence[bytes]) -> Iterator[Anchor]:
    for number, line in enumerate(lines, 1):
        said = read_line(line)
        if said is not None:
            place = f"line {number} of the anchors file"
            yield Anchor(said["count"], said["head"], "file", place)


def _told_anchors(told: Mapping[int, str]) -> Iterator[Anchor]:
    for count, text in sorted(told.items()):
        try:
            head = str(json.loads(text)["head"])
        except (ValueError, TypeError, KeyError):
            head = ""  # no hash: it is like no event's
        yield Anchor(count, head, "MLflow", f"MLflow's anchor of {count} events")


def _broken_lines(lines: Sequence[bytes]) -> Iterator[str]:
    before = GENESIS
    for number, line in enumerate(lines, 1):
        said = read_line(line)
        if said is None:
            yield f"line {number} of the anchors file is damaged or cut"
        elif said["previous"] != before:
            yield (
                f"line {number} of the anchors file does not follow the line before it: one was "
                "altered, removed or moved"
            )
        before = line_hash(line)


def _differences(lines: Sequence[bytes], told: Mapping[int, str]) -> Iterator[str]:
    found: dict[int, set[str]] = {}
    for number, line in enumerate(lines, 1):
        said = read_line(line)
        if said is None:
            continue
        found.setdefault(said["count"], set()).add(noted(line, said))
        if said["mlflow"] and said["count"] not in told:
            yield f"MLflow lacks line {number} of the anchors file ({said['count']} events)"
    for count, text in sorted(told.items()):
        if count not in found:
            yield f"the anchors file lacks MLflow's anchor of {count} events: it was cut or altered"
        elif text not in found[count]:
            yield f"the anchors file and MLflow differ about the anchor of {count} events"
