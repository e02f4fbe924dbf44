"""The sensor `calendar`, tick by tick: what is due by the Clock, one time after another."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
)

from mlops_pipeline.lifecycle.clock import move_clock
from mlops_pipeline.orchestration.build import build_definitions
from mlops_pipeline.orchestration.resources import Platform
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.documentation import CONFIGS


def utc(year: int, month: int, day: int, hour: int = 0) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


def turn_on(instance: dg.DagsterInstance, name: str) -> None:
    """Turn a schedule on, as the UI does."""
    location = GrpcServerCodeLocationOrigin("localhost", port=1)
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
    state = InstigatorType.SCHEDULE, InstigatorStatus.RUNNING, ScheduleInstigatorData("* * * * *")
    running = InstigatorState(origin, *state)
    instance.add_instigator_state(running)


class Ticks:
    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        (folder / "configs").mkdir()
        (folder / "configs" / "churn.yaml").write_text((CONFIGS / "churn.yaml").read_text())
        self.platform = Platform(environment={"MLOPS_DATA_DIR": str(folder), "MLOPS_NOW": ""})
        self.settings, self.instance, self.cursor = self.platform.settings(), instance, ""
        found = build_definitions(config_dir=folder / "configs").sensors or ()
        (self.sensor,) = (item for item in found if item.name == "calendar")
        for kind in ("fairness_audit", "model_card_review"):  # the monthly retraining is off
            turn_on(instance, f"churn_{kind}")

    def move(self, to: datetime, **options: Any) -> None:
        with OpsDatabase.open(self.settings.database_url) as ops:
            move_clock(ops, self.settings, to, by="Ann", **options)

    def tick(self) -> list[tuple[str | None, str | None]]:
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor or None,
            resources={"platform": self.platform},
        ) as context:
            data = self.sensor.evaluate_tick(context)
        self.cursor = data.cursor or ""
        return [(item.job_name, item.run_key) for item in data.run_requests or []]


@pytest.fixture
def ticks(tmp_path: Path) -> Iterator[Ticks]:
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        yield Ticks(tmp_path, instance)


def test_nothing_is_due_while_the_clock_is_the_systems(ticks: Ticks) -> None:
    assert ticks.tick() == []
    assert ticks.cursor == ""


def test_due_times_come_one_after_another_with_keys_of_their_own(ticks: Ticks) -> None:
    ticks.move(utc(2024, 6, 1))
    assert ticks.tick() == []  # what was due before is not made up for
    ticks.move(utc(2024, 6, 12))
    audit = "churn_fairness_audit:2024-06-06T05:00:00+00:00"
    card = "churn_model_card_review:2024-06-10T06:00:00+00:00"  # and not that of the 3rd
    assert ticks.tick() == [("churn_fairness_audit", audit)]
    assert ticks.tick() == [("churn_card_review", card)]
    assert ticks.tick() == []
    assert ticks.cursor == utc(2024, 6, 12).isoformat()


def test_run_in_flight_is_waited_for(ticks: Ticks) -> None:
    ticks.move(utc(2024, 6, 1))
    ticks.tick()
    ticks.move(utc(2024, 6, 4))
    run = dg.DagsterRun(job_name="x", status=dg.DagsterRunStatus.STARTED)
    ticks.instance.add_run(run)
    assert ticks.tick() == []
    ticks.instance.delete_run(run.run_id)
    assert [job for job, _ in ticks.tick()] == ["churn_card_review"]


def test_stepping_goes_from_due_time_to_due_time_up_to_its_end(ticks: Ticks) -> None:
    ticks.move(utc(2024, 6, 1), until=utc(2024, 6, 10))
    assert [job for job, _ in ticks.tick()] == ["churn_card_review"]
    assert ticks.settings.now() == utc(2024, 6, 3, 6)
    assert [job for job, _ in ticks.tick()] == ["churn_fairness_audit"]
    assert ticks.settings.now() == utc(2024, 6, 6, 5)
    assert ticks.tick() == []
    assert ticks.settings.now() == utc(2024, 6, 10)
    assert ticks.tick() == []


def test_schedules_leave_the_moving_clock_to_the_calendar(ticks: Ticks, tmp_path: Path) -> None:
    found = build_definitions(config_dir=tmp_path / "configs").schedules or ()
    (due,) = (item for item in found if item.name == "churn_fairness_audit")
    assert isinstance(due, dg.ScheduleDefinition)

    def evaluate() -> int:
        resources = {"platform": ticks.platform}
        with dg.build_schedule_context(instance=ticks.instance, resources=resources) as context:
            return len(due.evaluate_tick(context).run_requests or [])

    assert evaluate() == 1
    ticks.move(utc(2024, 6, 1))
    assert evaluate() == 0
