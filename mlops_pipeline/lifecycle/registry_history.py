"""Which version held which state and alias from when to when, by whom and why.

Derived from rollout events and approvals, which are append-only; there is no table of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from mlops_pipeline.stores.models.registry import ALIASES
from mlops_pipeline.stores.ops import OpsDatabase, RolloutEvent

NOT_SHOWN = ("id", "rollout_id", "use_case")  # of an approval


@dataclass(frozen=True)
class Span:
    """A time in which a version was in one state; `until` is None while it lasts."""

    version: int
    state: str
    alias: str | None
    since: datetime
    until: datetime | None
    by: str
    reason: str


def spans(events: Sequence[RolloutEvent]) -> Iterator[Span]:
    """Yield the states of every version, in the order in which they began."""
    for index, event in enumerate(events):
        later = (item.at for item in events[index + 1 :] if item.version == event.version)
        yield Span(
            version=event.version,
            state=event.to_state,
            alias=ALIASES.get(event.to_state),
            since=event.at,
            until=next(later, None),
            by=event.actor,
            reason=event.reason,
        )


def registry_history(ops: OpsDatabase, use_case: str) -> dict[str, Any]:
    """Return spans and approvals as plain values."""
    return {
        "use_case": use_case,
        "history": [asdict(span) for span in spans(ops.rollout_events(use_case))],
        "approvals": [
            {name: value for name, value in vars(item).items() if name not in NOT_SHOWN}
            for item in ops.approvals(use_case)
        ],
    }
