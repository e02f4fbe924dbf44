"""How the values of an entity are made of what was found: compiled once for the features of a read.

Belongs here: features as they are returned, which place of a record is which feature, how old is
stale, derived features. Asking the store, and what happens when it does not answer, is reader.py's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from operator import itemgetter
from typing import Any, Literal, NamedTuple, cast

from mlops_pipeline.config.tables import FeatureView
from mlops_pipeline.core.expressions.to_row import Declared, values_function
from mlops_pipeline.core.expressions.types import INT64_MAX, INT64_MIN, Kind, Value
from mlops_pipeline.core.features.aggregates import Event
from mlops_pipeline.core.features.streams import StreamView, derived_features, fresh_us, known
from mlops_pipeline.errors import DataError
from mlops_pipeline.lifecycle.features.history import select_features
from mlops_pipeline.lifecycle.features.online.layout import DAY_US, OnlineLayout, from_us
from mlops_pipeline.stores.online.codec import Record, Scalar

SUMMARIES_KEPT = 1_024  # one for each combination of times that entities have at a read
FeatureStatus = Literal["fresh", "stale", "missing"]
State = tuple[FeatureStatus, int]  # status and feature time of a view's values
Request = Mapping[str, Any]


class FeatureValue(NamedTuple):
    """A feature's value, and how far it can be relied on.

    Attributes
    ----------
    value : float, int, str, bool or None
        None also where a stored value is missing in the data.
    status : "fresh", "stale" or "missing"
        Stale: older than the view's `freshness_days`, or made of such, or of inputs that belong to
        no common time. Missing: not stored, or older than `ttl_days`.
    feature_time : datetime or None
        When the value was true (UTC). Of a derived feature whose inputs belong to no common
        time, which is stale, its oldest input. None when missing.
    """

    value: Scalar
    status: FeatureStatus
    feature_time: datetime | None


class Summary(NamedTuple):
    """Status and time of every feature of a plan, by place."""

    statuses: tuple[FeatureStatus, ...]
    times: tuple[datetime | None, ...]


class FeatureValues(Mapping[str, FeatureValue]):
    """The features of one entity by name, in the order in which they were asked for.

    What many entities share exists once: a read of a hundred entities makes no thousands of
    objects.
    """

    __slots__ = ("_places", "_summary", "_values")

    def __init__(self, places: Mapping[str, int], values: Sequence[Any], summary: Summary) -> None:
        self._places, self._values, self._summary = places, values, summary

    def __getitem__(self, name: str) -> FeatureValue:
        place = self._places[name]
        statuses, times = self._summary
        return FeatureValue(self._values[place], statuses[place], times[place])

    def plain(self) -> dict[str, Scalar]:
        """Return the values alone, by name: for who has looked at the statuses, or need not."""
        values = self._values
        return {name: values[place] for name, place in self._places.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"FeatureValues({dict(self)})"


class Found(NamedTuple):
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
        self._names, self._source = names, view.source
        self._nothing = (None,) * len(names)
        self._view = StreamView(layout.use_case, label)
        self._ages = _Ages(fresh_us(view), _Ages.of(view).dropped_us)

    def values(
        self, found: Found, _request: Request, at_us: int
    ) -> tuple[Sequence[Value], State | None]:
        events = found.events.get(self._source)
        if events is None or not found.is_known:
            return self._nothing, None
        newest_us = min(found.newest_us[self._source], at_us)
        state = self._ages.state(newest_us, at_us)
        if state is None:
            return self._nothing, None
        # of a silent stream nobody knows what happened since: its values are those of then
        as_of_us = at_us if state[0] == "fresh" else newest_us
        values = self._view.values(known(events, as_of_us), as_of_us)
        return [values[name] for name in self._names], (state[0], as_of_us)


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

    def values(
        self, _found: Found, request: Request, at_us: int
    ) -> tuple[Sequence[Value], State | None]:
        absent = [name for name in self._kinds if name not in request]
        if absent:
            raise DataError(
                "the request lacks a column that a request-time feature reads",
                where=", ".join(absent),
                expected=", ".join(self._kinds),
                found=", ".join(request) or "no column",
                way_out="give it, null where it is missing, or leave the feature out",
            )
        row = [_typed(name, kind, request[name]) for name, kind in self._kinds.items()]
        return self._values(row), ("fresh", at_us)


class Plan:
    """How some features, named in the layout, are made; `sources` are those whose events it needs.

    A row has the stored columns first, then those of the other views, then derived features.
    """

    def __init__(self, layout: OnlineLayout, names: tuple[str, ...]) -> None:
        use_case = select_features(layout.use_case, names)
        views = use_case.views
        stored = [label for label in views if label in layout.stored]
        others = [label for label in views if label not in layout.stored]
        self._ages = [_Ages.of(views[label]) for label in stored]
        columns = [name for label in stored for name in views[label].columns]
        self._pick = _picker([layout.stored_names.index(name) for name in columns])
        self._nothing = (None,) * len(columns)
        self._others = [
            (_Streamed if label in layout.streamed else _Requested)(
                layout, label, tuple(views[label].columns)
            )
            for label in others
        ]
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
        self, found: Sequence[Found], requests: Sequence[Request] | None, at_us: int
    ) -> list[FeatureValues]:
        """Return the features of each entity at a time."""
        given = requests or [{}] * len(found)
        return [self._of_entity(*pair, at_us) for pair in zip(found, given, strict=True)]

    def _of_entity(self, found: Found, request: Request, at_us: int) -> FeatureValues:
        row: list[Any]
        states: list[State | None]
        if found.record is None:
            row, states = [*self._nothing], [None] * len(self._ages)
        else:
            time_us, values = found.record
            row = [*self._pick(values)]
            states = [ages.state(time_us, at_us) for ages in self._ages]
        for part in self._others:
            made, state = part.values(found, request, at_us)
            row.extend(made)
            states.append(state)
        row.extend(self._derived(row))
        summary = self._summary(tuple(states), at_us)
        if None in states:  # what is not to be used is left out
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
    others' time. Of inputs that belong to no common time it is stale, and as old as the oldest.
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
