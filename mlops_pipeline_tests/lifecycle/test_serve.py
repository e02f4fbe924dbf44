"""Answers without HTTP: which version decides, when the default does, and what is kept of it."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.core.modelling.row_scorer import RowScorer
from mlops_pipeline.core.rollout.breaker import MIN_REQUESTS, OPEN_SECONDS, TRIALS, Breaker
from mlops_pipeline.errors import DataError, NotFoundError, RequestConflictError
from mlops_pipeline.lifecycle.champions import MODEL
from mlops_pipeline.lifecycle.entity_rows import EntityRow
from mlops_pipeline.lifecycle.features.online.reader import open_reader
from mlops_pipeline.lifecycle.live_models import LiveModel, NoModel
from mlops_pipeline.lifecycle.serve import PredictionService
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.predictions import LoggedPrediction, PredictionLog
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline_tests.lifecycle.rollout_steps import approve, open_waiting
from mlops_pipeline_tests.serving.conftest import changed, shops
from mlops_pipeline_tests.serving.served_shop import INPUTS, release, shop_model
from mlops_pipeline_tests.serving.shops import SHOP_CASE, SHOP_DOCUMENT, settings_at
from mlops_pipeline_tests.worlds import NOW

__all__ = ["changed", "shops"]

ROW = {"visits": 2, "spent": 12.5, "last_kind": "web", "spent_a_visit": 6.25}


class Served:
    """A service of the shop at a time, opened anew for each configuration."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self.settings, self._stack = settings, stack

    def service(self, **serving: Any) -> PredictionService:
        case = UseCase.model_validate({**SHOP_DOCUMENT, "serving": serving})
        reader = self._stack.enter_context(open_reader(case, self.settings, is_noted=False))
        log = self._stack.enter_context(PredictionLog(self.settings.predictions_url))
        made = PredictionService(case, self.settings, reader=reader, log=log)
        return self._stack.enter_context(made)


@pytest.fixture
def served(changed: Path) -> Iterator[Served]:
    with ExitStack() as stack:
        yield Served(settings_at(changed), stack)


def ask(service: PredictionService, *entities: int | str, **options: Any) -> list[LoggedPrediction]:
    return service.predict([EntityRow(one) for one in entities], caller="(none)", **options)


def test_answer_is_what_the_model_says_of_the_features_of_the_store(served: Served) -> None:
    model = release(served.settings)
    service = served.service()
    (one,) = ask(service, 1)
    columns = {name: np.array([one.features[name]], dtype=object) for name in INPUTS}
    for name in ("visits", "spent", "spent_a_visit"):
        columns[name] = columns[name].astype(np.float32)
    said = model.decide(columns)
    assert one.features == {"visits": 2, "spent": 12.5, "last_kind": "web", "spent_a_visit": 6.25}
    assert (one.role, one.model_version, one.reasons) == ("champion", 1, ())
    assert one.probability == said.probability[0]
    assert one.decision is bool(said.decision[0])


def test_list_is_answered_row_by_row_in_its_order(served: Served) -> None:
    release(served.settings)
    found = ask(served.service(), 2, 99, 1)
    assert [(one.entity, one.role) for one in found] == [
        ("2", "champion"), ("99", "default"), ("1", "champion")]  # fmt: skip
    assert found[1].reasons == ("the entity is not known",)
    assert (found[1].probability, found[1].model_version) == (None, None)


def test_whole_row_is_scored_without_the_store(served: Served) -> None:
    release(served.settings)
    service = served.service()
    (given,) = service.predict([EntityRow(99, features=ROW)], caller="(none)")
    (read,) = ask(service, 1)
    assert given.role == "champion"
    assert given.probability == read.probability
    lacking = {name: value for name, value in ROW.items() if name != "spent"}
    with pytest.raises(DataError, match="features of the model are missing"):
        service.predict([EntityRow(99, features=lacking)], caller="(none)")


def test_stale_features_give_the_default_unless_their_view_says_score(served: Served) -> None:
    release(served.settings)
    served.settings = replace(served.settings, fixed_now=NOW + timedelta(days=11))
    (strict,) = ask(served.service(default_decision=True), 1)
    assert (strict.role, strict.decision) == ("default", True)
    assert strict.reasons == ("features of history are stale",)
    (tolerant,) = ask(served.service(on_missing={"history": "score"}), 1)
    assert tolerant.role == "champion"


def test_store_that_is_away_gives_the_default_and_says_so(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(served.settings)
    service = served.service()
    Path(served.settings.online_url.removeprefix("sqlite:///")).unlink()
    (one,) = ask(service, 1)
    assert one.role == "default"
    assert one.reasons == (
        "features cannot be read: the file of the online store cannot be reached",)  # fmt: skip


def test_inputs_that_break_a_rule_give_the_default_with_the_rule(served: Served) -> None:
    release(served.settings)
    rules = [
        {"rule": "range", "column": "spent", "min": 0, "max": 10},
        {"rule": "in_set", "column": "last_kind", "values": ["till"]},
        {"rule": "not_null", "columns": ["visits"]},
    ]
    service = served.service(inputs=rules)
    (one,) = ask(service, 1)
    assert one.reasons == ("spent is outside of [0, 10]", "last_kind is none of the 1 known values")
    (other,) = service.predict(
        [EntityRow(7, features={**ROW, "spent": 3, "last_kind": None, "visits": None})],
        caller="(none)",
    )
    assert other.reasons == ("visits is missing",)


def test_without_a_champion_everybody_gets_the_default(served: Served) -> None:
    service = served.service()
    assert service.live == NoModel("shop has no champion")
    (one,) = ask(service, 1)
    assert (one.role, one.reasons) == ("default", ("shop has no champion",))


def test_version_that_becomes_champion_answers_from_the_next_look_on(served: Served) -> None:
    release(served.settings, 1)
    service = served.service()
    release(served.settings, 2)
    service.refresh()
    (one,) = ask(service, 1)
    assert one.model_version == 2
    assert isinstance(service.live, LiveModel)
    assert service.live.model.files == shop_model(2).files


class Failing:
    """A scorer that fails while it is broken; else it is the one it stands for."""

    def __init__(self, model: LiveModel | NoModel) -> None:
        assert isinstance(model, LiveModel)
        self.model, self.calls, self.is_broken = model, 0, True
        model.decide(ROW)
        self._own = model._scorers.own
        model._scorers.own = self

    def __call__(self, values: Any) -> Any:
        self.calls += 1
        if self.is_broken:
            raise ZeroDivisionError
        return self._own(values)


def test_version_before_answers_where_the_champion_fails(served: Served) -> None:
    release(served.settings, 1)
    release(served.settings, 2)
    service = served.service()
    (well,) = ask(service, 1)
    assert (well.role, well.model_version) == ("champion", 2)
    champion = Failing(service.live)
    found = ask(service, 1, 99, 2)
    assert [(one.role, one.model_version) for one in found] == [
        ("previous", 1), ("default", None), ("previous", 1)]  # fmt: skip
    assert found[0].probability == shop_decision(1, found[0])
    assert found[0].reasons == ("version 2 fails",)
    assert found[1].reasons == ("the entity is not known",)
    Failing(service.previous)
    (one,) = ask(service, 1)
    assert (one.role, one.probability) == ("default", None)
    assert one.reasons == ("version 2 fails", "version 1 fails")
    for _ in range(2 * MIN_REQUESTS):
        ask(service, 1)
    assert champion.model.guard.state == "open"
    calls = champion.calls
    ask(service, 1)
    assert champion.calls == calls  # it is not asked any more


def shop_decision(version: int, one: LoggedPrediction) -> float:
    """What a version says of the features of an answer."""
    return RowScorer(shop_model(version))(one.features).probability


def test_breaker_closes_when_the_champion_is_well_again(served: Served) -> None:
    release(served.settings)
    service = served.service()
    champion = Failing(service.live)
    for _ in range(MIN_REQUESTS):
        ask(service, 1)
    assert champion.model.guard.state == "open"
    champion.is_broken = False
    champion.model.guard._breaker = Breaker("open", since=time.monotonic() - OPEN_SECONDS)
    found = [ask(service, 1)[0].role for _ in range(TRIALS)]
    assert found == ["champion"] * TRIALS
    assert champion.model.guard.state == "closed"


def test_thread_follows_the_ledger_by_itself(served: Served) -> None:
    release(served.settings, 1)
    service = served.service()
    release(served.settings, 2)
    waiting = threading.Event()
    for _ in range(200):  # at most 20 s
        if service.live.version == 2:
            break
        waiting.wait(0.1)
    assert service.live.version == 2


def test_version_with_altered_files_never_answers(served: Served) -> None:
    release(served.settings)
    folder = Lake(served.settings.lake_uri).documents_folder("shop", "fingerprint-1") / MODEL
    path = folder / "model.json"
    path.write_text(path.read_text().replace('"intercept": ', '"intercept": 9'))
    (one,) = ask(served.service(), 1)
    assert (one.role, one.probability) == ("default", None)
    assert one.reasons == ("the files of the model are not those that were released",)


def test_same_request_again_gets_the_same_answer_and_another_body_is_refused(
    served: Served,
) -> None:
    release(served.settings)
    service = served.service()
    first = ask(service, 1, 2, request_id="order-1")
    assert ask(service, 1, 2, request_id="order-1") == [
        replace(one, reasons=list(one.reasons), features=dict(one.features)) for one in first
    ]
    with pytest.raises(RequestConflictError, match="another"):
        ask(service, 1, request_id="order-1")
    (other,) = service.predict([EntityRow(1)], caller="somebody else", request_id="order-1")
    assert other.id not in {one.id for one in first}


def test_receipt_leads_from_the_answer_to_runs_data_and_code(served: Served) -> None:
    release(served.settings)
    service = served.service()
    (one,) = ask(service, 1)
    receipt = service.receipt(one.id)
    assert receipt["features"] == one.features
    assert receipt["probability"] == one.probability
    assert receipt["model"]["mlflow_run_id"] == "mlflow-1"
    assert receipt["model"]["dagster_run_id"] == "dagster-1"
    assert receipt["model"]["provenance"]["dataset_snapshot_uri"] == "snapshot.json"
    with pytest.raises(NotFoundError, match="no prediction with this id"):
        service.receipt("0" * 30)


@pytest.mark.parametrize(
    ("entities", "request_id", "message"),
    [
        ([], None, "one entity or more"),
        ([1] * 1_001, None, "one entity or more"),
        (["7" * 101], None, "too long"),
        ([1], "x" * 101, "too long"),
        (["seventeen"], None, "no whole number"),
    ],
)
def test_request_that_cannot_be_used_is_refused_and_not_logged(
    served: Served, entities: list[Any], request_id: str | None, message: str
) -> None:
    release(served.settings)
    with pytest.raises(DataError, match=message):
        ask(served.service(), *entities, request_id=request_id)


def test_threads_get_the_answers_of_their_own_entities(served: Served) -> None:
    release(served.settings)
    service = served.service()
    expected = {entity: ask(service, entity)[0].probability for entity in (1, 2)}
    found: list[tuple[int, float | None]] = []

    def run(entity: int) -> None:
        found.extend((entity, ask(service, entity)[0].probability) for _ in range(25))

    threads = [threading.Thread(target=run, args=(1 + n % 2,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 150
    assert all(probability == expected[entity] for entity, probability in found)


def test_service_needs_no_approval_of_its_own_but_the_champions_holds(served: Served) -> None:
    assert SHOP_CASE.serving.log_durability == "disk"
    from mlops_pipeline.stores.ops import OpsDatabase

    release(served.settings)
    with OpsDatabase.open(served.settings.database_url) as ops:
        open_waiting(ops, 2, "shop")
        approve(ops, "shop", 2, by="ada", reason="good", now=NOW)
    service = served.service()  # version 2 is the champion and has no release folder
    assert isinstance(service.live, NoModel)
