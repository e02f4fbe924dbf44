"""Features as a read returns them: value, status and time of each."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from mlops_pipeline.stores.online.codec import Scalar

FeatureStatus = Literal["fresh", "stale", "missing"]


class FeatureValue(NamedTuple):
    """A feature's value, and how far it can be relied on.

    Attributes
    ----------
    value : float, int, str, bool or None
        None also where a value that is held is missing in the data.
    status : "fresh", "stale" or "missing"
        Stale: older than the view's `freshness_days`, or made of such, or of inputs that belong to
        no common moment. Missing: not held, or older than `ttl_days`.
    feature_time : datetime or None
        When the value was true (UTC). Of a derived feature whose inputs belong to no common
        moment, which is stale, its oldest input. None when missing.
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

    What many entities share is held once: a read of a hundred entities makes no thousands of
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
