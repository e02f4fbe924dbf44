"""The audit chain: one hash for each event, over the event and the hash of the one before.

    hash = sha256(JSON of {actor, at, detail, kind, previous_hash, seq, use_case})

JSON is written with sorted keys, without blanks, in ASCII. docs/security.md says what the chain
proves and what it does not.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

GENESIS = "0" * 64
"""The `previous_hash` of the first event."""


def canonical(document: Any) -> str:
    """Write plain JSON in the one way that is hashed.

    Raises
    ------
    TypeError, ValueError
        If it is not plain JSON, or holds NaN or infinity.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def event_document(
    seq: int,
    at: datetime,
    *,
    use_case: str | None,
    kind: str,
    actor: str,
    detail: Mapping[str, Any],
    previous_hash: str,
) -> dict[str, Any]:
    """Return what an event's hash covers: every column but the hash itself."""
    return {
        "seq": seq,
        "at": at.astimezone(UTC).isoformat(timespec="microseconds"),
        "use_case": use_case,
        "kind": kind,
        "actor": actor,
        "detail": detail,
        "previous_hash": previous_hash,
    }


def hash_of(document: Mapping[str, Any]) -> str:
    """Return the sha256 of a document's canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical(document).encode()).hexdigest()
