"""The shop's service with a version in trial: steps that tests of it share."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlops_pipeline.config import UseCase
from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.core.rollout.machine import Event, EventName
from mlops_pipeline.lifecycle.entity_rows import EntityRow
from mlops_pipeline.lifecycle.features.online.reader import open_reader
from mlops_pipeline.lifecycle.live_models import LiveModel
from mlops_pipeline.lifecycle.rollouts import get_rollout, send
from mlops_pipeline.lifecycle.serve import PredictionService
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.predictions import LoggedPrediction, PredictionLog, ShadowScore
from mlops_pipeline_tests.serving.served_shop import INPUTS, release
from mlops_pipeline_tests.serving.shops import SHOP_CASE, settings_at
from mlops_pipeline_tests.worlds import NOW

ROW = {"visits": 2, "spent": 12.5, "last_kind": "web", "spent_a_visit": 6.25}
STAGES: list[Any] = ["shadow", {"share": 0.05}, {"share": 0.5}, "full"]


class TrialShop:
    """The shop with champion 1 and version 2 in trial; services are opened anew or side by side."""

    def __init__(
        self,
        root: Path,
        stack: ExitStack,
        *,
        database_url: str | None = None,
        **policy: Any,
    ) -> None:
        settings = settings_at(root)
        self.settings = replace(settings, database_url=database_url or settings.database_url)
        self._stack = stack
        self.ops = stack.enter_context(OpsDatabase.open(self.settings.database_url))
        self.policy = RolloutPolicy.model_validate({"stages": STAGES, **policy})

    def release(
        self, champion: tuple[str, ...] = INPUTS, challenger: tuple[str, ...] = INPUTS
    ) -> "TrialShop":
        release(self.settings, 1, names=champion)
        release(self.settings, 2, names=challenger, policy=self.policy)
        return self

    def service(self, case: UseCase = SHOP_CASE) -> PredictionService:
        reader = self._stack.enter_context(open_reader(case, self.settings, is_noted=False))
        log = self._stack.enter_context(PredictionLog(self.settings.predictions_url))
        made = PredictionService(case, self.settings, reader=reader, log=log)
        return self._stack.enter_context(made)

    def step(self, name: EventName, *services: PredictionService) -> None:
        """Let something happen to version 2; the services look at once."""
        rollout = get_rollout(self.ops, "shop", 2)
        send(self.ops, rollout, Event(name, "test", "because", NOW))
        for service in services:
            service.refresh()

    @property
    def state(self) -> str:
        return get_rollout(self.ops, "shop", 2).state

    def shadows(self, use_case: str = "shop") -> dict[str, ShadowScore]:
        with PredictionLog(self.settings.predictions_url) as log:
            return {one.prediction_id: one for one in log.shadows(use_case)}


def ask(
    service: PredictionService, *entities: int | str | None, **values: Any
) -> list[LoggedPrediction]:
    """Ask about entities whose row is given whole."""
    rows = [EntityRow(one, features={**ROW, **values}) for one in entities]
    return service.predict(rows, caller="(none)")


def replace_scorer(model: object, scorer: Any) -> None:
    """Let a function score in a version's place, in every thread."""
    assert isinstance(model, LiveModel)
    object.__setattr__(model, "_scorers", SimpleNamespace(own=scorer))


def fail(values: Any) -> Any:
    raise ZeroDivisionError
