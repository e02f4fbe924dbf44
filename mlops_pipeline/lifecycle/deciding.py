"""Which version decides about an entity, and what: features -> rules -> version -> decision.

One read has what both versions of a trial need; each decides on its own. What is logged and
answered is serve.py's, which versions there are live_models.py's.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.inputs import broken_inputs
from mlops_pipeline.core.modelling.row_scorer import Decision
from mlops_pipeline.errors import DataError, OnlineStoreError
from mlops_pipeline.lifecycle.entity_rows import EntityRow
from mlops_pipeline.lifecycle.features.online.layout import to_us
from mlops_pipeline.lifecycle.features.online.reader import OnlineFeatures, OnlineReader
from mlops_pipeline.lifecycle.live_models import LiveModel, NoModel, Version, Versions
from mlops_pipeline.stores.predictions import Role

NS_OF_US = 1_000
logger = logging.getLogger(__name__)


class Beside(NamedTuple):
    """The version of a trial that did not answer about a row.

    `reasons` say why it may not decide; `is_failed`: it was asked and failed. Its features took
    `ready_us`.
    """

    version: int
    model: Version
    reasons: tuple[str, ...]
    is_failed: bool
    ready_us: int


class Decided(NamedTuple):
    """What was decided about an entity, on which features; without a decision, the default is.

    `reasons` say why no version decided, or not the first that was asked; `failed` are those that
    were asked and failed.
    """

    entity: str
    values: Mapping[str, Any]
    time_us: int | None
    reasons: tuple[str, ...]
    role: Role
    version: int | None
    decision: Decision | None
    latency_us: int
    failed: tuple[int, ...]
    beside: Beside | None


class _Features(NamedTuple):
    """What is known of an entity; with `reasons`, no version may decide on it.

    `not_fresh` is None of what was not read. `unread` are features of the version beside the
    champion that could not be read.
    """

    entity: str
    values: Mapping[str, Any] = MappingProxyType({})
    time_us: int | None = None
    not_fresh: Sequence[tuple[str, str]] | None = None
    unread: frozenset[str] = frozenset()
    reasons: tuple[str, ...] = ()

    def unfit_for(self, model: Version) -> tuple[str, ...]:
        """Return why a version may not decide on them."""
        if self.not_fresh is None or isinstance(model, NoModel):
            return self.reasons
        lacking = [f"{name} cannot be read" for name in model.online if name in self.unread]
        return (*model.unfit(self.not_fresh), *lacking, *self.reasons)


class _Refused(NamedTuple):
    """Why a version does not decide: it fails, or may not decide on these features."""

    reasons: tuple[str, ...]
    is_failure: bool


class Decider:
    """Decides about entities of a use case; may be shared by threads."""

    def __init__(self, use_case: UseCase, reader: OnlineReader) -> None:
        self._use_case, self._reader = use_case, reader

    def decide(self, versions: Versions, entity_rows: Sequence[EntityRow]) -> Iterator[Decided]:
        """Yield what is decided about each entity, in their order."""
        began = time.perf_counter_ns()
        if any(isinstance(one, LiveModel) for one in (versions.champion, versions.beside)):
            found = self._features(versions.reads, entity_rows)
        else:
            found = [_Features(self._key(one)) for one in entity_rows]
        ready_us = (time.perf_counter_ns() - began) // NS_OF_US // len(entity_rows)
        for one, item in zip(entity_rows, found, strict=True):
            yield self._decided(versions, one, item, ready_us)

    def _decided(
        self, versions: Versions, one: EntityRow, item: _Features, ready_us: int
    ) -> Decided:
        """Ask one version after the other; what has reasons and no decision is the default's."""
        began, reasons, failed = time.perf_counter_ns(), tuple[str, ...](), tuple[int, ...]()
        by: Role = "default"
        version, decision = None, None
        for role, model in versions.asked(item.entity):
            if role == "canary" and item.reasons:
                continue  # of any version
            if role == "previous" and isinstance(model, NoModel):
                break  # why the champion did not decide is said
            if role == "previous" and one.features is None:
                item = self._with_features_of(model, one, item, versions.reads)
            tried = _try(role, model, item)
            if isinstance(tried, Decision):
                by, version, decision = role, model.version, tried
                break
            reasons += tried.reasons
            if tried.is_failure and model.version is not None:
                failed += (model.version,)
            elif role != "canary":
                break
        took_us = ready_us + (time.perf_counter_ns() - began) // NS_OF_US
        beside = _beside(versions, version, item, failed, ready_us)
        return Decided(
            item.entity, item.values, item.time_us, reasons, by, version, decision, took_us,
            failed, beside,
        )  # fmt: skip

    def _features(
        self, reads: Sequence[tuple[str, ...]], entity_rows: Sequence[EntityRow]
    ) -> list[_Features]:
        """Return the features of each entity, and why no version may decide on them."""
        unknown = [one for one in entity_rows if one.features is None]
        read = iter(self._read(reads, unknown) if unknown else ())
        found = [
            next(read) if one.features is None else _Features(self._key(one), one.features)
            for one in entity_rows
        ]
        rules = self._use_case.serving.inputs
        if not rules:
            return found
        return [
            item._replace(
                reasons=item.reasons + broken_inputs(rules, {**one.request, **item.values})
            )
            for one, item in zip(entity_rows, found, strict=True)
        ]

    def _read(
        self, reads: Sequence[tuple[str, ...]], entity_rows: Sequence[EntityRow]
    ) -> list[_Features]:
        """Read the store once, for all; where that fails, what the champion alone needs."""
        names, *narrower = reads
        try:
            read = self._reader.read(
                [one.entity or "" for one in entity_rows],
                names,
                request=[one.request for one in entity_rows],
            )
        except (OnlineStoreError, DataError) as error:
            if narrower:
                unread = frozenset(names).difference(*narrower)
                return [one._replace(unread=unread) for one in self._read(narrower, entity_rows)]
            if isinstance(error, DataError):
                raise
            logger.warning("the online store failed: %s", error)
            reasons = (f"features cannot be read: {error.what}",)
            return [_Features(self._key(one), reasons=reasons) for one in entity_rows]
        return [_known(item) for item in read]

    def _with_features_of(
        self, model: Version, one: EntityRow, item: _Features, reads: Sequence[tuple[str, ...]]
    ) -> _Features:
        """Read an entity again where a version needs features that were not read."""
        if item.values.keys() >= {*model.online}:
            return item
        every = tuple(dict.fromkeys((*reads[0], *model.online)))
        (again,) = self._features((every, model.online), [one])
        return again

    def _key(self, one: EntityRow) -> str:
        """Return the key as the store has it; empty of nobody."""
        return "" if one.entity is None else self._reader.key(one.entity)


def _known(item: OnlineFeatures) -> _Features:
    """Return what was read of an entity."""
    if not item.is_known:
        return _Features(item.entity, reasons=("the entity is not known",))
    summary = item.values.summary
    time_us = None if summary.oldest is None else to_us(summary.oldest)
    return _Features(item.entity, item.values.plain(), time_us, summary.not_fresh)


def _try(role: Role, model: Version, item: _Features) -> Decision | _Refused:
    """Ask a version; a canary that may not decide says so, as others do then."""
    if isinstance(model, NoModel):
        return _Refused((model.reason,), is_failure=role == "canary")
    fails = _Refused((f"version {model.version} fails",), is_failure=True)
    unfit = item.unfit_for(model)
    if unfit and role == "canary":
        unfit = (f"version {model.version} may not decide: {'; '.join(unfit)}",)
    if unfit:
        return _Refused(unfit, is_failure=False)
    if not model.guard.admits():
        return fails
    try:
        return model.decide(item.values) or fails
    except DataError:  # a fault of the request, unless the champion can decide on it
        if role != "canary":
            raise
        return fails


def _beside(
    versions: Versions,
    version: int | None,
    item: _Features,
    failed: tuple[int, ...],
    ready_us: int,
) -> Beside | None:
    """Return the version of the trial that did not answer; None where there is no trial."""
    other = versions.beside
    if other is None or other.version is None:
        return None
    if other.version == version:
        other = versions.champion
    if other.version is None:
        return None
    is_failed = other.version in failed
    return Beside(other.version, other, item.unfit_for(other), is_failed, ready_us)
