"""The audit events: as they are appended, and as the ledger gives them back."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

UNKNOWN = "unknown"  # an actor who did not say who they are


@dataclass(frozen=True)
class NewAuditEvent:
    """An event that is to be appended; `use_case` is None where it concerns none or all.

    `detail` is plain JSON without personal data, for an event is never erased; `actor` a person's
    self-asserted name, or ``run <id>``.
    """

    kind: str
    detail: Mapping[str, Any]
    use_case: str | None
    actor: str
    at: datetime


@dataclass(frozen=True)
class AuditEvent:
    """What happened, chained: `hash` covers every other field, `previous_hash` the event before."""

    seq: int
    at: datetime
    use_case: str | None
    kind: str
    actor: str
    detail: Mapping[str, Any]
    previous_hash: str
    hash: str
