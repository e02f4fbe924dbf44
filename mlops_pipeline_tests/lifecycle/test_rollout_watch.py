"""The service watches a version in trial: counts of all processes, one breach, the new split."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.bookkeeping import list_decisions
from mlops_pipeline.lifecycle.champions import MODEL
from mlops_pipeline.lifecycle.entity_rows import EntityRow
from mlops_pipeline.lifecycle.rollouts import rollout_events
from mlops_pipeline.lifecycle.serve import PredictionService
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.ops import RolloutWindow
from mlops_pipeline_tests.lifecycle.trials import TrialShop, ask, fail, replace_scorer
from mlops_pipeline_tests.serving.conftest import changed, shops
from mlops_pipeline_tests.serving.served_shop import INPUTS
from mlops_pipeline_tests.stores.ops.conftest import (
    postgres_schema_url,
    sqlite_template,
    url,
)

__all__ = ["changed", "postgres_schema_url", "shops", "sqlite_template", "url"]

MINUTE = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)  # of the machine
FEW = 6  # fail in one process: too few for a breach


@pytest.fixture
def shop(changed: Path) -> Iterator[TrialShop]:
    with ExitStack() as stack:
        yield TrialShop(changed, stack, test_entities=["7"])


def quiet(service: PredictionService) -> PredictionService:
    """Let the service look only when the test says so."""
    service.watch.close()
    service._follower.close()
    return service


def serve(service: PredictionService, count: int, at: datetime = MINUTE) -> None:
    ask(service, *range(100, 100 + count))
    service.shadow.flush()
    service.watch.look(at)


def test_processes_count_together_one_writes_the_breach_and_all_serve_the_new_split(
    changed: Path, url: str
) -> None:
    with ExitStack() as stack:
        shop = TrialShop(changed, stack, database_url=url).release()
        first, second = quiet(shop.service()), quiet(shop.service())
        for service in (first, second):
            replace_scorer(service.versions.challenger, fail)
        serve(first, FEW)
        assert shop.state == "running"
        serve(second, FEW)
        assert shop.state == "rolled_back"
        assert second.versions.trial is None  # at once
        first.watch.look(MINUTE)  # it judges what is over, too late
        assert first.versions.trial is None
        (breach,) = [event for event in rollout_events(shop.ops, "shop", 2)
                     if event.to_state == "rolled_back"]  # fmt: skip
        assert breach.actor == "service"
        assert breach.evidence is not None
        assert breach.evidence["counts"]["challenger"] == {
            "requests": 2 * FEW, "errors": 2 * FEW, "slow": 0, "defaults": 0}  # fmt: skip
        assert breach.evidence["counts"]["champion"]["requests"] == 2 * FEW
        assert "error_rate" in breach.reason
        (alert,) = list_alerts(shop.ops, "shop")
        assert (alert.kind, alert.severity, alert.message) == (
            "rollout", "error", f"version 2 was rolled back: {breach.reason}")  # fmt: skip
        assert [made.action for made in list_decisions(shop.ops, "shop", "rollout")] == ["breach"]


def test_version_that_is_well_goes_on_whatever_came_before_this_minute(shop: TrialShop) -> None:
    service = quiet(shop.release().service())
    replace_scorer(service.versions.challenger, fail)
    for minute in range(20):  # more errors than FEW, but never in one minute
        serve(service, 1, MINUTE + timedelta(minutes=minute))
    (row,) = shop.ops.all(RolloutWindow)
    assert (row.challenger_requests, row.challenger_errors, row.champion_requests) == (1, 1, 1)
    assert row.window - row.first_window == 19
    assert shop.state == "running"


def test_slow_version_is_taken_out_unless_the_champion_is_as_slow(shop: TrialShop) -> None:
    service = quiet(shop.release().service())
    for _ in range(100):
        for version in (1, 2):
            service.watch.count("1", version, 201_000)
    service.watch.look(MINUTE)
    assert shop.state == "running"
    for _ in range(100):
        service.watch.count("1", 1, 199_000)
        service.watch.count("1", 2, 201_000)
    service.watch.look(MINUTE + timedelta(minutes=1))
    assert shop.state == "rolled_back"


def test_version_that_gives_the_default_where_the_champion_decides_is_taken_out(
    shop: TrialShop,
) -> None:
    service = quiet(shop.release(challenger=(*INPUTS, "no_such_feature")).service())
    for _ in range(20):
        service.predict([EntityRow(1), EntityRow(2), EntityRow(99)], caller="(none)")
    service.shadow.flush()
    service.watch.look(MINUTE)
    (row,) = shop.ops.all(RolloutWindow)
    assert (row.challenger_requests, row.challenger_defaults) == (40, 40)  # 99 is not known
    assert (row.champion_requests, row.champion_defaults) == (40, 0)
    assert shop.state == "rolled_back"


def test_version_that_cannot_be_loaded_is_taken_out(shop: TrialShop) -> None:
    shop.release()
    folder = Lake(shop.settings.lake_uri).documents_folder("shop", "fingerprint-2") / MODEL
    (folder / "model.json").write_text("{}")
    serve(quiet(shop.service()), 40)
    assert shop.state == "rolled_back"


def test_canary_and_shadow_count_alike_and_test_entities_do_not(shop: TrialShop) -> None:
    service = quiet(shop.release().service())
    shop.step("pass", service)
    shop.step("pass", service)
    replace_scorer(service.versions.challenger, fail)
    ask(service, "7", "7")
    made = ask(service, *range(100, 110))
    assert {one.reasons for one in made} == {(), ("version 2 fails",)}
    service.shadow.flush()
    service.watch.look(MINUTE)
    (row,) = shop.ops.all(RolloutWindow)
    assert (row.challenger_requests, row.challenger_errors) == (10, 10)
    assert (row.champion_requests, row.champion_errors) == (10, 0)


def test_champion_is_watched_until_its_verdict_and_the_version_before_comes_back(
    shop: TrialShop,
) -> None:
    service = quiet(shop.release().service())
    for _ in range(3):
        shop.step("pass", service)
    replace_scorer(service.versions.champion, fail)
    serve(service, 40)
    assert shop.state == "rolled_back"
    assert service.live.version == 1


def test_failing_version_is_gone_by_itself_in_every_process(shop: TrialShop) -> None:
    first, second = shop.release().service(), shop.service()
    replace_scorer(first.versions.challenger, fail)
    waiting = threading.Event()
    for _ in range(200):  # at most 20 s; 5 where nothing else runs
        ask(first, *range(100, 110))
        if first.versions.trial is None and second.versions.trial is None:
            break
        waiting.wait(0.1)
    assert shop.state == "rolled_back"
    assert second.versions.trial is None
