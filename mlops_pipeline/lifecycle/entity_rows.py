"""What a request for predictions asks: whom, whether it can be used, what it is known by."""

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops_pipeline.errors import DataError

ENTITIES_AT_ONCE = 1_000  # of one request
MAX_ID = 100  # letters of an entity's or a request's id
CHANCES_AT_ONCE = 256
ID_BYTES = 8  # of chance, behind the time, in the id of a prediction


@dataclass(frozen=True)
class EntityRow:
    """Whom a prediction is about; with `features` no store is read, and `entity` may be None."""

    entity: int | str | None
    request: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] | None = None


class Chance:
    """Random bytes as hex digits; the system is asked once for many. May be shared by threads."""

    def __init__(self) -> None:
        self._ready: list[str] = []

    def next(self) -> str:
        """Return ID_BYTES of them, which nobody else gets."""
        try:
            return self._ready.pop()
        except IndexError:
            digits = secrets.token_hex(ID_BYTES * CHANCES_AT_ONCE)
            size = 2 * ID_BYTES
            found = [digits[at : at + size] for at in range(0, len(digits), size)]
            self._ready.extend(found[1:])
            return found[0]


def digest_of(entity_rows: Sequence[EntityRow]) -> str:
    """Return the hash of what a request asks, to tell another one of the same id."""
    text = json.dumps([vars(one) for one in entity_rows], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def check(entity_rows: Sequence[EntityRow], request_id: str | None) -> None:
    """Refuse what is too long before anything is read."""
    if not 0 < len(entity_rows) <= ENTITIES_AT_ONCE:
        raise DataError(
            "a request asks for one entity or more",
            expected=f"1 to {ENTITIES_AT_ONCE:,}",
            found=f"{len(entity_rows):,}",
        )
    ids = [
        ("entity_id", "" if one.entity is None else str(one.entity))
        for one in entity_rows
        if one.entity is not None or one.features is None
    ]
    ids.append(("request_id", request_id or "-"))
    for name, text in ids:
        if not 0 < len(text) <= MAX_ID:
            raise DataError(
                "an id is empty or too long",
                where=name,
                expected=f"1 to {MAX_ID} letters",
                found=f"{len(text):,}",
            )
