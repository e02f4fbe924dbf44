"""How the values of an entity are made of what was found, and of what a request says.

Belongs here: features as they are returned, which place of a record is which feature, how old is
stale, derived features, compiled once for the features of a read; what a request says.
Asking the store, and what happens when it does not answer, is reader.py's.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from operator import itemgetter
from typing import Any, Literal, NamedTuple, cast

from mlops_pipeline.config.tables import FeatureView
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.expressions.to_row import Declared, values_function
from mlops_pipeline.core.expressions.types import INT64_MAX, INT64_MIN, Kind, Value, int64
from mlops_pipeline.core.features.aggregates import Event
from mlops_pipeline.core.features.streams import StreamView, derived_features, fresh_us, known
from mlops_pipeline.errors import DataError, did_you_mean
from mlops_pipeline.lifecycle.features.history import select_features
from mlops_pipeline.lifecycle.features.online.layout import DAY_US, OnlineLayout, from_us
from mlops_pipeline.stores.online.codec import Record, Scalar

QUESTION = ("features", "use_case")  # parameters beside the columns of a request
TRUTHS = {"true": True, "false": False}
WHOLE = re.compile(r"-?[0-9]{1,19}")  # an int64 has no more digits
SUMMARIES_KEPT = 1_024  # one for each combination of times that entities have at a read
FeatureStatus = Literal["fresh", "stale", "missing"]
State = tuple[FeatureStatus, int]  # status and feature time of a view's values
Request = Mapping[str, Any]


class FeatureValue(NamedTuple):
    """A feature's value, and how far it can be relied on.

    Stale: older than the view's `freshness_days`, or made of such, or of inputs that belong to no
    common time. Missing: not stored, or older than `ttl_days`.
    """

    value: Scalar  # None also where a stored value is missing in the data
    status: FeatureStatus
    feature_time: datetime | None  # when it was true (UTC), of several the oldest; None: missing


class Summary(NamedTuple):
    """Status and time by place in a row; of those asked for what is not fresh, and since."""

    statuses: tuple[FeatureStatus, ...]
    times: tuple[datetime | None, ...]
    not_fresh: tuple[tuple[str, FeatureStatus], ...]
    oldest: datetime | None


class FeatureValues(Mapping[str, FeatureValue]):
    """The features of one entity by name, in the order asked for; what is shared exists once."""

    __slots__ = ("_places", "_values", "summary")

    def __init__(self, places: Mapping[str, int], values: Sequence[Any], summary: Summary) -> None:
        self._places, self._values, self.summary = places, values, summary

    def __getitem__(self, name: str) -> FeatureValue:
        place = self._places[name]
        summary = self.summary
        return FeatureValue(self._values[place], summary.statuses[place], summary.times[place])

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
    """What a read found of an entity; `newest_us`: up to when the events of a source are known."""

    record: Record | None
    events: Mapping[str, Sequence[Event]]
    newest_us: Mapping[str, int]
    is_known: bool


class _Ages(NamedTuple):
    """From which age on a view's values are stale, and dropped; None: never."""

    stale_us: int | None
    dropped_us: int | None

    def state(self, time_us: int, at_us: int) -> State | None:
        """Return status and time; None: not to be used."""
        age_us = at_us - time_us
        if age_us < 0 or (self.dropped_us is not None and age_us >= self.dropped_us):
            return None
        is_stale = self.stale_us is not None and age_us > self.stale_us
        return ("stale" if is_stale else "fresh", time_us)


def _ages(view: FeatureView) -> _Ages:
    days = (view.freshness_days, view.ttl_days)
    return _Ages(*(None if item is None else round(item * DAY_US) for item in days))


class _Streamed:
    """Columns of a view that is counted from events."""

    def __init__(self, layout: OnlineLayout, label: str, names: Sequence[str]) -> None:
        view = layout.use_case.views[label]
        self._names, self._source = names, view.source
        self._nothing = (None,) * len(names)
        self._view = StreamView(layout.use_case, label)
        self._ages = _ages(view)._replace(stale_us=fresh_us(view))

    def values(self, found: Found, at_us: int) -> tuple[Sequence[Value], State | None]:
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


class Plan:
    """How some features of the layout are made; `sources` are those whose events it needs."""

    def __init__(self, layout: OnlineLayout, names: tuple[str, ...]) -> None:
        use_case = select_features(layout.use_case, names)
        views = use_case.views
        stored = [label for label in layout.stored if label in views]
        streamed = [label for label in layout.streamed if label in views]
        columns = [name for label in stored for name in views[label].columns]
        places = [layout.stored_names.index(name) for name in columns]
        self._pick: Callable[[Sequence[Any]], Sequence[Any]] = (
            itemgetter(*places) if len(places) > 1 else lambda row: [row[place] for place in places]
        )
        self._ages = [_ages(views[label]) for label in stored]
        self._nothing = (None,) * len(columns)
        self.sources = tuple(dict.fromkeys(views[label].source for label in streamed))
        self._streams = [_Streamed(layout, label, list(views[label].columns)) for label in streamed]
        requested = {
            name: Declared(item.value, item.dtype, item.precision)
            for label in layout.requested
            if label in views
            for name, item in views[label].columns.items()
        }
        self._is_requested = bool(requested)
        self._kinds: dict[str, Kind] = {**use_case.request_columns}
        self._requested = values_function(requested, self._kinds, is_chained=False)
        # of each place of a row, the states that its value is made of
        parts = [*(list(views[label].columns) for label in (*stored, *streamed)), list(requested)]
        self._origins: list[tuple[int, ...]] = [
            (index,) for index, part in enumerate(parts) for _ in part
        ]
        place_of = {name: place for place, name in enumerate(n for part in parts for n in part)}
        self._daily = len(stored) if use_case.grid.every == "event" else 0
        self._derived = derived_features(use_case, tuple(place_of))
        for name, derived in use_case.derived.items():
            used = [self._origins[place_of[n]] for n in derived.expression.columns]
            place_of[name] = len(self._origins)
            self._origins.append(tuple({index for origins in used for index in origins}))
        self._places = {name: place_of[name] for name in names}
        now = len(parts) - 1  # the state of what is requested is of each read's own time
        self._is_timed = any(now in used or not used for used in self._origins)
        self._summaries: dict[tuple[int, tuple[State | None, ...]], Summary] = {}

    def values(self, found: Found, request: Request, at_us: int) -> FeatureValues:
        """Return the features of an entity at a time."""
        row: list[Any] = [*self._nothing]
        states: list[State | None] = [None] * len(self._ages)
        if found.record is not None:
            time_us, values = found.record
            row = [*self._pick(values)]
            states = [ages.state(time_us, at_us) for ages in self._ages]
        for stream in self._streams:
            made, state = stream.values(found, at_us)
            row.extend(made)
            states.append(state)
        if self._is_requested:
            row.extend(self._requested(self._request_row(request)))
        states.append(("fresh", at_us if self._is_timed else 0))
        row.extend(self._derived(row))
        summary = self._summary(tuple(states), at_us if self._is_timed else 0)
        if None in states:  # what is not to be used is left out
            row = [
                None if status == "missing" else value
                for value, status in zip(row, summary.statuses, strict=True)
            ]
        return FeatureValues(self._places, row, summary)

    def _request_row(self, request: Request) -> list[Value]:
        absent = [name for name in self._kinds if name not in request]
        if absent:
            raise DataError(
                "the request lacks a column that a request-time feature reads",
                where=", ".join(absent),
                expected=", ".join(self._kinds),
                found=", ".join(request) or "no column",
                way_out="give it, null where it is missing, or leave the feature out",
            )
        return [_typed(name, kind, request[name]) for name, kind in self._kinds.items()]

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
            asked = [(name, *made[place]) for name, place in self._places.items()]
            not_fresh = tuple((name, status) for name, status, _ in asked if status != "fresh")
            oldest = min((time for _, _, time in asked if time is not None), default=None)
            found = self._summaries[key] = Summary(statuses, times, not_fresh, oldest)
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


def feature_list(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the names in comma-separated texts, each once, in order."""
    names = [name.strip() for text in texts for name in text.split(",")]
    return tuple(dict.fromkeys(name for name in names if name))


def request_features(use_case: UseCase) -> set[str]:
    """Return the features that need columns of the request, directly or through others."""
    views = [view for view in use_case.views.values() if view.request_time]
    return use_case.with_dependents(name for view in views for name in view.columns)


def request_texts(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return a request's columns by name; a column that is given twice is refused."""
    found: dict[str, str] = {}
    for name, text in pairs:
        if name in found:
            raise DataError(
                f"the request gives {name!r} twice",
                where=name,
                expected="one value",
                found="several",
                way_out="give it once",
            )
        found[name] = text
    return found


def request_row(use_case: UseCase, given: Mapping[str, str]) -> dict[str, Any]:
    """Return a request's columns, given as text, as values of their types; empty: missing."""
    known = use_case.request_columns
    row: dict[str, Any] = {}
    for name, text in given.items():
        if name not in known:
            raise DataError(
                f"no request-time feature reads {name!r}",
                where=use_case.name,
                expected=", ".join(sorted(known))
                or "no columns: nothing is computed from requests",
                found=name,
                way_out=did_you_mean(name, [*known, *QUESTION]) or "leave it out",
            )
        try:
            row[name] = _PARSERS[known[name]](text) if text or known[name] == "string" else None
        except (ValueError, KeyError, DataError) as error:
            raise DataError(
                f"the request's {name} is not of its type",
                where=name,
                expected=known[name],
                found="other text",
                way_out="write numbers in digits, truths as true or false, times as ISO 8601",
            ) from error
    return row


def _timestamp(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value


def _whole(text: str) -> int:
    if not WHOLE.fullmatch(text):
        raise ValueError(text)
    return int64(int(text))


def _finite(text: str) -> float:
    value = float(text)
    if "_" in text or not math.isfinite(value):  # Python takes 1_000 for a number
        raise ValueError(text)
    return value


_PARSERS: dict[str, Callable[[str], Any]] = {
    "string": str,
    "int64": _whole,
    "float64": _finite,
    "boolean": lambda text: TRUTHS[text.lower()],
    "timestamp": _timestamp,
    "date": lambda text: _timestamp(text).date(),
}


# of each type: what is of it, and what only looks so
_TYPES: dict[str, tuple[Any, Any]] = {
    "string": (str, ()),
    "boolean": (bool, ()),
    "int64": (int, bool),
    "float64": ((int, float), bool),
    "timestamp": (datetime, ()),
    "date": (date, datetime),
}


def _typed(name: str, kind: Kind, value: Any) -> Value:
    """Return a value of the request as its column's type; whole numbers are floats too."""
    if value is None:
        return None
    types, others = _TYPES[kind]
    if isinstance(value, types) and not isinstance(value, others):
        if kind == "float64":
            value = float(value)
        elif kind == "timestamp" and value.tzinfo:
            value = value.astimezone(UTC).replace(tzinfo=None)
        if kind != "int64" or INT64_MIN <= value <= INT64_MAX:
            return cast(Value, value)
    raise DataError(
        "a value of the request is not of its column's type",
        where=name,
        expected=kind,
        found=type(value).__name__,
    )
