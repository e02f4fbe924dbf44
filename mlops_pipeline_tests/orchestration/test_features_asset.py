"""The features asset: its leak check, and configurations that take a feature from a live model."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.core.features import frames
from mlops_pipeline.lifecycle.bookkeeping import feature_uses, get_pointer, set_pointer
from mlops_pipeline.lifecycle.features import offline
from mlops_pipeline.lifecycle.rollouts import open_rollout
from mlops_pipeline.orchestration.assets.data import feature_assets
from mlops_pipeline.orchestration.resources import Platform
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.worlds import (
    NOW,
    World,
    accept_all,
    ingest_all,
    materialize_in_process,
    on,
    shop,
    visit,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:AssetExecutionContext.run_id is deprecated:DeprecationWarning"
)
FEATURES = dg.AssetKey(["shop", "features"])
COLUMNS: dict[str, Any] = {
    "visits": {"aggregate": "count", "dtype": "int64"},
    "spent": {"aggregate": "sum", "of": "amount", "precision": 2},
}


def case_of(columns: dict[str, Any]) -> UseCase:
    return shop(views={"history": {"source": "visits", "columns": columns}})


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(case_of(COLUMNS), tmp_path)
    days = [on(month, day) for month in (1, 2, 3, 4, 5) for day in (3, 9, 20)]
    made.deliver("visits", [visit(day, customer) for day in days for customer in range(10)])
    with made.open() as work, ops_of(made) as ops:
        ingest_all(work)
        accepted = {name: item.to_dict() for name, item in accept_all(work).items()}
        set_pointer(ops, "shop", "accepted", accepted, run_id="before", now=NOW)
    return made


@contextmanager
def ops_of(world: World) -> Iterator[OpsDatabase]:
    with OpsDatabase.open(world.settings.database_url) as ops:
        yield ops


def materialize(world: World, as_of: str) -> dg.ExecuteInProcessResult:
    environment = {"MLOPS_DATA_DIR": str(world.folder), "MLOPS_NOW": NOW.isoformat()}
    return materialize_in_process(
        feature_assets(world.use_case),
        selection=[FEATURES],
        resources={"platform": Platform(environment=environment)},
        run_config={"ops": {"shop__features": {"config": {"as_of": as_of}}}},
        raise_on_error=False,
    )


def check_of(done: dg.ExecuteInProcessResult, name: str = "no_leak") -> dg.AssetCheckEvaluation:
    (found,) = [item for item in done.get_asset_check_evaluations() if item.check_name == name]
    return found


def message_of(done: dg.ExecuteInProcessResult) -> str:
    (failed,) = [item for item in done.all_events if item.is_step_failure]
    error = failed.step_failure_data.error
    assert error is not None
    return str(error.cause.message if error.cause else error.message)


def features_pointer(world: World) -> Any:
    with ops_of(world) as ops:
        return get_pointer(ops, "shop", "features")


def deploy(world: World, inputs: list[str], version: int = 1) -> None:
    """Make a champion that needs some inputs."""
    fingerprint = f"fingerprint-{version}"
    folder = Lake(world.settings.lake_uri).documents_folder(world.use_case.name, fingerprint)
    folder.mkdir(parents=True)
    document = {"signature": {"inputs": [{"name": name, "type": "number"} for name in inputs]}}
    (folder / "metadata.json").write_text(json.dumps(document))
    with ops_of(world) as ops:
        open_rollout(
            ops,
            "shop",
            version,
            mlflow_run_id="m",
            dagster_run_id="d",
            fingerprint=fingerprint,
            policy=RolloutPolicy(),
            state="champion",
            reason="gate passed",
            waiting_for=None,
            now=NOW,
        )


def test_features_without_a_leak_pass_the_check_and_are_noted(world: World) -> None:
    done = materialize(world, "2025-05-01")
    assert done.success
    check = check_of(done)
    assert (check.check_name, check.passed, check.blocking) == ("no_leak", True, True)
    assert check.metadata["period"].value == "2025-05-01"
    assert check.metadata["rows_compared"].value == 10
    assert check.metadata["leaking"].value == []
    kept = check_of(done, "precision_kept")
    assert (kept.passed, kept.blocking, kept.description) == (
        *(True, False),
        "every feature keeps its values",
    )
    with ops_of(world) as ops:
        uses = [(use.feature, use.reader, use.first_used_at) for use in feature_uses(ops, "shop")]
    assert uses == [("spent", "computation", NOW), ("visits", "computation", NOW)]


def test_features_that_look_ahead_are_refused_by_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames._Frame, "_known", lambda self, name, *_, **__: self.tables[name])
    for _ in range(2):  # the second run finds the period finished
        done = materialize(world, "2025-05-01")
        assert not done.success
        check = check_of(done)
        assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
        assert check.metadata["leaking"].value == ["visits", "spent"]
        assert "look ahead of period 2025-05-01: visits, spent" in message_of(done)
        assert features_pointer(world) is None


def test_values_of_other_code_block_before_the_first_pass_and_warn_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_code(*given: Any, **options: Any) -> Any:
        frame = frames.feature_frame(*given, **options)
        return frame.mutate(spent=frame.spent + 1)

    with monkeypatch.context() as other:
        other.setattr(offline, "feature_frame", other_code)
        blocked = materialize(world, "2025-05-01")
    assert not blocked.success
    assert "not what the accepted rows give: spent" in message_of(blocked)

    with ops_of(world) as ops:
        definitions = offline.definitions_hash(world.use_case)
        passed = {"as_of": "2025-05-01T00:00:00+00:00", "definitions": definitions}
        set_pointer(ops, "shop", "features", passed, run_id="earlier", now=NOW)
    warned = materialize(world, "2025-05-01")
    assert warned.success
    check = check_of(warned)
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.metadata["outdated"].value == ["spent"]


def test_configuration_without_an_input_of_the_champion_is_refused_before_anything_is_built(
    world: World,
) -> None:
    deploy(world, ["visits", "spent"])
    world.use_case = case_of({"visits": COLUMNS["visits"]})
    done = materialize(world, "2025-05-01")
    assert not done.success
    assert "spent is an input of shop version 1 (champion)" in message_of(done)
    assert list(done.get_asset_check_evaluations()) == []
    assert not (world.folder / "lake" / "shop" / "features").exists()


def test_deprecated_input_of_the_champion_is_still_computed(world: World) -> None:
    deploy(world, ["visits", "spent"])
    world.use_case = case_of({**COLUMNS, "spent": {**COLUMNS["spent"], "deprecated": True}})
    assert materialize(world, "2025-05-01").success
    assert world.use_case.inputs == ("visits",)
