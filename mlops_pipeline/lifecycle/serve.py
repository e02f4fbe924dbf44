"""Answering what the champion says of an entity: features -> score -> decide -> log -> answer.

Transport-free: HTTP translates (serving/), tests call it. The ledger says which version answers;
a thread looks every half second, and a version is loaded whole, checked by digest, before it
answers. When the champion fails, the version before it answers while it may; where no model may
decide, the configured default does. The reasons are in the answer.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.modelling.row_scorer import RowScorer
from mlops_pipeline.core.rollout.records import Rollout
from mlops_pipeline.errors import MlopsError, NotFoundError, RequestConflictError
from mlops_pipeline.lifecycle.archive import find_archived, find_archived_shadows
from mlops_pipeline.lifecycle.champions import (
    deciding_rollout,
    release_document,
    released_model,
)
from mlops_pipeline.lifecycle.deciding import Beside, Decided, Decider
from mlops_pipeline.lifecycle.entity_rows import Chance, EntityRow, check, digest_of
from mlops_pipeline.lifecycle.features.online.layout import from_us, to_us
from mlops_pipeline.lifecycle.features.online.reader import OnlineReader
from mlops_pipeline.lifecycle.follow import Repeating
from mlops_pipeline.lifecycle.live_models import LiveModel, NoModel, Version, Versions
from mlops_pipeline.lifecycle.reviews import (
    HIGH_IMPACT,
    Said,
    high_impact,
    review_answer,
    review_document,
)
from mlops_pipeline.lifecycle.rollout_watch import RolloutWatch
from mlops_pipeline.lifecycle.rollouts import find_judged, find_trial, get_rollout
from mlops_pipeline.lifecycle.serving_alerts import ServingAlerts
from mlops_pipeline.lifecycle.shadow import Shadow
from mlops_pipeline.stores import Closing
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.ops import Ledger, OpsDatabase
from mlops_pipeline.stores.predictions import (
    SHADOW,
    LoggedPrediction,
    PredictionLog,
    ShadowScore,
)
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
        self._decider = Decider(use_case, reader)
        nobody = NoModel("no version was looked for yet")
        self._versions = Versions(nobody, nobody)
        self._refreshing = threading.Lock()
        self.refresh()
        failure = "the ledger cannot be followed; the present version answers on"
        self.shadow = Shadow(log, use_case.serving.default_decision, self._count_score)
        self.watch = RolloutWatch(
            self._ops,
            trial=lambda: self._versions.trial,
            dropped=lambda: self.shadow.dropped,
            rolled_back=self.refresh,
            clock=settings.now,
        )
        self._follower = Repeating(self.refresh, failure)
        self._log_watch = Repeating(self.look_at_log, "whether the log answers is not known")
        self.alerts = ServingAlerts(
            self._ops, use_case.name, lambda: self._versions.named().values(), settings.now
        )

    @property
    def versions(self) -> Versions:
        """The versions that may answer now."""
        return self._versions

    @property
    def live(self) -> Version:
        """The version that answers now, or why there is none."""
        return self._versions.champion

    @property
    def previous(self) -> Version:
        """The version that answers when the champion fails."""
        return self._versions.previous

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
            self._log.append(made.logged).result()
        except RequestConflictError:
            return self.stored(made.logged)
        self.shadow.put(made.beside)
        return made.logged

    @property
    def is_local(self) -> bool:
        """Whether features are read from this machine: one entity's in less than a thread costs."""
        return self._reader.is_local

    def store(
        self,
        made: "Made",
        tell: Callable[[Exception | None], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Store answers, and tell in the loop what became of them; see `PredictionLog.append`."""

        def stored(failed: Exception | None) -> None:
            tell(failed)
            if failed is None:
                self.shadow.put(made.beside)

        self._log.append_then(made.logged, stored if made.beside else tell, loop)

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
        case, found = self._use_case, self._log.find(prediction_id)
        shadows = self._log.shadows(case.name, SHADOW.c.prediction_id == prediction_id)
        if found is None:
            lake = Lake(self._settings.lake_uri)
            found = find_archived(lake, case, prediction_id)
            shadows = find_archived_shadows(lake, case, prediction_id)
        if found is None or found.use_case != self._use_case.name:
            raise NotFoundError(  # the id is not repeated
                "there is no prediction with this id",
                where=self._use_case.name,
                way_out="look at the id; who was forgotten has no predictions any more",
            )
        document = answer(found)
        document["features"] = dict(found.features)
        document["latency_us"] = found.latency_us
        document["shadow"] = shadow_document(shadows[0]) if shadows else None
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
        with self._refreshing:
            self._versions = self._newest()

    def _newest(self) -> Versions:
        name = self._use_case.name
        with self._ops.read() as tx:
            champion, previous = self._found(tx, "champion"), self._found(tx, "previous")
            tried = find_trial(tx, name)
            judged = None if tried else find_judged(tx, name)
        live = self._loaded(champion)
        if isinstance(live, NoModel) and live != self._versions.champion:
            logger.error("%s has no model that may decide: %s", name, live.reason)
        challenger = None if tried is None else self._challenger(tried.rollout)
        return Versions(live, self._loaded(previous), tried or judged, challenger)

    def _found(self, ledger: Ledger, role: Literal["champion", "previous"]) -> Rollout | NoModel:
        try:
            return deciding_rollout(ledger, self._use_case, role, now=self._settings.now())
        except MlopsError as error:
            return NoModel(error.what)

    def _loaded(self, rollout: Rollout | NoModel) -> Version:
        if isinstance(rollout, NoModel):
            return rollout
        for known in self._versions.named().values():  # it keeps its breaker
            if known.fingerprint == rollout.fingerprint:
                return known
        try:
            model = released_model(self._ops, self._settings, self._use_case, rollout.fingerprint)
            RowScorer(model)  # warm and whole before it takes traffic
        except MlopsError as error:
            return NoModel(error.what, rollout.version)
        return LiveModel(
            rollout.version, rollout.fingerprint, model, self._use_case, self._reader.names
        )

    def _challenger(self, rollout: Rollout) -> Version:
        """Load the version in trial; whatever is wrong with it, the champion answers on."""
        try:
            return self._loaded(rollout)
        except Exception:
            logger.exception("version %s of %s cannot be loaded", rollout.version, rollout.use_case)
            return NoModel("the version cannot be loaded", rollout.version)

    def close(self) -> None:
        """Stop following the ledger."""
        self._follower.close()
        self.watch.close()
        self.shadow.close()
        self._log_watch.close()
        self.alerts.close()
        self._ops.close()

    def answers(
        self, entity_rows: Sequence[EntityRow], *, caller: str, request_id: str | None = None
    ) -> "Made":
        """Answer for each entity; nothing is stored yet."""
        check(entity_rows, request_id)
        digest = "" if request_id is None else digest_of(entity_rows)
        at_us = to_us(self._settings.now())
        request_id = request_id or f"{at_us:014x}{self._chance.next()}"
        default = Default(self._use_case.serving.default_decision)
        made = Made([], [])
        decided = self._decider.decide(self._versions, entity_rows)
        for place, (one, item) in enumerate(zip(entity_rows, decided, strict=True)):
            flag = self._flag({**one.request, **item.values})
            logged = LoggedPrediction(
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
                latency_us=item.latency_us,
            )
            made.logged.append(logged)
            if item.beside is not None:
                made.beside.append((item.beside, logged))
                self._count(item)
        self.alerts.note(made.logged)
        return made

    def _count(self, item: Decided) -> None:
        """Count what the versions of a trial made of a request."""
        for version in self._versions.pair.intersection(item.failed):
            self.watch.count(item.entity, version, item.latency_us, is_error=True)
        if item.version is not None and item.version in self._versions.pair:
            self.watch.count(item.entity, item.version, item.latency_us)

    def _count_score(self, beside: Beside, logged: LoggedPrediction, score: ShadowScore) -> None:
        """Count what a version says beside an answer; where nobody may decide, it says nothing."""
        is_alone = score.is_default and logged.role != "default"
        if is_alone or not (score.is_default or beside.is_failed):
            of, is_error = (score.entity, score.version), score.failure is not None
            self.watch.count(*of, score.latency_us, is_error=is_error, is_default=is_alone)

    def _flag(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what high impact changes in an answer."""
        is_high = self._has_impact is not None and self._has_impact(values)
        return {"needs_review": True} if is_high else {}


class Made(NamedTuple):
    """The answers of a request, and the version to score beside each, where there is one."""

    logged: list[LoggedPrediction]
    beside: list[tuple[Beside, LoggedPrediction]]


class Default(NamedTuple):
    """What is answered where no model may decide."""

    decision: bool
    probability: float | None = None
    threshold: float | None = None
    needs_review: bool = False


def shadow_document(score: ShadowScore) -> dict[str, Any]:
    """Return what the version that did not answer said, as plain JSON."""
    shown = ("version", "decision", "probability", "threshold", "is_default", "failure",
             "latency_us")  # fmt: skip
    return {name: getattr(score, name) for name in shown}


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
