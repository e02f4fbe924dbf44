"""How the values of one entity are made of what is held: compiled once for the features of a read.

Belongs here: which place of a record is which feature, how old is stale, derived features. Asking
the store, and what happens when it does not answer, is reader.py's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from operator import itemgetter
from typing import Any, NamedTuple, cast

from mlops_pipeline.config.features import FeatureView
from mlops_pipeline.core.expressions.to_row import Declared, values_function
from mlops_pipeline.core.expressions.values import INT64_MAX, INT64_MIN, Kind, Value
from mlops_pipeline.core.features.aggregates import Event
from mlops_pipeline.core.features.derived import derived_features
from mlops_pipeline.core.features.streams import StreamView, fresh_us, known
from mlops_pipeline.errors import DataError
from mlops_pipeline.lifecycle.features.history import narrowed
from mlops_pipeline.lifecycle.features.online.feature_values import (
    FeatureStatus,
    FeatureValues,
    Summary,
)
from mlops_pipeline.lifecycle.features.online.layout import DAY_US, OnlineLayout, from_us
from mlops_pipeline.stores.online.codec import Record

SUMMARIES_KEPT = 1_024  # one for each combination of times that entities have at a moment
State = tuple[FeatureStatus, int]  # status and feature time of a view's values
Values = Sequence[Any]
Request = Mapping[str, Any]


class Held(NamedTuple):
    """What a read found of one entity.

    `events` are by source, of those that were read; `newest_us` says up to when they are known.
    """

    record: Record | None
    events: Mapping[str, Sequence[Event]]
    newest_us: Mapping[str, int]
    is_known: bool


@dataclass(frozen=True)
class _Ages:
    """From which age on a view's values are stale, and dropped; None: never."""

    stale_us: int | None
    dropped_us: int | None

    @classmethod
    def of(cls, view: FeatureView) -> "_Ages":
        days = (view.freshness_days, view.ttl_days)
        return cls(*(None if item is None else round(item * DAY_US) for item in days))

    def state(self, time_us: int, at_us: int) -> State | None:
        """Return status and time; None: not to be used."""
        age_us = at_us - time_us
        if age_us < 0 or (self.dropped_us is not None and age_us >= self.dropped_us):
            return None
        is_stale = self.stale_us is not None and age_us > self.stale_us
        return ("stale" if is_stale else "fresh", time_us)


class _Streamed:
    """Columns of a view that is counted from events."""

    def __init__(self, layout: OnlineLayout, label: str, names: Sequence[str]) -> None:
        view = layout.use_case.views[label]
        self.names = tuple(names)
        self._view = StreamView(layout.use_case, label)
        self._source = view.source
        self._ages = _Ages(fresh_us(view), _Ages.of(view).dropped_us)

    def parts(
        self, held: Sequence[Held], _requests: Any, at_us: int
    ) -> list[tuple[Values, State | None]]:
        """Return of each entity the values, and their state."""
        return [self._part(item, at_us) for item in held]

    def _part(self, held: Held, at_us: int) -> tuple[Values, State | None]:
        events = held.events.get(self._source)
        if events is None or not held.is_known:
            return (None,) * len(self.names), None
        newest_us = min(held.newest_us[self._source], at_us)
        state = self._ages.state(newest_us, at_us)
        if state is None:
            return (None,) * len(self.names), None
        # of a silent stream nobody knows what happened since: its values are those of then
        moment_us = at_us if state[0] == "fresh" else newest_us
        found = self._view.values(known(events, moment_us), moment_us)
        return [found[name] for name in self.names], (state[0], moment_us)


class _Requested:
    """Columns that are computed from the request."""

    def __init__(self, layout: OnlineLayout, label: str, names: Sequence[str]) -> None:
        view = layout.use_case.views[label]
        section = layout.use_case.sources[view.source]
        columns = {name: view.columns[name] for name in names}
        used = {name for item in columns.values() for name in item.reads}
        self._kinds: dict[str, Kind] = {
            name: section.column(name).type for name in section.columns if name in used
        }
        definitions = {
            name: Declared(item.value, item.dtype, item.precision) for name, item in columns.items()
        }
        self._values = values_function(definitions, self._kinds, is_chained=False)

    def parts(
        self, held: Sequence[Held], requests: Sequence[Request] | None, at_us: int
    ) -> list[tuple[Values, State | None]]:
        """Return of each entity the values, and their state."""
        rows = [self._row(request) for request in requests or [{}] * len(held)]
        return [(self._values(row), ("fresh", at_us)) for row in rows]

    def _row(self, given: Request) -> list[Value]:
        absent = [name for name in self._kinds if name not in given]
        if absent:
            raise DataError(
                "the request lacks a column that a request-time feature reads",
                where=", ".join(absent),
                expected=", ".join(self._kinds),
                found=", ".join(given) or "no column",
                way_out="give it, null where it is missing, or leave the feature out",
            )
        return [_typed(name, kind, given[name]) for name, kind in self._kinds.items()]


class Plan:
    """How some features are made.

    A row has the stored columns first, then those of the other views, then derived features.

    Parameters
    ----------
    names : tuple of str
        Different features of the layout.

    Attributes
    ----------
    sources : tuple of str
        Whose events are needed.
    """

    def __init__(self, layout: OnlineLayout, names: tuple[str, ...]) -> None:
        use_case = narrowed(layout.use_case, names)
        views = use_case.views
        stored = [label for label in views if label in layout.stored]
        others = [label for label in views if label not in layout.stored]
        self._ages = [_Ages.of(views[label]) for label in stored]
        columns = [name for label in stored for name in views[label].columns]
        self._pick = _picker([layout.stored_names.index(name) for name in columns])
        self._nothing = (None,) * len(columns)
        self._others = [_other(layout, label, tuple(views[label].columns)) for label in others]
        streamed = [views[label].source for label in others if label in layout.streamed]
        self.sources = tuple(dict.fromkeys(streamed))
        # of each place of a row, the views that its value is made of
        self._origins: list[tuple[int, ...]] = []
        place_of: dict[str, int] = {}
        for index, label in enumerate([*stored, *others]):
            for name in views[label].columns:
                place_of[name] = len(self._origins)
                self._origins.append((index,))
        self._daily = len(stored) if use_case.grid.every == "event" else 0
        self._derived = derived_features(use_case, tuple(place_of))
        for name, derived in use_case.derived.items():
            used = [self._origins[place_of[n]] for n in derived.expression.columns]
            place_of[name] = len(self._origins)
            self._origins.append(tuple({index for origins in used for index in origins}))
        self._places = {name: place_of[name] for name in names}
        self._summaries: dict[tuple[int, tuple[State | None, ...]], Summary] = {}

    def values(
        self, held: Sequence[Held], requests: Sequence[Request] | None, at_us: int
    ) -> list[FeatureValues]:
        """Return the features of each entity at a moment."""
        rows, states = [], list[list[State | None]]()
        for record in (item.record for item in held):
            rows.append([*(self._nothing if record is None else self._pick(record[1]))])
            states.append(
                [None if record is None else ages.state(record[0], at_us) for ages in self._ages]
            )
        for part in self._others:
            made = part.parts(held, requests, at_us)
            for row, states_of, (values, state) in zip(rows, states, made, strict=True):
                row.extend(values)
                states_of.append(state)
        for row in rows:
            row.extend(self._derived(row))
        return [
            self._known(row, tuple(item), at_us) for row, item in zip(rows, states, strict=True)
        ]

    def _known(self, row: list[Any], states: tuple[State | None, ...], at_us: int) -> FeatureValues:
        """Leave out the values that are not to be used."""
        summary = self._summary(states, at_us)
        if None in states:
            row = [
                None if status == "missing" else value
                for value, status in zip(row, summary.statuses, strict=True)
            ]
        return FeatureValues(self._places, row, summary)

    def _summary(self, states: tuple[State | None, ...], at_us: int) -> Summary:
        """Return status and time by place: those of the view, the worst and oldest of several."""
        key = (at_us, states)
        found = self._summaries.get(key)
        if found is None:
            if len(self._summaries) >= SUMMARIES_KEPT:
                self._summaries.clear()
            made = [
                _combined(
                    [states[i] for i in used if i < self._daily],
                    [states[i] for i in used if i >= self._daily],
                    at_us,
                )
                for used in self._origins
            ]
            statuses, times = zip(*made, strict=True) if made else ((), ())
            found = self._summaries[key] = Summary(statuses, times)
        return found


def _combined(
    daily: Sequence[State | None], others: Sequence[State | None], at_us: int
) -> tuple[FeatureStatus, datetime | None]:
    """Return status and time of what is made of daily values and of others.

    Daily values hold from their midnight to the next: with others of that day, the value is of the
    others' moment. Of inputs that belong to no common moment it is stale, and as old as the oldest.
    """
    present = [state for state in (*daily, *others) if state is not None]
    if len(present) < len(daily) + len(others):
        return "missing", None
    status: FeatureStatus = "stale" if any(one == "stale" for one, _ in present) else "fresh"
    oldest_us = min((time_us for _, time_us in present), default=at_us)
    if daily and others:
        newest_us = max(time_us for _, time_us in present)
        midnight_us = newest_us - newest_us % DAY_US
        if all(time_us in (midnight_us, newest_us) for _, time_us in present):
            return status, from_us(newest_us)
        return "stale", from_us(oldest_us)
    return status, from_us(oldest_us)


def _other(layout: OnlineLayout, label: str, names: tuple[str, ...]) -> _Streamed | _Requested:
    kind = _Streamed if label in layout.streamed else _Requested
    return kind(layout, label, names)


def _picker(places: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Return what takes these places out of a sequence."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: [values[place] for place in places]


def _typed(name: str, kind: Kind, value: Any) -> Value:
    """Return a value of the request as its column's type; whole numbers are floats too."""
    if value is None:
        return None
    if kind == "float64" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind == "int64" and isinstance(value, int) and not isinstance(value, bool):
        if INT64_MIN <= value <= INT64_MAX:
            return value
    elif kind == "timestamp" and isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    elif kind == "date" and isinstance(value, date) and not isinstance(value, datetime):
        return value
    elif isinstance(value, {"string": str, "boolean": bool}.get(kind, ())):
        return cast(Value, value)
    raise DataError(
        "a value of the request is not of its column's type",
        where=name,
        expected=kind,
        found=type(value).__name__,
    )
