"""Answering what the champion says of an entity: features -> score -> decide -> log -> answer.

Transport-free: HTTP translates (serving/), tests call it. The ledger says which version answers;
a thread looks every half second, and a version is loaded whole, checked by digest, before it
answers. When the champion fails, the version before it answers while it may; where no model may
decide, the configured default does. The reasons are in the answer.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.inputs import broken_inputs
from mlops_pipeline.core.modelling.row_scorer import Decision, RowScorer
from mlops_pipeline.errors import (
    MlopsError,
    NotFoundError,
    OnlineStoreError,
    RequestConflictError,
)
from mlops_pipeline.lifecycle.archive import find_archived
from mlops_pipeline.lifecycle.champions import (
    deciding_rollout,
    release_document,
    released_model,
)
from mlops_pipeline.lifecycle.entity_rows import Chance, EntityRow, check, digest_of
from mlops_pipeline.lifecycle.features.online.layout import from_us, to_us
from mlops_pipeline.lifecycle.features.online.reader import OnlineFeatures, OnlineReader
from mlops_pipeline.lifecycle.follow import Repeating
from mlops_pipeline.lifecycle.live_models import LiveModel, NoModel
from mlops_pipeline.lifecycle.reviews import (
    HIGH_IMPACT,
    Said,
    high_impact,
    review_answer,
    review_document,
)
from mlops_pipeline.lifecycle.rollouts import get_rollout
from mlops_pipeline.lifecycle.serving_alerts import ServingAlerts
from mlops_pipeline.stores import Closing
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.predictions import LoggedPrediction, PredictionLog, Role
from mlops_pipeline.stores.reviews import LoggedReview, find_review, waiting_for_review
from mlops_pipeline.stores.settings import Settings

logger = logging.getLogger(__name__)


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
        self._has_impact = high_impact(use_case)
        self._chance = Chance()
        self._live: LiveModel | NoModel = NoModel("no version was looked for yet")
        self._previous: LiveModel | NoModel = NoModel("no version was looked for yet")
        self.refresh()
        failure = "the ledger cannot be followed; the present version answers on"
        self._follower = Repeating(self.refresh, failure)
        self._log_watch = Repeating(self.look_at_log, "whether the log answers is not known")
        self.alerts = ServingAlerts(
            self._ops, use_case.name, lambda: (self._live, self._previous), settings.now
        )

    @property
    def live(self) -> LiveModel | NoModel:
        """The version that answers now, or why there is none."""
        return self._live

    @property
    def previous(self) -> LiveModel | NoModel:
        """The version that answers when the champion fails."""
        return self._previous

    def look_at_log(self) -> None:
        """See whether the log answers; a thread does so every half second."""
        self._log.look()

    @property
    def log_is_away(self) -> bool:
        """Whether nothing can be answered, because it could not be stored."""
        return self._log.is_away

    @property
    def log_queue(self) -> int:
        """How many requests wait for the log."""
        return self._log.waiting

    def predict(
        self, entity_rows: Sequence[EntityRow], *, caller: str, request_id: str | None = None
    ) -> list[LoggedPrediction]:
        """Answer for each entity, in their order, when the answers are stored.

        The same `request_id` of a caller again gets the same answers; RequestConflictError with
        another body. DataError when the request cannot be used as it is.
        """
        made = self.answers(entity_rows, caller=caller, request_id=request_id)
        try:
            self._log.append(made).result()
        except RequestConflictError:
            return self.stored(made)
        return made

    @property
    def is_local(self) -> bool:
        """Whether features are read from this machine: one entity's in less than a thread costs."""
        return self._reader.is_local

    def store(
        self,
        made: Sequence[LoggedPrediction],
        tell: Callable[[Exception | None], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Store answers, and tell in the loop what became of them; see `PredictionLog.append`."""
        self._log.append_then(made, tell, loop)

    def stored(self, made: Sequence[LoggedPrediction]) -> list[LoggedPrediction]:
        """Return what the request of these answers was answered before: the first answers count.

        RequestConflictError when its body was another.
        """
        stored = self._log.of_request(self._use_case.name, made[0].caller, made[0].request_id)
        if any(one.request_digest != made[0].request_digest for one in stored):
            raise RequestConflictError(
                "the id of this request was used for another one",
                where="request_id",
                expected="the same body as before, or a new id",
                found="another body",
                way_out="give each request an id of its own",
            )
        return stored

    def receipt(self, prediction_id: str) -> dict[str, Any]:
        """Return an answer with all that it was made of, down to data and runs."""
        lake = Lake(self._settings.lake_uri)
        found = self._log.find(prediction_id) or find_archived(lake, self._use_case, prediction_id)
        if found is None or found.use_case != self._use_case.name:
            raise NotFoundError(  # the id is not repeated
                "there is no prediction with this id",
                where=self._use_case.name,
                way_out="look at the id; who was forgotten has no predictions any more",
            )
        document = answer(found)
        document["features"] = dict(found.features)
        document["review"] = review_document(find_review(self._log, found.id))
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

    def waiting(self, limit: int) -> list[LoggedPrediction]:
        """Return the oldest answers that wait for a person to look at them."""
        return waiting_for_review(self._log, self._use_case.name, limit)

    def review(self, prediction_id: str, said: Said) -> LoggedReview:
        """Record what a person says about an answer."""
        now = self._settings.now()
        name = self._use_case.name
        return review_answer(self._log, self._ops, name, prediction_id, said, now=now)

    def refresh(self) -> None:
        """Load the versions that the ledger says may decide, unless they are loaded."""
        live = self._loaded("champion")
        if isinstance(live, NoModel) and live != self._live:
            logger.error("%s has no model that may decide: %s", self._use_case.name, live.reason)
        self._live, self._previous = live, self._loaded("previous")

    def _loaded(self, role: Literal["champion", "previous"]) -> LiveModel | NoModel:
        now = self._settings.now()
        try:
            rollout = deciding_rollout(self._ops, self._use_case, role, now=now)
            for known in (self._live, self._previous):  # the other keeps its breaker
                if known.fingerprint == rollout.fingerprint:
                    return known
            model = released_model(self._ops, self._settings, self._use_case, rollout.fingerprint)
            RowScorer(model)  # warm and whole before it takes traffic
        except MlopsError as error:
            return NoModel(error.what)
        return LiveModel(
            rollout.version, rollout.fingerprint, model, self._use_case, self._reader.names
        )

    def close(self) -> None:
        """Stop following the ledger."""
        self._follower.close()
        self._log_watch.close()
        self.alerts.close()
        self._ops.close()

    def answers(
        self, entity_rows: Sequence[EntityRow], *, caller: str, request_id: str | None = None
    ) -> list[LoggedPrediction]:
        """Answer for each entity; nothing is stored yet."""
        check(entity_rows, request_id)
        digest = "" if request_id is None else digest_of(entity_rows)
        at_us = to_us(self._settings.now())
        request_id = request_id or f"{at_us:014x}{self._chance.next()}"
        default = Default(self._use_case.serving.default_decision)
        made = [
            LoggedPrediction(
                id=f"{at_us:014x}{self._chance.next()}",
                use_case=self._use_case.name,
                entity=item.entity,
                at_us=at_us,
                caller=caller,
                request_id=request_id,
                place=place,
                request_digest=digest,
                model_version=item.version,
                role=item.role,
                **{**(item.decision or default)._asdict(), **flag},
                reasons=(*item.reasons, *([HIGH_IMPACT] if flag else [])),
                features=dict(item.values),
                feature_time_us=item.time_us,
            )
            for place, (item, flag) in enumerate(self._flagged(entity_rows))
        ]
        self.alerts.note(made)
        return made

    def _flagged(
        self, entity_rows: Sequence[EntityRow]
    ) -> "Iterator[tuple[_Found, dict[str, Any]]]":
        """Yield what was decided about each entity, and what high impact changes in it."""
        for one, item in zip(entity_rows, self._decided(entity_rows), strict=True):
            has_impact = self._has_impact
            is_high = has_impact is not None and has_impact({**one.request, **item.values})
            yield item, {"needs_review": True} if is_high else {}

    def _decided(self, entity_rows: Sequence[EntityRow]) -> "list[_Found]":
        """Let the champion decide, and where it fails the version before it.

        What has reasons and no role is the default's.
        """
        found = [_Found(self._key(one)) for one in entity_rows]
        roles: tuple[Role, Role] = ("champion", "previous")
        failures: tuple[str, ...] = ()
        left = list(range(len(entity_rows)))
        for role, model in zip(roles, (self._live, self._previous), strict=True):
            if isinstance(model, NoModel):
                failures = failures or (model.reason,)  # why no champion, rather than no other
                break
            if model.guard.admits():
                items = self._found(model, [entity_rows[place] for place in left])
                for place, item in zip(left, items, strict=True):
                    found[place] = item.decided_by(model, role, failures)
            left = [place for place in left if not (found[place].decision or found[place].reasons)]
            if not left:
                break
            failures += (f"version {model.version} fails",)
        for place in left:
            found[place] = found[place]._replace(reasons=failures)
        return found

    def _found(self, live: LiveModel, entity_rows: Sequence[EntityRow]) -> "list[_Found]":
        """Return the features of each entity, and why a model may not decide on them."""
        read = iter(self._read(live, [one for one in entity_rows if one.features is None]))
        found = [
            next(read) if one.features is None else _Found(self._key(one), one.features)
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

    def _read(self, live: LiveModel, entity_rows: Sequence[EntityRow]) -> "list[_Found]":
        """Read the store once, for all."""
        if not entity_rows:
            return []
        try:
            read = self._reader.read(
                [one.entity or "" for one in entity_rows],
                live.online,
                request=[one.request for one in entity_rows],
            )
        except OnlineStoreError as error:
            logger.warning("the online store failed: %s", error)
            reasons = (f"features cannot be read: {error.what}",)
            return [_Found(self._key(one), reasons=reasons) for one in entity_rows]
        return [self._fit(live, item) for item in read]

    def _key(self, one: EntityRow) -> str:
        """Return the key as the store has it; empty of nobody."""
        return "" if one.entity is None else self._reader.key(one.entity)

    def _fit(self, live: LiveModel, item: OnlineFeatures) -> "_Found":
        """Return what was read of an entity, with what is missing or stale as reasons."""
        if not item.is_known:
            return _Found(item.entity, reasons=("the entity is not known",))
        summary, unfit = item.values.summary, dict[str, None]()
        on_missing = self._use_case.serving.on_missing
        for name, status in summary.not_fresh:
            unfit |= {
                f"features of {view} are {status}": None
                for view in live.views[name]
                if on_missing.get(view, "default") == "default"
            }
        time_us = None if summary.oldest is None else to_us(summary.oldest)
        reasons = (*live.offline_reasons, *unfit)
        return _Found(item.entity, item.values.plain(), time_us, reasons)


class Default(NamedTuple):
    """What is answered where no model may decide."""

    decision: bool
    probability: float | None = None
    threshold: float | None = None
    needs_review: bool = False


class _Found(NamedTuple):
    """The features of an entity, the time of the oldest, and who decided what, or why nobody."""

    entity: str
    values: Mapping[str, Any] = MappingProxyType({})
    time_us: int | None = None
    reasons: tuple[str, ...] = ()
    role: Role = "default"
    version: int | None = None
    decision: Decision | None = None

    def decided_by(self, model: LiveModel, role: Role, failures: tuple[str, ...]) -> "_Found":
        """Return it with what a version decides; as it is, where there are reasons, or it fails."""
        decision = None if self.reasons else model.decide(self.values)
        if decision is None:
            return self
        return self._replace(decision=decision, role=role, version=model.version, reasons=failures)


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
