"""Features of one entity from its recent events and its other values: the twin of frames.py.

The values are those of the offline frame at the same as_of: an event counts when it had happened
and was known strictly before it, in the version known then; sums add integers. Where events are
kept is the online store's.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import timedelta
from operator import attrgetter
from typing import Any, cast

from mlops_pipeline.config.tables import FeatureColumn, FeatureView
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.expressions.to_row import Declared, Function, row_function, values_function
from mlops_pipeline.core.expressions.types import Kind, Value, common_kind, converter
from mlops_pipeline.core.features import aggregates
from mlops_pipeline.errors import ExpressionError
from mlops_pipeline.spec.grammar import Expression

US = timedelta(microseconds=1)
NUMBERS = ("float64", "int64", "boolean", "null")
FRESH_DAYS = 1 / 24  # an hour: longer without any event means that they do not arrive
Events = Sequence[aggregates.Event]
_VERSION = attrgetter("declared_us", "known_us")


def derived_features(
    use_case: UseCase, inputs: Sequence[str]
) -> Callable[[Sequence[Value]], list[Value]]:
    """Return the function of derived features, in their order, of a row of these view features."""
    definitions = {
        name: Declared(item.expression, item.dtype, item.precision)
        for name, item in use_case.derived.items()
    }
    kinds = {name: cast(Kind, use_case.feature_type(name)) for name in inputs}
    return values_function(definitions, kinds, is_chained=True)


def stream_columns(use_case: UseCase, source: str) -> dict[str, Kind]:
    """Return the columns, with their types, that a source's continuous views read."""
    views = _continuous(use_case, source)
    used = {name for view in views for column in view.columns.values() for name in column.reads}
    columns = use_case.sources[source]
    return {name: columns.column(name).type for name in columns.columns if name in used}


def known(events: Iterable[aggregates.Event], as_of_us: int) -> list[aggregates.Event]:
    """Return the events that had happened and were known strictly before as_of.

    Of an event with several versions the newest known then; of versions that declare the same
    availability and arrived together, the first.
    """
    found = [event for event in events if event.known_us < as_of_us]
    if len({event.identity for event in found}) < len(found):
        found = _newest_versions(found)
    return [event for event in found if event.happened_us < as_of_us and event.values is not None]


def _newest_versions(events: Iterable[aggregates.Event]) -> list[aggregates.Event]:
    first: dict[Hashable, aggregates.Event] = {}
    for event in sorted(events, key=attrgetter("arrival")):
        alike = (event.identity, event.happened_us, event.declared_us, event.values)
        first.setdefault(alike, event)
    newest: dict[Hashable, aggregates.Event] = {}
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
    return round(days * aggregates.SECONDS_PER_DAY * aggregates.US_PER_SECOND)


def stream_fresh_us(use_case: UseCase, source: str) -> int:
    """Return the shortest such time of the views that are counted from a source."""
    return min(map(fresh_us, _continuous(use_case, source)), default=0)


def _continuous(use_case: UseCase, source: str) -> list[FeatureView]:
    views = [view for view in use_case.views.values() if view.source == source and view.online]
    return [view for view in views if view.refresh == "continuous" and not view.request_time]


class StreamView:
    """One continuous view of an event grid, compiled once; types that do not fit are refused."""

    def __init__(self, use_case: UseCase, name: str) -> None:
        view = use_case.views[name]
        kinds = stream_columns(use_case, view.source)
        self.columns = tuple(view.columns)
        alike: dict[tuple[Any, ...], list[tuple[str, Callable[[Events, int], Value]]]] = {}
        for label, column in view.columns.items():
            key = (column.reach, column.offset_days, column.where)
            alike.setdefault(key, []).append((label, _compiled(label, column, kinds)))
        self._groups = [
            (_selection(reach, offset_days, where, kinds), columns)
            for (reach, offset_days, where), columns in alike.items()
        ]

    def values(self, events: Events, as_of_us: int) -> dict[str, Value]:
        """Return the view's features at as_of, None where one is missing.

        `events` is what `known` returned for the same as_of, of one entity: at least all events
        within `stream_reach` before it. A sum that leaves its exact range is a DataError, as
        offline.
        """
        found: dict[str, Value] = {}
        for selected, columns in self._groups:
            chosen = selected(events, as_of_us)
            for name, value in columns:
                found[name] = value(chosen, as_of_us)
        return {name: found[name] for name in self.columns}


def _selection(
    reach: timedelta | None, offset_days: int, where: Expression | None, kinds: dict[str, Kind]
) -> Callable[[Events, int], Events]:
    reach_us = None if reach is None else reach // US
    offset_us = timedelta(days=offset_days) // US
    holds = None if where is None else row_function(where, kinds, is_condition=True).of_row

    def selected(events: Events, as_of_us: int) -> Events:
        if reach_us is not None:
            start = as_of_us - reach_us
            events = [event for event in events if event.happened_us >= start]
        if offset_us:
            end = as_of_us - offset_us
            events = [event for event in events if event.happened_us < end]
        return events if holds is None else [event for event in events if holds(event.values or ())]

    return selected


def _compiled(
    name: str, column: FeatureColumn, kinds: dict[str, Kind]
) -> Callable[[Events, int], Value]:
    computation = aggregates.AGGREGATES[str(column.aggregate)]
    of: Function | None = None
    kind: Kind = "null"
    if column.of is not None and computation.reads_values:
        kind, of = row_function(column.of, kinds)
    scale = 1 if kind == "int64" else 10**column.precision
    try:
        if computation.needs_numbers and kind not in NUMBERS:
            raise TypeError(f"{column.aggregate!r} needs numbers, found {kind}")
        finish = _finisher(column, computation.kind or kind)
    except TypeError as error:
        raise ExpressionError(
            f"the feature {name} does not fit the types of its columns",
            where=str(column.of),
            found=str(error),
        ) from error
    of_events = computation.of_events

    def value(events: Events, as_of_us: int) -> Value:
        finished: Value = finish(of_events(aggregates.Window(events, of, as_of_us, scale)))
        return finished

    return value


def _finisher(column: FeatureColumn, kind: Kind) -> Callable[[Any], Any]:
    """Return what makes the aggregate the declared type, filled for an unseen entity."""
    convert = converter(kind, column.dtype, column.precision)
    fill = column.fill
    if fill is None:
        return convert
    filled = common_kind([column.dtype, "int64" if isinstance(fill, int) else "float64"])
    again = converter(filled, column.dtype, column.precision)

    def finish(value: Any) -> Any:
        value = convert(value)
        return again(fill if value is None else value)

    return finish
