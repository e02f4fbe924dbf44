"""Which as_of a run has: the one it was given, or the last complete grid point."""

from collections.abc import Mapping
from datetime import datetime

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.periods import default_as_of, floor_to, step_of
from mlops_pipeline.errors import DataError
from mlops_pipeline.lifecycle.ingest.validation import AcceptedSource
from mlops_pipeline.stores.settings import parse_time


def awaited(use_case: UseCase, marks: Mapping[str, datetime | None]) -> list[datetime]:
    """Return the newest availability of the sources that as_of waits for: of all but sparse ones.

    Of sparse ones where no other holds a row.
    """
    held = {name: mark for name, mark in marks.items() if mark is not None}
    dense = [mark for name, mark in held.items() if not use_case.sources[name].sparse]
    return dense or list(held.values())


def resolve_as_of(
    use_case: UseCase, accepted: Mapping[str, AcceptedSource], given: str | None, *, now: datetime
) -> datetime:
    """Return the run's as_of, a point of the grid (UTC).

    Raises
    ------
    DataError
        When the given one is in the future or no grid point, or no source holds a row.
    """
    step = step_of(use_case.grid)
    if given is None:
        marks = awaited(use_case, {name: item.watermark for name, item in accepted.items()})
        if not marks:
            raise DataError("no accepted source holds a row", where=use_case.name)
        return default_as_of(use_case.grid, now, marks)
    as_of = parse_time(given)
    if as_of > now:
        raise DataError(
            "as_of is in the future",
            expected=f"at most {now.isoformat()}",
            found=as_of.isoformat(),
            way_out="give an earlier --as-of",
        )
    if floor_to(as_of, step) != as_of:
        raise DataError(
            f"as_of is not the start of a {step}",
            expected=floor_to(as_of, step).date().isoformat(),
            found=as_of.isoformat(),
            way_out=f"give the start of a {step} (UTC)",
        )
    return as_of
