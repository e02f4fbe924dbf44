"""Reading features online: the newest values of entities, with how far each can be relied on.

A read asks the store at most once for the records and once for the events of each source, however
many entities. What is made of them is plan.py's.

An entity that the store does not know has no value, except what the request brings; a table that
was never filled is an error, and not a store full of unknown entities.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import DataError, NotFoundError
from mlops_pipeline.lifecycle.bookkeeping import record_feature_use
from mlops_pipeline.lifecycle.features.online.events import EventStream
from mlops_pipeline.lifecycle.features.online.feature_values import (
    FeatureStatus,
    FeatureValue,
    FeatureValues,
)
from mlops_pipeline.lifecycle.features.online.fetch import Fetch, Holding
from mlops_pipeline.lifecycle.features.online.layout import online_layout, to_us
from mlops_pipeline.lifecycle.features.online.plan import Plan
from mlops_pipeline.stores.closing import Closing
from mlops_pipeline.stores.online.interface import OnlineStore, open_online_store
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

__all__ = ["FeatureStatus", "FeatureValue", "OnlineFeatures", "OnlineReader", "open_reader"]

OnError = Literal["raise", "default"]
PLANS_KEPT = 256  # of different lists of features; a model or a page asks for one

INT64_DIGITS = 20  # with a sign; a longer text is no key


class OnlineFeatures(NamedTuple):
    """The features of one entity.

    Attributes
    ----------
    entity : str
        Its key, a whole number in decimal digits.
    read_at : datetime
        The moment for which it was read (UTC).
    is_known : bool
        Whether the store holds anything of the entity.
    values : FeatureValues
        A mapping of names to FeatureValue, in the order in which they were asked for.
    """

    entity: str
    read_at: datetime
    is_known: bool
    values: FeatureValues


class OnlineReader(Closing):
    """Reads the features of a use case; may be shared by threads.

    Parameters
    ----------
    store : OnlineStore
        Closed with the reader.
    now : callable
        The Clock, UTC.

    Attributes
    ----------
    used : set of str
        The features that were asked for.
    """

    def __init__(
        self, use_case: UseCase, store: OnlineStore, *, now: Callable[[], datetime]
    ) -> None:
        self._use_case, self._store, self._now = use_case, store, now
        self._layout = online_layout(use_case)
        streams = {name: EventStream(use_case, name) for name in self._layout.sources}
        self._holding = Holding(use_case, store, self._layout.records(), streams)
        self._plans: dict[tuple[str, ...], Plan] = {}
        self.used: set[str] = set()
        source = use_case.sources[use_case.population.source]
        self._is_numbered = source.column(use_case.entity.key).type == "int64"

    @property
    def names(self) -> tuple[str, ...]:
        """The features that can be read."""
        return self._layout.features

    def read(
        self,
        entities: Sequence[int | str],
        features: Sequence[str],
        *,
        request: Sequence[Mapping[str, Any]] | None = None,
        at: datetime | None = None,
        on_error: OnError = "raise",
    ) -> list[OnlineFeatures]:
        """Return the features of each entity, in their order.

        Parameters
        ----------
        request : sequence of mapping, optional
            For each entity the columns of its source that request-time features read.
        at : datetime, optional
            The moment to read for; default the Clock's.
        on_error : "raise" or "default"
            default: where the store does not answer, or what it holds is damaged, values are
            marked missing instead.

        Raises
        ------
        NotFoundError
            For a feature that does not exist or is not online, naming the nearest.
        DataError
            When the request lacks a column or has one of another type, a key is of another type,
            or the moment is so far back that its events are no longer held.
        OnlineStoreError
            When the store is gone, slow, damaged, or was never filled with these definitions.
        """
        plan = self._plan(tuple(features))
        if request is not None and len(request) != len(entities):
            raise DataError("the request needs one mapping for each entity", where="request",
                            expected=str(len(entities)), found=str(len(request)))  # fmt: skip
        keys = [self._key(entity) for entity in entities]
        moment = self._now() if at is None else at.astimezone(UTC)
        at_us = to_us(moment)
        fetch = Fetch(self._holding, keys, at_us, is_strict=on_error == "raise")
        held = list(fetch.held(plan.sources))
        values = plan.values(held, request, at_us)
        return [
            OnlineFeatures(key, moment, item.is_known, found)
            for key, item, found in zip(keys, held, values, strict=True)
        ]

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _plan(self, features: tuple[str, ...]) -> Plan:
        plan = self._plans.get(features)
        if plan is None:
            prefix = f"{self._use_case.entity.name}:"
            names = tuple(name.removeprefix(prefix) for name in features)
            for name in names:
                self._check(name)
            if len(self._plans) >= PLANS_KEPT:
                self._plans.clear()
            plan = self._plans[features] = Plan(self._layout, tuple(dict.fromkeys(names)))
            self.used.update(names)
        return plan

    def _check(self, name: str) -> None:
        if name in self.names:
            return
        where, way_out = self._use_case.name, f"mlops features list {self._use_case.name}"
        if name not in self._use_case.features:
            raise NotFoundError.of("feature", name, self.names, where=where, way_out=way_out)
        raise NotFoundError(
            f"the feature {name!r} is not online",
            where=where,
            expected="a feature of an online view, or derived from such",
            found=name,
            way_out=way_out,
        )

    def _key(self, entity: int | str) -> str:
        """Return the key as the store has it."""
        if not self._is_numbered:
            return str(entity)
        if isinstance(entity, int) and not isinstance(entity, bool):
            return str(entity)
        text = str(entity)
        if len(text) > INT64_DIGITS or not (text.isascii() and text.removeprefix("-").isdigit()):
            raise DataError(
                "the entity's key is no whole number",
                where=self._use_case.entity.key,
                expected="decimal digits",
                found=type(entity).__name__,  # the key itself may be personal
            )
        return str(int(text))


@contextmanager
def open_reader(
    use_case: UseCase, settings: Settings, *, is_noted: bool = True
) -> Iterator[OnlineReader]:
    """Yield a reader of the configured store; it is closed at the end.

    Its use is noted then in the catalogue; not with `is_noted` false, where the caller does it.
    """
    store = open_online_store(settings.online_url, timeout_ms=settings.online_timeout_ms)
    with OnlineReader(use_case, store, now=settings.now) as reader:
        yield reader
        if is_noted and reader.used:
            with OpsDatabase.open(settings.database_url) as ops:
                record_feature_use(ops, use_case.name, reader.used, "online", now=settings.now())
