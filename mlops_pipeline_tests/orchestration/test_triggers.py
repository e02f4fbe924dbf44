"""Single ticks of the sensors, and a real daemon that retrains by itself, once."""

import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml

from mlops_pipeline.errors import SourceError
from mlops_pipeline.lifecycle.alerts import NewAlert, list_alerts, raise_alert, resolve_alert
from mlops_pipeline.lifecycle.bookkeeping import (
    NEWEST,
    finish_lifecycle,
    get_pointer,
    list_decisions,
    set_pointer,
    start_lifecycle,
)
from mlops_pipeline.orchestration.build import build_definitions
from mlops_pipeline.orchestration.resources import Platform
from mlops_pipeline.stores.ops import LifecycleRun, OpsDatabase
from mlops_pipeline.stores.ops.lease import claim_lease, get_lease
from mlops_pipeline_tests.lifecycle.rollout_steps import open_trial
from mlops_pipeline_tests.stores.ops.lease_steps import release_lease
from mlops_pipeline_tests.world import PATIENCE_S, World

LEASE = "lifecycle:churn"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


def _sensor(world: World, name: str) -> dg.SensorDefinition:
    sensors = build_definitions(config_dir=world.root / "configs").sensors or ()
    return next(item for item in sensors if item.name == name)


class Ticks:
    """A sensor that keeps its cursor between ticks, as the daemon does."""

    def __init__(
        self, world: World, instance: dg.DagsterInstance, name: str = "churn_new_labels"
    ) -> None:
        self.world, self.instance, self.cursor = world, instance, ""
        self.sensor = _sensor(world, name)
        self.platform = Platform(environment=world.environment)

    def tick(self) -> list[dg.RunRequest]:
        with dg.build_sensor_context(  # left when it is collected, it would restore a dead instance
            instance=self.instance,
            cursor=self.cursor or None,
            resources={"platform": self.platform},
        ) as context:
            data = self.sensor.evaluate_tick(context)
        self.cursor = data.cursor or ""
        return list(data.run_requests or [])


def _decisions(world: World, kind: str = "new_labels") -> list[tuple[str, str]]:
    with world.ops() as ops:
        return [(item.action, item.reason) for item in list_decisions(ops, "churn", kind=kind)]


def _crash(ops: OpsDatabase, attempt: int) -> None:
    """Leave what a killed run leaves: a lease nobody renews."""
    then = datetime.now(UTC) - timedelta(minutes=10 - attempt)
    claim_lease(ops, LEASE, f"run {attempt}", process=("elsewhere", 1), ttl_s=30, now=then)


def test_first_tick_without_a_lifecycle_asks_a_person_to_start(
    world: World, instance: dg.DagsterInstance
) -> None:
    (world.data / "ops.db").unlink()
    assert Ticks(world, instance).tick() == []
    assert _decisions(world) == [
        ("skip", "no lifecycle has finished yet; start the first one by hand")
    ]


def test_enough_labels_request_one_run_and_say_why(
    world: World, instance: dg.DagsterInstance
) -> None:
    ticks = Ticks(world, instance)
    (request,) = ticks.tick()
    assert request.run_key is not None
    assert request.run_key.startswith("new_labels:2024-02-01:2024-04-01:")
    assert request.run_key.endswith(":1")
    assert request.tags["mlops/trigger"] == "new_labels"
    ((action, reason),) = _decisions(world)
    assert action == "retrain"
    assert "new labels, more than 100" in reason

    assert ticks.tick() == []  # nothing changed: not asked again
    assert len(_decisions(world)) == 1


def test_version_in_trial_is_not_cut_off_by_a_retraining(
    world: World, instance: dg.DagsterInstance
) -> None:
    with world.ops() as ops:
        open_trial(ops, 91, state="champion")
        open_trial(ops, 92)
    assert Ticks(world, instance).tick() == []
    (decision,) = _decisions(world)
    assert decision == ("skip", "version 92 is in trial (shadow): it is not cut off")


def test_too_few_labels_are_a_stored_decision_not_to_run(
    world: World, instance: dg.DagsterInstance
) -> None:
    world.configure(lambda document: document["retraining"].update(new_labels=1_000_000))
    ticks = Ticks(world, instance)
    assert ticks.tick() == []
    assert ticks.tick() == []
    ((action, reason),) = _decisions(world)
    assert action == "skip"
    assert "not more than 1,000,000" in reason


def test_refused_lifecycle_does_not_fire_again(world: World, instance: dg.DagsterInstance) -> None:
    ticks = Ticks(world, instance)
    assert len(ticks.tick()) == 1
    now = datetime.now(UTC)
    with world.ops() as ops:
        as_of = datetime(2024, 4, 1, tzinfo=UTC)
        start_lifecycle(ops, "churn", "refused", as_of=as_of, trigger="new_labels", now=now)
        finish_lifecycle(
            ops, "churn", "refused", verdict="refused", fingerprint="f", summary={}, now=now
        )
    assert ticks.tick() == []
    action, reason = _decisions(world)[0]
    assert (action, reason) == (
        "skip",
        "nothing is newer than the last lifecycle's as_of 2024-04-01",
    )


def test_crashed_runs_are_tried_again_up_to_the_bound(
    world: World, instance: dg.DagsterInstance
) -> None:
    ticks = Ticks(world, instance)
    keys = []
    for attempt in range(3):
        (request,) = ticks.tick()
        keys.append((request.run_key or "").rsplit(":", 1)[1])
        with world.ops() as ops:
            _crash(ops, attempt)
    assert keys == ["1", "2", "3"]
    assert ticks.tick() == []
    action, reason = _decisions(world)[0]
    assert action == "skip"
    assert "3 runs on this evidence did not finish (at most 3)" in reason


def test_run_at_work_is_waited_for(world: World, instance: dg.DagsterInstance) -> None:
    ticks, now = Ticks(world, instance), datetime.now(UTC)
    with world.ops() as ops:
        claim_lease(ops, LEASE, "by hand", process=("elsewhere", 1), ttl_s=3_600, now=now)
        assert ticks.tick() == []
        assert _decisions(world) == [("skip", "a run is under way")]
        release_lease(ops, LEASE, "by hand")
    assert len(ticks.tick()) == 1


def test_run_that_still_starts_is_waited_for(world: World, instance: dg.DagsterInstance) -> None:
    run = dg.DagsterRun(
        job_name="churn_lifecycle", run_id="started-just-now", status=dg.DagsterRunStatus.STARTING
    )
    instance.add_run(run)
    assert Ticks(world, instance).tick() == []
    assert _decisions(world) == [("skip", "a run is under way")]


def test_missing_source_file_raises_instead_of_skipping(
    world: World, instance: dg.DagsterInstance
) -> None:
    (world.data / "sources" / "churn" / "tickets.parquet").unlink()
    with pytest.raises(SourceError, match=r"tickets"):
        Ticks(world, instance).tick()
    assert _decisions(world) == []


def test_new_data_fires_on_rows_newer_than_the_accepted_ones(
    world: World, instance: dg.DagsterInstance
) -> None:
    ticks = Ticks(world, instance, "churn_new_data")
    assert ticks.tick() == []
    assert _decisions(world, "new_data") == [("skip", "no source is newer than what was accepted")]
    with world.ops() as ops:
        pointer = get_pointer(ops, "churn", "accepted")
        assert pointer is not None
        held = {**pointer.value, "tickets": {**pointer.value["tickets"], "watermark": None}}
        set_pointer(ops, "churn", "accepted", held, run_id="r", now=datetime.now(UTC))
    again = Ticks(world, instance, "churn_new_data")
    assert len(again.tick()) == 1


def test_monthly_schedule_runs_when_as_of_moves_on(world: World) -> None:
    schedules = build_definitions(config_dir=world.root / "configs").schedules or ()
    (schedule,) = (item for item in schedules if item.name == "churn_monthly_retrain")
    assert isinstance(schedule, dg.ScheduleDefinition)
    resources = {"platform": Platform(environment=world.environment)}
    with (
        dg.DagsterInstance.from_config(str(world.root / "home")) as instance,
        dg.build_schedule_context(instance=instance, resources=resources) as context,
    ):
        data = schedule.evaluate_tick(context)
    assert [request.run_key for request in data.run_requests or []] == [
        f"monthly:2024-02-01:2024-04-01:{_labels(world)}:1"
    ]


def _labels(world: World) -> int:
    with world.ops() as ops:
        (decision,) = list_decisions(ops, "churn", kind="monthly")
    return int(decision.evidence["new_labels"])


# a failed run


def _fail(world: World, instance: dg.DagsterInstance, run_id: str) -> None:
    run = dg.DagsterRun(
        job_name="churn_lifecycle",
        run_id=run_id,
        status=dg.DagsterRunStatus.FAILURE,
        tags={"use_case": "churn"},
    )
    event = dg.DagsterEvent(
        event_type_value="PIPELINE_FAILURE", job_name="churn_lifecycle", message="it died"
    )
    sensor = _sensor(world, "run_failures")
    context = dg.build_run_status_sensor_context(
        sensor_name="run_failures",
        dagster_event=event,
        dagster_instance=instance,
        dagster_run=run,
        resources={"platform": Platform(environment=world.environment)},
    ).for_run_failure()
    sensor(context)


def test_run_that_died_silently_leaves_one_alert(
    world: World, instance: dg.DagsterInstance
) -> None:
    _fail(world, instance, "one")
    _fail(world, instance, "one")
    with world.ops() as ops:
        (alert,) = list_alerts(ops, "churn")
    assert (alert.kind, alert.message, alert.run_id) == ("run_failed", "it died", "one")
    assert alert.action == "open run one in the Dagster UI, mend the cause, run it again"


def test_run_whose_asset_said_why_gets_no_second_alert_even_when_resolved(
    world: World, instance: dg.DagsterInstance
) -> None:
    now = datetime.now(UTC)
    with world.ops() as ops:
        made = raise_alert(
            ops,
            "churn",
            NewAlert("run_failed", "error", "m", "a", dedupe_key="run_failed:two"),
            now=now,
        )
        resolve_alert(ops, "churn", made, by="run", reason="a later lifecycle finished", now=now)
    _fail(world, instance, "two")
    with world.ops() as ops:
        assert len(list_alerts(ops, "churn")) == 1
        assert list_alerts(ops, "churn", open_only=True) == []


# a real daemon


LOCATION = """
from mlops_pipeline.orchestration.build import build_definitions
defs = build_definitions(sensor_interval_seconds=2)
"""


@pytest.mark.campaign
def test_daemon_runs_the_lifecycle_by_itself_once(world: World) -> None:
    world.configure(lambda document: document["gates"][0].update(at_least=0.999))
    (world.root / "location.py").write_text(LOCATION)
    workspace = {"load_from": [{"python_file": {"relative_path": "location.py"}}]}
    (world.root / "workspace.yaml").write_text(yaml.safe_dump(workspace))
    started = world.command("sensor", "start", "churn_new_labels", "-w", "workspace.yaml")
    assert started.wait() == 0, started.text()

    daemon = world.command("daemon", "run", "-w", "workspace.yaml")
    try:
        with world.ops() as ops:
            daemon.wait_until(
                lambda: (
                    len(_decisions(world)) > 1
                    and _decisions(world)[0][1].startswith("nothing is newer")
                    and get_lease(ops, LEASE) is None
                )
            )
            lifecycles = ops.all(LifecycleRun, order=NEWEST, use_case="churn")
    finally:
        os.kill(daemon.process.pid, signal.SIGTERM)
        daemon.process.join(PATIENCE_S)
        end_group(daemon.process.pid)
    assert [(item.trigger, item.verdict) for item in lifecycles] == [
        ("new_labels", "refused"),
        ("manual", "champion"),
    ]
    assert [action for action, _ in _decisions(world)].count("retrain") == 1
    assert _daemon_runs(world.root / "home") == 1


def end_group(group: int) -> None:
    """End the code server that the daemon leaves for a while."""
    deadline = time.monotonic() + 5
    try:
        while time.monotonic() < deadline:
            os.killpg(group, signal.SIGTERM)
            time.sleep(0.1)
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _daemon_runs(home: Path) -> int:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return instance.get_runs_count(dg.RunsFilter(job_name="churn_lifecycle"))
