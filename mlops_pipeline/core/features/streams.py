"""Features of a `continuous` view from an entity's recent events: the online twin of frames.py.

Belongs here: what was known at a time (late events, duplicates, revisions), and the aggregates
over it. Where events are kept is the online store's.

The values are those of the offline frame at the same as_of: an event counts when it had happened
and was known strictly before it, in the version known then; sums add integers.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import timedelta
from operator import attrgetter
from typing import Any, cast

from mlops_pipeline.config.tables import FeatureColumn, FeatureView
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.expressions.to_row import Function, row_function
from mlops_pipeline.core.expressions.types import Kind, Value, common_kind, converter
from mlops_pipeline.core.features.aggregates import (
    AGGREGATES,
    SECONDS_PER_DAY,
    US_PER_SECOND,
    Event,
    Window,
)
from mlops_pipeline.errors import ExpressionError
from mlops_pipeline.spec.grammar import Expression

US = timedelta(microseconds=1)
NUMBERS = ("float64", "int64", "boolean", "null")
FRESH_DAYS = 1 / 24  # an hour: longer without any event means that they do not arrive
_VERSION = attrgetter("declared_us", "known_us")


def stream_columns(use_case: UseCase, source: str) -> dict[str, Kind]:
    """Return the columns, with their types, that a source's continuous views read."""
    views = _continuous(use_case, source)
    used = {name for view in views for column in view.columns.values() for name in column.reads}
    columns = use_case.sources[source]
    return {name: columns.column(name).type for name in columns.columns if name in used}


def known(events: Iterable[Event], as_of_us: int) -> list[Event]:
    """Return the events that had happened and were known strictly before as_of.

    Of an event with several versions the newest known then; of versions that declare the same
    availability and arrived together, the first.
    """
    found = [event for event in events if event.known_us < as_of_us]
    if len({event.identity for event in found}) < len(found):
        found = _newest_versions(found)
    return [event for event in found if event.happened_us < as_of_us and event.values is not None]


def _newest_versions(events: Iterable[Event]) -> list[Event]:
    first: dict[Hashable, Event] = {}
    for event in sorted(events, key=attrgetter("arrival")):
        first.setdefault(
            (event.identity, event.happened_us, event.declared_us, event.values), event
        )
    newest: dict[Hashable, Event] = {}
    for event in first.values():
        found = newest.get(event.identity)
        if found is None or _VERSION(event) > _VERSION(found):
            newest[event.identity] = event
    return list(newest.values())


def stream_reach(use_case: UseCase, source: str) -> timedelta:
    """Return how long before as_of an event of a source can still count."""
    views = _continuous(use_case, source)
    reaches = [column.reach for view in views for column in view.columns.values()]
    return max((reach for reach in reaches if reach is not None), default=timedelta(0))


def fresh_us(view: FeatureView) -> int:
    """Return how long after its newest event a stream is taken to be silent for lack of events."""
    days = FRESH_DAYS if view.freshness_days is None else view.freshness_days
    return round(days * SECONDS_PER_DAY * US_PER_SECOND)


def stream_fresh_us(use_case: UseCase, source: str) -> int:
    """Return the shortest such time of the views that are counted from a source."""
    return min(map(fresh_us, _continuous(use_case, source)), default=0)


def _continuous(use_case: UseCase, source: str) -> list[FeatureView]:
    """Return the views of a source that are computed from its stream of events."""
    return [
        view
        for view in use_case.views.values()
        if view.source == source
        and view.online
        and view.refresh == "continuous"
        and not view.request_time
    ]


class StreamView:
    """One continuous view of an event grid, compiled once; types that do not fit are refused."""

    def __init__(self, use_case: UseCase, name: str) -> None:
        view = use_case.views[name]
        kinds = stream_columns(use_case, view.source)
        self.columns = tuple(view.columns)
        alike: dict[tuple[Any, ...], list[_Column]] = {}
        for label, column in view.columns.items():
            key = (column.reach, column.offset_days, column.where)
            alike.setdefault(key, []).append(_Column(label, column, kinds))
        self._groups = [
            (_Selection(reach, offset_days, where, kinds), columns)
            for (reach, offset_days, where), columns in alike.items()
        ]

    def values(self, events: Sequence[Event], as_of_us: int) -> dict[str, Value]:
        """Return the view's features at as_of, None where one is missing.

        `events` is what `known` returned for the same as_of, of one entity: at least all events
        within `stream_reach` before it. A sum that leaves its exact range is a DataError, as
        offline.
        """
        found: dict[str, Value] = {}
        for selection, columns in self._groups:
            chosen = selection.of(events, as_of_us)
            for column in columns:
                found[column.name] = column.value(chosen, as_of_us)
        return {name: found[name] for name in self.columns}


class _Selection:
    """Which events count: those in a window that satisfy a condition."""

    def __init__(
        self,
        reach: timedelta | None,
        offset_days: int,
        where: Expression | None,
        kinds: dict[str, Kind],
    ) -> None:
        self._reach_us = None if reach is None else reach // US
        self._offset_us = timedelta(days=offset_days) // US
        self._where = (
            None if where is None else row_function(where, kinds, is_condition=True).of_row
        )

    def of(self, events: Sequence[Event], as_of_us: int) -> Sequence[Event]:
        if self._reach_us is not None:
            start = as_of_us - self._reach_us
            events = [event for event in events if event.happened_us >= start]
        if self._offset_us:
            end = as_of_us - self._offset_us
            events = [event for event in events if event.happened_us < end]
        where = self._where
        return events if where is None else [event for event in events if where(event.values or ())]


class _Column:
    """One feature: the aggregate of the events that count for it."""

    def __init__(self, name: str, column: FeatureColumn, kinds: dict[str, Kind]) -> None:
        self.name = name
        self._computation = AGGREGATES[str(column.aggregate)]
        self._of: Function | None = None
        kind: Kind = "null"
        if column.of is not None and self._computation.reads_values:
            kind, self._of = row_function(column.of, kinds)
        self._scale = 1 if kind == "int64" else 10**column.precision
        try:
            self._finish = self._finisher(str(column.aggregate), column, kind)
        except TypeError as error:
            raise ExpressionError(
                f"the feature {name} does not fit the types of its columns",
                where=str(column.of),
                found=str(error),
            ) from error

    def _finisher(self, aggregate: str, column: FeatureColumn, kind: Kind) -> Callable[[Any], Any]:
        """Return what makes the aggregate the declared type, filled for an unseen entity."""
        if self._computation.needs_numbers and kind not in NUMBERS:
            raise TypeError(f"{aggregate!r} needs numbers, found {kind}")
        convert = converter(self._computation.kind or kind, column.dtype, column.precision)
        fill, dtype = column.fill, cast(Kind, column.dtype)
        if fill is None:
            return convert
        filled = common_kind([dtype, "int64" if isinstance(fill, int) else "float64"])
        again = converter(filled, dtype, column.precision)

        def finish(value: Any) -> Any:
            value = convert(value)
            return again(fill if value is None else value)

        return finish

    def value(self, events: Sequence[Event], as_of_us: int) -> Value:
        made = self._computation.of_events(Window(events, self._of, as_of_us, self._scale))
        finished: Value = self._finish(made)
        return finished
