"""A version in trial, without HTTP: who gets it, what is scored beside, whom it harms (nobody)."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.core.modelling.row_scorer import RowScorer
from mlops_pipeline.core.rollout.assignment import is_canary
from mlops_pipeline.core.rollout.breaker import MIN_REQUESTS
from mlops_pipeline.errors import DataError
from mlops_pipeline.lifecycle import shadow
from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.bookkeeping import NewDecision, record_decision
from mlops_pipeline.lifecycle.champions import MODEL
from mlops_pipeline.lifecycle.entity_rows import EntityRow
from mlops_pipeline.lifecycle.live_models import LiveModel, NoModel
from mlops_pipeline.lifecycle.rollouts import VERDICT
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline_tests.lifecycle.trials import (
    ROW,
    TrialShop,
    ask,
    fail,
    replace_scorer,
)
from mlops_pipeline_tests.serving.conftest import changed, shops
from mlops_pipeline_tests.serving.served_shop import INPUTS, release, shop_model
from mlops_pipeline_tests.serving.shops import TILL_CASE
from mlops_pipeline_tests.worlds import NOW

__all__ = ["changed", "shops"]

PEOPLE = range(400)


@pytest.fixture
def shop(changed: Path) -> Iterator[TrialShop]:
    with ExitStack() as stack:
        yield TrialShop(changed, stack, test_entities=["7"])


def canaries(made: list[Any]) -> set[str]:
    return {one.entity for one in made if one.role == "canary"}


def test_entity_gets_one_version_in_a_stage_and_keeps_it_when_the_share_rises(
    shop: TrialShop,
) -> None:
    service, other = shop.release().service(), shop.service()
    assert canaries(ask(service, *PEOPLE)) == {"7"}  # in shadow, test entities alone
    shop.step("pass", service, other)
    few = canaries(ask(service, *PEOPLE))
    expected = {str(one) for one in PEOPLE if is_canary("fingerprint-2", str(one), 0.05, ["7"])}
    assert few == expected
    assert canaries(ask(other, *PEOPLE)) == few  # in another process, too
    shop.step("miss", service)
    assert canaries(ask(service, *PEOPLE)) == few  # while it is held
    shop.step("pass", service)
    half = canaries(ask(service, *PEOPLE))
    assert few < half
    assert abs(len(half) - 200) < 40
    made = ask(service, *PEOPLE)
    assert {one.model_version for one in made if one.role == "canary"} == {2}
    assert {one.model_version for one in made if one.role == "champion"} == {1}
    shop.step("pass", service)
    assert {(one.role, one.model_version) for one in ask(service, *PEOPLE)} == {("champion", 2)}


def test_row_without_an_entity_is_the_champions_and_scored_beside(shop: TrialShop) -> None:
    service = shop.release().service()
    shop.step("pass", service)
    shop.step("pass", service)
    (one,) = ask(service, None)
    assert (one.role, one.entity) == ("champion", "")
    service.shadow.flush()
    assert shop.shadows()[one.id].version == 2


def test_version_that_did_not_answer_scores_the_same_row(shop: TrialShop) -> None:
    service = shop.release().service()
    shop.step("pass", service)
    shop.step("pass", service)
    made = ask(service, *PEOPLE)
    service.shadow.flush()
    found = shop.shadows()
    assert found.keys() == {one.id for one in made}
    scorers = {version: RowScorer(shop_model(version)) for version in (1, 2)}
    for one in made:
        score = found[one.id]
        assert {score.version, one.model_version} == {1, 2}
        assert score.probability == scorers[score.version](one.features).probability
        assert (score.entity, score.at_us, score.failure) == (one.entity, one.at_us, None)
        assert score.latency_us >= 0
    receipt = service.receipt(made[0].id)
    assert receipt["shadow"]["probability"] == found[made[0].id].probability
    assert receipt["latency_us"] == made[0].latency_us


def test_features_of_both_versions_are_read_once_and_each_decides_on_its_own(
    shop: TrialShop,
) -> None:
    service = shop.release(
        champion=("visits", "spent"), challenger=("spent", "last_kind")
    ).service()
    rows = [EntityRow(1), EntityRow(2)]
    made = service.predict(rows, caller="(none)")
    assert {*made[0].features} == {"visits", "spent", "last_kind"}
    service.shadow.flush()
    for one in made:
        score = shop.shadows()[one.id]
        own = RowScorer(shop_model(2, ("spent", "last_kind")))(one.features)
        assert score.probability == own.probability


def test_feature_that_only_the_new_version_needs_and_is_not_online_is_its_own_trouble(
    shop: TrialShop,
) -> None:
    service = shop.release(challenger=(*INPUTS, "no_such_feature")).service()
    (canary, other) = service.predict([EntityRow("7"), EntityRow(1)], caller="(none)")
    service.shadow.flush()
    assert (canary.role, canary.reasons) == ("default", ("the entity is not known",))
    assert other.role == "champion"
    assert shop.shadows()[other.id].is_default
    shop.step("pass", service)
    shop.step("pass", service)
    (one,) = service.predict([EntityRow(2)], caller="(none)")
    assert is_canary("fingerprint-2", "2", 0.5)
    assert (one.role, one.model_version) == ("champion", 1)
    assert one.reasons == ("version 2 may not decide: no_such_feature is not online",)


def test_column_that_only_the_new_version_needs_and_nobody_sends_keeps_no_answer_back(
    shop: TrialShop,
) -> None:
    names = ("spent_30d", "visits_last_hour")
    release(shop.settings, 1, "till", names)
    release(shop.settings, 2, "till", (*names, "amount_now"), shop.policy)
    service = shop.service(TILL_CASE)
    (without,) = service.predict([EntityRow(1)], caller="(none)")
    (sent,) = service.predict([EntityRow(1, {"amount": 3.0})], caller="(none)")
    assert (without.role, {*without.features}) == ("champion", {*names})
    assert (sent.role, {*sent.features}) == ("champion", {*names, "amount_now"})
    service.shadow.flush()
    found = shop.shadows("till")
    assert (found[without.id].is_default, found[without.id].failure) == (True, None)
    assert found[sent.id].probability is not None


def test_canary_that_fails_is_answered_by_the_champion_with_the_reason(shop: TrialShop) -> None:
    service = shop.release().service()
    replace_scorer(service.versions.challenger, fail)
    (one, other) = ask(service, "7", 1)
    assert (one.role, one.model_version) == ("champion", 1)
    assert one.reasons == ("version 2 fails",)
    assert (other.role, other.reasons) == ("champion", ())
    service.shadow.flush()
    found = shop.shadows()
    assert found[one.id].failure == "it failed when it was asked to decide"
    assert found[other.id].failure == "it failed: ZeroDivisionError"
    assert (found[other.id].version, found[other.id].probability) == (2, None)


def test_version_in_trial_is_scored_rightly_where_the_version_before_answers(
    shop: TrialShop,
) -> None:
    release(shop.settings, 1, names=("spent_a_visit",))
    release(shop.settings, 2, names=("visits", "spent"))
    release(shop.settings, 3, names=("spent", "last_kind"), policy=shop.policy)
    service = shop.service()
    replace_scorer(service.versions.champion, fail)
    (one,) = service.predict([EntityRow(1)], caller="(none)")
    assert (one.role, one.model_version, one.reasons) == ("previous", 1, ("version 2 fails",))
    service.shadow.flush()
    score = shop.shadows()[one.id]
    own = RowScorer(shop_model(3, ("spent", "last_kind")))(one.features)
    assert (score.version, score.probability) == (3, own.probability)


def test_version_that_cannot_be_loaded_fails_on_every_row_and_harms_nobody(shop: TrialShop) -> None:
    shop.release()
    folder = Lake(shop.settings.lake_uri).documents_folder("shop", "fingerprint-2") / MODEL
    (folder / "model.json").write_text("{}")
    service = shop.service()
    reason = "the files of the model are not those that were released"
    assert service.versions.challenger == NoModel(reason, 2)
    made = ask(service, "7", 1)
    assert {(one.role, one.model_version) for one in made} == {("champion", 1)}
    service.shadow.flush()
    assert [shop.shadows()[one.id].failure for one in made] == [
        "it failed when it was asked to decide",
        reason,
    ]


def test_slow_version_in_shadow_keeps_no_answer_waiting(shop: TrialShop) -> None:
    service = shop.release().service()
    goes_on, model = threading.Event(), service.versions.challenger
    assert isinstance(model, LiveModel)

    def slow(values: Any) -> Any:
        goes_on.wait(30)
        return RowScorer(model.model)(values)

    replace_scorer(model, slow)
    made = [ask(service, number)[0] for number in range(20, 40)]
    assert {one.role for one in made} == {"champion"}
    assert shop.shadows() == {}
    goes_on.set()
    service.shadow.flush()
    assert len(shop.shadows()) == 20


def test_rows_beyond_the_queue_drop_the_oldest_and_are_counted(
    shop: TrialShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = shop.release().service()
    monkeypatch.setattr(shadow, "ROWS_WAITING", 5)
    made = ask(service, *range(1, 6), *range(20, 30))
    service.shadow.flush()
    assert service.shadow.dropped == 10
    assert shop.shadows().keys() == {one.id for one in made[10:]}


def test_who_is_forgotten_while_rows_wait_leaves_no_score(shop: TrialShop) -> None:
    service = shop.release().service()
    goes_on = threading.Event()
    scorer = RowScorer(shop_model(2))
    replace_scorer(service.versions.challenger, lambda row: goes_on.wait(30) and scorer(row))
    ask(service, 1, 2)
    assert service._log.forget("shop", "1") == 1
    goes_on.set()
    service.shadow.flush()
    assert {one.entity for one in shop.shadows().values()} == {"2"}
    assert service._log.forget("shop", "2") == 1
    assert shop.shadows() == {}


def test_after_full_the_version_before_is_scored_until_the_verdict(shop: TrialShop) -> None:
    service = shop.release().service()
    for _ in range(3):
        shop.step("pass", service)
    (one,) = ask(service, 1)
    service.shadow.flush()
    assert (one.model_version, shop.shadows()[one.id].version) == (2, 1)
    made = NewDecision(VERDICT, "not worse", "labels are complete", {}, run_key="v2")
    record_decision(shop.ops, "shop", made, now=NOW)
    service.refresh()
    (other,) = ask(service, 1)
    service.shadow.flush()
    assert other.id not in shop.shadows()


def test_breaker_of_a_version_that_was_taken_out_is_no_alert_any_more(shop: TrialShop) -> None:
    service = shop.release().service()
    replace_scorer(service.versions.challenger, fail)
    ask(service, *(["7"] * MIN_REQUESTS))
    service.alerts.look_at_breakers()
    (alert,) = list_alerts(shop.ops, "shop", open_only=True)
    assert alert.message.startswith("version 2 fails: its circuit breaker is open")
    shop.step("breach", service)
    service.alerts.look_at_breakers()
    assert list_alerts(shop.ops, "shop", open_only=True) == []


def test_request_that_neither_version_can_use_is_refused_and_no_failure(shop: TrialShop) -> None:
    service = shop.release().service()
    with pytest.raises(DataError):
        service.predict([EntityRow("7", features={"visits": 1})], caller="(none)")
    assert service.shadow.waiting == 0


def test_rolled_back_version_answers_nobody_from_the_next_look_on(shop: TrialShop) -> None:
    service = shop.release().service()
    assert canaries(ask(service, "7")) == {"7"}
    shop.step("breach", service)
    (one,) = ask(service, "7")
    assert (one.role, one.model_version) == ("champion", 1)
    assert service.versions.beside is None
    service.shadow.flush()
    assert one.id not in shop.shadows()
    assert ROW.keys() == one.features.keys()
