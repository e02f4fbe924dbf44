"""What is recorded of exceptions from gate rules."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class ExceptionEntry:
    """An exception that was granted, or, where `revokes` names one, its revocation."""

    id: int
    use_case: str
    rule: str
    attribute: str | None
    by: str
    reason: str
    at: datetime
    expires_at: datetime | None
    revokes: int | None
