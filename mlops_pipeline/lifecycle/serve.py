"""Answering what the champion says of an entity: features -> score -> decide -> log -> answer.

Transport-free: HTTP translates (serving/), tests call it. The ledger says which version answers;
a thread looks every half second, and a version is loaded whole, checked by digest, before it
answers. Where no model may decide, the configured default does, with the reasons.
"""

import hashlib
import json
import logging
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.inputs import broken_inputs
from mlops_pipeline.core.modelling.row_scorer import Decision, RowScorer
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.errors import (
    DataError,
    MlopsError,
    NotFoundError,
    OnlineStoreError,
    RequestConflictError,
)
from mlops_pipeline.lifecycle.champions import (
    champion_rollout,
    release_document,
    released_model,
)
from mlops_pipeline.lifecycle.features.history import select_features
from mlops_pipeline.lifecycle.features.online.layout import from_us, to_us
from mlops_pipeline.lifecycle.features.online.reader import OnlineFeatures, OnlineReader
from mlops_pipeline.lifecycle.follow import Repeating
from mlops_pipeline.lifecycle.rollouts import get_rollout
from mlops_pipeline.stores import Closing
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.predictions import LoggedPrediction, PredictionLog
from mlops_pipeline.stores.settings import Settings

ENTITIES_AT_ONCE = 1_000  # of one request
MAX_ID = 100  # letters of an entity's or a request's id
ID_BYTES = 8  # of chance, behind the time, in the id of a prediction

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """Whom a prediction is about; `request` has the columns of request-time features.

    With `features`, a whole row of the model's inputs, the store is not read.
    """

    entity: int | str
    request: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class LiveModel:
    """A version that answers, and what it needs; `views` of each feature."""

    version: int
    fingerprint: str
    model: ScoringModel
    use_case: UseCase

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features that it reads."""
        return tuple(dict.fromkeys((*self.model.input_names, *self.model.attributes)))

    @cached_property
    def views(self) -> Mapping[str, tuple[str, ...]]:
        """The views that each feature is made of."""
        known = [name for name in self.names if name in self.use_case.features]
        return {name: tuple(select_features(self.use_case, [name]).views) for name in known}


@dataclass(frozen=True)
class NoModel:
    """Why no version answers."""

    reason: str
    version: None = None
    fingerprint: None = None


class PredictionService(Closing):
    """Answers for one use case; may be shared by threads.

    `reader` and `log` are closed by who opened them.
    """

    def __init__(
        self, use_case: UseCase, settings: Settings, *, reader: OnlineReader, log: PredictionLog
    ) -> None:
        self._use_case, self._settings = use_case, settings
        self._reader, self._log = reader, log
        self._ops = OpsDatabase.open(settings.database_url)
        self._scorers = threading.local()
        self._live: LiveModel | NoModel = NoModel("no version was looked for yet")
        self.refresh()
        failure = "the ledger cannot be followed; the present version answers on"
        self._follower = Repeating(self.refresh, failure)

    @property
    def live(self) -> LiveModel | NoModel:
        """The version that answers now, or why there is none."""
        return self._live

    def predict(
        self, asked: Sequence[Asked], *, caller: str, request_id: str | None = None
    ) -> list[LoggedPrediction]:
        """Answer for each entity, in their order, when the answers are stored.

        The same `request_id` of a caller again gets the same answers; RequestConflictError with
        another body. DataError when the request cannot be used as it is.
        """
        digest = _digest(asked)
        _check(asked, request_id)
        if request_id is not None:
            stored = self._log.of_request(self._use_case.name, caller, request_id)
            if stored:
                return _same(stored, digest)
        made = self._answers(asked, caller, request_id or secrets.token_hex(16), digest)
        try:
            self._log.append(made).result()
        except RequestConflictError:  # the same request came twice at once: the first counts
            stored = self._log.of_request(self._use_case.name, caller, made[0].request_id)
            return _same(stored, digest)
        return made

    def receipt(self, prediction_id: str) -> dict[str, Any]:
        """Return an answer with all that it was made of, down to data and runs."""
        found = self._log.find(prediction_id)
        if found is None or found.use_case != self._use_case.name:
            raise NotFoundError(  # the id is not repeated
                "there is no prediction with this id",
                where=self._use_case.name,
                way_out="look at the id; who was forgotten has no predictions any more",
            )
        document = answer(found)
        document["features"] = dict(found.features)
        if found.model_version is not None:
            rollout = get_rollout(self._ops, self._use_case.name, found.model_version)
            released = release_document(self._settings, self._use_case, rollout.fingerprint)
            document["model"] = {
                "version": found.model_version,
                "fingerprint": rollout.fingerprint,
                "mlflow_run_id": rollout.mlflow_run_id,
                "dagster_run_id": rollout.dagster_run_id,
                "provenance": released.get("provenance", {}),
                "training": released.get("training", {}),
            }
        return document

    def refresh(self) -> None:
        """Load the version that the ledger says may decide, unless it is the one that answers."""
        try:
            rollout = champion_rollout(self._ops, self._use_case, now=self._settings.now())
            if self._live.fingerprint != rollout.fingerprint:
                model = released_model(self._settings, self._use_case, rollout.fingerprint)
                RowScorer(model)  # warm and whole before it takes traffic
                self._live = LiveModel(rollout.version, rollout.fingerprint, model, self._use_case)
        except MlopsError as error:
            if self._live != NoModel(error.what):
                logger.error("%s has no model that may decide: %s", self._use_case.name, error)
            self._live = NoModel(error.what)

    def close(self) -> None:
        """Stop following the ledger."""
        self._follower.close()
        self._ops.close()

    def _answers(
        self, asked: Sequence[Asked], caller: str, request_id: str, digest: str
    ) -> list[LoggedPrediction]:
        live, at_us = self._live, to_us(self._settings.now())
        if isinstance(live, NoModel):
            found = [_Found(self._reader.key(one.entity), reasons=(live.reason,)) for one in asked]
        else:
            found = self._found(live, asked)
        default = Default(self._use_case.serving.default_decision)
        answers = []
        for place, item in enumerate(found):
            made = default if isinstance(live, NoModel) else self._decided(live, item) or default
            is_default = made is default
            answers.append(
                LoggedPrediction(
                    id=f"{at_us:014x}{secrets.token_hex(ID_BYTES)}",
                    use_case=self._use_case.name,
                    entity=item.entity,
                    at_us=at_us,
                    caller=caller,
                    request_id=request_id,
                    place=place,
                    request_digest=digest,
                    model_version=None if is_default else live.version,
                    role="default" if is_default else "champion",
                    **made._asdict(),
                    reasons=item.reasons,
                    features=dict(item.values),
                    feature_time_us=item.time_us,
                )
            )
        return answers

    def _decided(self, live: LiveModel, found: "_Found") -> Decision | None:
        """Score with this thread's own scorer; None where there are reasons not to."""
        if found.reasons:
            return None
        held: tuple[LiveModel, RowScorer] | None = getattr(self._scorers, "held", None)
        if held is None or held[0] is not live:
            held = self._scorers.held = (live, RowScorer(live.model))
        return held[1](found.values)

    def _found(self, live: LiveModel, asked: Sequence[Asked]) -> "list[_Found]":
        """Return the features of each entity, and why a model may not decide on them."""
        read = iter(self._read(live, [one for one in asked if one.features is None]))
        found = [
            next(read)
            if one.features is None
            else _Found(self._reader.key(one.entity), one.features)
            for one in asked
        ]
        rules = self._use_case.serving.inputs
        return [
            item._replace(
                reasons=item.reasons + broken_inputs(rules, {**one.request, **item.values})
            )
            for one, item in zip(asked, found, strict=True)
        ]

    def _read(self, live: LiveModel, asked: Sequence[Asked]) -> "list[_Found]":
        """Read the store once, for all."""
        if not asked:
            return []
        online = [name for name in live.names if name in self._reader.names]
        try:
            read = self._reader.read(
                [one.entity for one in asked], online, request=[one.request for one in asked]
            )
        except OnlineStoreError as error:
            logger.warning("the online store failed: %s", error)
            reasons = (f"features cannot be read: {error.what}",)
            return [_Found(self._reader.key(one.entity), reasons=reasons) for one in asked]
        return [self._fit(live, item) for item in read]

    def _fit(self, live: LiveModel, item: OnlineFeatures) -> "_Found":
        """Return what was read of an entity, with what is missing or stale as reasons."""
        if not item.is_known:
            return _Found(item.entity, reasons=("the entity is not known",))
        reasons = [f"{name} is not online" for name in live.names if name not in item.values]
        on_missing, unfit = self._use_case.serving.on_missing, dict[str, None]()
        for name, value in item.values.items():
            if value.status != "fresh":
                unfit |= {
                    f"features of {view} are {value.status}": None
                    for view in live.views[name]
                    if on_missing.get(view, "default") == "default"
                }
        times = [value.feature_time for value in item.values.values() if value.feature_time]
        time_us = to_us(min(times)) if times else None
        return _Found(item.entity, item.values.plain(), time_us, (*reasons, *unfit))


class Default(NamedTuple):
    """What is answered where no model may decide."""

    decision: bool
    probability: float | None = None
    threshold: float | None = None
    needs_review: bool = False


class _Found(NamedTuple):
    """The features of an entity, the time of the oldest, and why no model may decide on them."""

    entity: str
    values: Mapping[str, Any] = MappingProxyType({})
    time_us: int | None = None
    reasons: tuple[str, ...] = ()


def answer(found: LoggedPrediction) -> dict[str, Any]:
    """Return an answer as plain JSON, without the features."""
    time_us = found.feature_time_us
    return {
        "prediction_id": found.id,
        "entity_id": found.entity,
        "decision": found.decision,
        "probability": found.probability,
        "threshold": found.threshold,
        "needs_review": found.needs_review,
        "role": found.role,
        "reasons": list(found.reasons),
        "model_version": found.model_version,
        "request_id": found.request_id,
        "predicted_at": from_us(found.at_us).isoformat(),
        "feature_time": None if time_us is None else from_us(time_us).isoformat(),
    }


def _digest(asked: Sequence[Asked]) -> str:
    """Return the hash of what a request asks, to tell another one of the same id."""
    text = json.dumps([vars(one) for one in asked], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _same(stored: list[LoggedPrediction], digest: str) -> list[LoggedPrediction]:
    if any(one.request_digest != digest for one in stored):
        raise RequestConflictError(
            "the id of this request was used for another one",
            where="request_id",
            expected="the same body as before, or a new id",
            found="another body",
            way_out="give each request an id of its own",
        )
    return stored


def _check(asked: Sequence[Asked], request_id: str | None) -> None:
    """Refuse what is too long before anything is read."""
    if not 0 < len(asked) <= ENTITIES_AT_ONCE:
        raise DataError(
            "a request asks for one entity or more",
            expected=f"1 to {ENTITIES_AT_ONCE:,}",
            found=f"{len(asked):,}",
        )
    ids = [*(("entity_id", str(one.entity)) for one in asked), ("request_id", request_id or "-")]
    for name, text in ids:
        if not 0 < len(text) <= MAX_ID:
            raise DataError(
                "an id is empty or too long",
                where=name,
                expected=f"1 to {MAX_ID} letters",
                found=f"{len(text):,}",
            )
