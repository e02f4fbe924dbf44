"""What follows from a configuration and is easily overlooked; `mlops config check` says it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlops_pipeline.config.use_case import UseCase


def notes(use_case: "UseCase") -> Iterator[str]:
    """Yield one sentence for each choice, explicit or by default."""
    yield from _label(use_case)
    for name, source in use_case.sources.items():
        if source.is_day(source.availability):
            yield (
                f"sources.{name}: {source.availability} is a date, so a row is known at the end of "
                "its day (UTC); available_at: a timestamp that says otherwise"
            )


def _label(use_case: "UseCase") -> Iterator[str]:
    """Yield when labels of events are known, and whether later arrivals may change them."""
    label, delay = use_case.label, use_case.label_delay_days
    if label.kind == "column":
        return
    yield f"label: known {label.horizon_days} + {delay} days after as_of (horizon_days, delay_days)"
    lateness = use_case.sources[label.source].lateness_days
    if delay < lateness:
        yield (
            f"label.delay_days: {delay} is less than sources.{label.source}.lateness_days "
            f"({lateness}): an event that arrives later changes a label that counted as known; "
            "without the key, labels wait so long"
        )
