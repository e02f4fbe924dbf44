"""The asset that fills the online store, and the schedule that asks for it."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.bookkeeping import set_pointer
from mlops_pipeline.lifecycle.context import Snapshot
from mlops_pipeline.lifecycle.features.offline import build_features, definitions_hash
from mlops_pipeline.lifecycle.features.online.materialize import materialize_accepted, open_writer
from mlops_pipeline.lifecycle.features.online.reader import open_reader
from mlops_pipeline.orchestration.assets.data import feature_assets
from mlops_pipeline.orchestration.jobs import ASSETS, asset_job
from mlops_pipeline.orchestration.resources import Platform
from mlops_pipeline.orchestration.triggers import planned_work, schedule
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.worlds import (
    NOW,
    World,
    accept_all,
    advance,
    materialize_in_process,
    on,
    shop,
    utc,
    visit,
)

ONLINE = dg.AssetKey(["shop", "online_features"])

pytestmark = pytest.mark.filterwarnings(
    "ignore:AssetExecutionContext.run_id is deprecated:DeprecationWarning"
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(shop(), tmp_path)
    world.deliver("visits", [visit(on(1, 5), number) for number in range(9)])
    with world.open() as work:
        advance(work, NOW, utc(on(2)))
        accepted = {name: item.to_dict() for name, item in accept_all(work).items()}
    with OpsDatabase.open(world.settings.database_url) as ops:
        set_pointer(ops, "shop", "accepted", accepted, run_id="test", now=NOW)
    return world


def accept_features(world: World, as_of: str, definitions: str | None = None) -> None:
    value = {"as_of": as_of, "definitions": definitions or definitions_hash(world.use_case)}
    with OpsDatabase.open(world.settings.database_url) as ops:
        set_pointer(ops, "shop", "features", value, run_id="test", now=NOW)


def platform_of(world: World) -> Platform:
    return Platform(environment={"MLOPS_DATA_DIR": str(world.folder), "MLOPS_NOW": "2025-02-02"})


def test_online_features_fills_the_store_once(world: World) -> None:
    accept_features(world, "2025-02-01T00:00:00+00:00")
    seen = []
    for _ in range(2):
        resources = {"platform": platform_of(world)}
        done = materialize_in_process(
            feature_assets(world.use_case), selection=[ONLINE], resources=resources
        )
        (event,) = done.asset_materializations_for_node("shop__online_features")
        values = {name: item.value for name, item in event.metadata.items()}
        seen.append((values["dagster/row_count"], values["rows_written"], values["feature_time"]))
    assert seen == [(9, 9, "2025-02-01T00:00:00+00:00"), (9, 0, "2025-02-01T00:00:00+00:00")]
    with open_reader(world.use_case, platform_of(world).settings()) as reader:
        assert reader.read([3], ["visits"])[0].values["visits"].value == 1


def test_hourly_schedule_waits_for_features_and_for_runs(world: World, tmp_path: Path) -> None:
    jobs = {"materialize": asset_job(world.use_case, "materialize")}
    jobs |= dict.fromkeys((*ASSETS, "card_review"), jobs["materialize"])
    planned = planned_work(world.use_case, jobs)
    (due,) = (schedule(item) for item in planned if item.plan.name == "shop_online_features")
    (tmp_path / "dagster").mkdir()

    def tick() -> Any:
        resources = {"platform": platform_of(world)}
        with (
            dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance,
            dg.build_schedule_context(instance=instance, resources=resources) as context,
        ):
            return due(context)

    assert tick() == dg.SkipReason("no features of the present definitions are accepted yet")
    accept_features(world, "2025-02-01T00:00:00+00:00", definitions="of other code")
    assert tick() == dg.SkipReason("no features of the present definitions are accepted yet")
    accept_features(world, "2025-02-01T00:00:00+00:00")
    assert isinstance(tick(), dg.RunRequest)


def test_period_behind_the_accepted_as_of_stays_offline(world: World) -> None:
    with world.open() as work:  # computed, and refused by its leak check: the pointer did not move
        build_features(work, Snapshot(utc(on(3)), accept_all(work)))
    with (
        OpsDatabase.open(world.settings.database_url) as ops,
        world.open() as work,
        open_writer(world.settings) as store,
    ):
        with pytest.raises(NotFoundError, match="no accepted features"):
            materialize_accepted(work, ops, store, now=NOW)
        accept_features(world, "2025-02-01T00:00:00+00:00")
        assert materialize_accepted(work, ops, store, now=NOW).feature_time == utc(on(2))
        accept_features(world, "2025-03-01T00:00:00+00:00")
        assert materialize_accepted(work, ops, store, now=NOW).feature_time == utc(on(3))
