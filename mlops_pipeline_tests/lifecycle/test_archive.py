"""The log in the lake: every answer once, whatever was killed; found and forgotten in both."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.archive import Archived, _table, archive_predictions
from mlops_pipeline.lifecycle.compliance.erasure import forget, person_of
from mlops_pipeline.lifecycle.context import open_context
from mlops_pipeline.lifecycle.features.online.layout import to_us
from mlops_pipeline.lifecycle.reviews import Said
from mlops_pipeline.stores.lake.tables import ARCHIVE, Lake
from mlops_pipeline.stores.log_archive import remove_archived
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.predictions import PredictionLog
from mlops_pipeline_tests.lifecycle.test_reviews import Desk
from mlops_pipeline_tests.lifecycle.trials import TrialShop, ask
from mlops_pipeline_tests.serving.conftest import changed, shops
from mlops_pipeline_tests.serving.shops import SHOP_CASE
from mlops_pipeline_tests.worlds import NOW

__all__ = ["changed", "shops"]


@pytest.fixture
def desk(changed: Path) -> Iterator[Desk]:
    with ExitStack() as stack:
        yield Desk(changed, stack)


def archive(desk: Desk, days: int = 0) -> Archived:
    settings = replace(desk.settings, fixed_now=NOW + timedelta(days=days))
    with open_context(SHOP_CASE, settings) as context:
        return archive_predictions(context, lambda: None)


def moved(done: Archived) -> tuple[int, int, int]:
    return done.rows, done.removed, done.total


def test_every_answer_is_written_once(desk: Desk) -> None:
    desk.ask(1)
    desk.ask(2)
    assert moved(archive(desk)) == (2, 0, 2)
    assert moved(archive(desk)) == (0, 0, 2)
    desk.ask(3)
    assert moved(archive(desk)) == (1, 0, 3)


def test_commit_that_a_killed_run_had_not_marked_is_not_written_again(desk: Desk) -> None:
    for number in range(4):
        desk.ask(number)
    archive(desk)
    with desk.log.transaction(writes=True) as connection:  # as if it had been killed before it
        connection.exec_driver_sql("DELETE FROM archived")
    desk.ask(9)
    assert moved(archive(desk)) == (1, 0, 5)


def test_receipt_is_the_same_from_the_lake_when_the_answer_left_the_log(desk: Desk) -> None:
    plain = desk.ask(1, spent=9.0, last_kind=None)
    before = desk.service.receipt(plain.id)
    assert moved(archive(desk, days=90)) == (1, 0, 1)  # not older than log_days
    assert moved(archive(desk, days=91)) == (0, 1, 1)
    assert desk.log.find(plain.id) is None
    assert desk.service.receipt(plain.id) == before


def test_archive_of_an_older_version_gets_the_columns_that_it_lacks(desk: Desk) -> None:
    older = desk.ask(1, spent=9.0)
    lake = Lake(desk.settings.lake_uri)
    rows = _table(SHOP_CASE, [older]).drop_columns(["latency_us"])
    lake.write(lake.table_uri("shop", ARCHIVE), rows, {"rows": 1}, "append")
    newer = desk.ask(2, spent=9.0)
    assert moved(archive(desk, days=91)) == (1, 2, 2)
    assert desk.service.receipt(older.id)["latency_us"] is None
    assert desk.service.receipt(newer.id)["latency_us"] == newer.latency_us


def test_answer_that_waits_for_a_person_stays_in_the_log(desk: Desk) -> None:
    flagged = desk.ask(1)
    assert moved(archive(desk, days=91)) == (1, 0, 1)
    desk.service.review(flagged.id, Said("confirmed", "Ann", "as it is"))
    assert moved(archive(desk, days=91)) == (0, 1, 1)
    receipt = desk.service.receipt(flagged.id)
    assert receipt["review"]["by"] == "Ann"


@pytest.fixture
def trial(changed: Path) -> Iterator[TrialShop]:
    with ExitStack() as stack:
        yield TrialShop(changed, stack).release()


def archive_trial(trial: TrialShop, days: int = 0) -> Archived:
    settings = replace(trial.settings, fixed_now=NOW + timedelta(days=days))
    with open_context(SHOP_CASE, settings) as context:
        return archive_predictions(context, lambda: None)


def test_scores_beside_are_written_once_and_found_when_the_trial_is_over(trial: TrialShop) -> None:
    service = trial.service()
    one, other = ask(service, 1, 2)
    service.shadow.flush()
    before = service.receipt(one.id)
    assert before["shadow"]["version"] == 2
    assert archive_trial(trial).shadows == 2
    with service._log.transaction(writes=True) as connection:  # as if killed before it
        connection.exec_driver_sql("DELETE FROM archived_shadow")
    done = archive_trial(trial, days=91)
    assert (done.rows, done.shadows, done.removed) == (0, 0, 0)  # it is judged by what is there
    trial.step("breach", service)
    assert archive_trial(trial, days=91).removed == 2
    assert trial.shadows() == {}
    assert service.receipt(one.id) == before
    with OpsDatabase.open(trial.settings.database_url) as ops:
        person = person_of(trial.settings, [SHOP_CASE], "1", "shop")
        (erased,) = forget(person, trial.settings, ops, by="Ann", reason="asked for it")
    assert erased.found.rows["shadow_predictions"] == 1
    with pytest.raises(NotFoundError):
        service.receipt(one.id)
    assert service.receipt(other.id)["shadow"]["version"] == 2


def test_answer_whose_score_is_not_in_the_lake_stays(trial: TrialShop) -> None:
    service = trial.service()
    (one,) = ask(service, 1)
    archive_trial(trial)
    service.shadow.flush()
    trial.step("breach", service)
    with PredictionLog(trial.settings.predictions_url) as log:
        assert remove_archived(log, "shop", to_us(NOW + timedelta(days=91))) == 0
    assert archive_trial(trial, days=91).removed == 1
    assert service.receipt(one.id)["shadow"]["version"] == 2


def test_forgotten_person_is_in_neither(desk: Desk) -> None:
    gone, stays = desk.ask(1, spent=9.0), desk.ask(2, spent=9.0)
    archive(desk)
    newer = desk.ask(1, spent=8.0)
    with OpsDatabase.open(desk.settings.database_url) as ops:
        person = person_of(desk.settings, [SHOP_CASE], "1", "shop")
        (erased,) = forget(person, desk.settings, ops, by="Ann", reason="asked for it")
    assert erased.found.rows["prediction_log"] == 1
    for one in (gone, newer):
        with pytest.raises(NotFoundError):
            desk.service.receipt(one.id)
    assert desk.service.receipt(stays.id)["entity_id"] == "2"
    assert moved(archive(desk)) == (0, 0, 1)
