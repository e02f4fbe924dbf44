"""The Clock moves for every process of a data folder, forward only, and each move is chained."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mlops_pipeline.cli.app import app
from mlops_pipeline.errors import ConfigError, StateError
from mlops_pipeline.lifecycle.clock import move_clock
from mlops_pipeline.stores.clock import MovingClock, machine_now, read_clock, write_clock
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.ops.lease import claim_lease
from mlops_pipeline.stores.settings import Settings

JUNE = datetime(2024, 6, 1, tzinfo=UTC)
NOW = """
from mlops_pipeline.stores.settings import Settings
print(Settings.from_environment().now().isoformat())
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment({"MLOPS_DATA_DIR": str(tmp_path / "data")})


@pytest.fixture
def mlops(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Result]:
    monkeypatch.setenv("MLOPS_DATA_DIR", str(settings.data_dir))
    monkeypatch.delenv("MLOPS_NOW", raising=False)
    return lambda line: CliRunner().invoke(app, line.split())


def test_time_goes_on_at_its_rate_up_to_its_end() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    clock = MovingClock(JUNE, start, 3600.0, JUNE + timedelta(hours=2))
    assert clock.at(start) == JUNE
    assert clock.at(start + timedelta(seconds=1)) == JUNE + timedelta(hours=1)
    assert clock.at(start + timedelta(seconds=9)) == JUNE + timedelta(hours=2)
    assert MovingClock(JUNE, start, 0.0).at(start + timedelta(days=9)) == JUNE


def test_every_process_sees_the_step(mlops: Callable[[str], Result], settings: Settings) -> None:
    assert mlops("clock step --to 2024-06-01").exit_code == 0
    other = subprocess.run([sys.executable, "-c", NOW], capture_output=True, text=True, check=True)
    assert datetime.fromisoformat(other.stdout.strip()) == settings.now() == JUNE
    mlops("clock step")
    assert settings.now() == datetime(2024, 6, 1, 1, tzinfo=UTC)  # the nightly archive
    mlops("clock step --to 2024-06-05T02:00")
    mlops("clock step")
    assert settings.now() == datetime(2024, 6, 5, 3, tzinfo=UTC)  # the monthly retraining
    assert "in steps" in mlops("clock show").output


def test_clock_is_set_before_anything_else_is_in_the_data_folder(tmp_path: Path) -> None:
    clock = MovingClock(JUNE, JUNE, 0.0)
    write_clock(tmp_path / "data", clock)
    assert read_clock(tmp_path / "data") == clock


def test_clock_does_not_go_back_until_it_is_the_systems_again(
    mlops: Callable[[str], Result], settings: Settings
) -> None:
    mlops("clock speed 60 --from 2024-06-01 --by Ann")
    assert JUNE <= settings.now() < JUNE + timedelta(hours=9)
    assert isinstance(mlops("clock step --to 2024-05-31").exception, StateError)
    assert mlops("clock system --by Ann").exit_code == 0
    assert read_clock(settings.data_dir) is None
    assert settings.now() > datetime(2026, 1, 1, tzinfo=UTC)
    with OpsDatabase.open(settings.database_url) as ops:
        system, speed = ops.audit_events(kind="clock")
    assert (speed.actor, speed.detail["rate"], speed.at) == ("Ann", 60.0, JUNE)
    assert speed.recorded_at is not None
    assert abs(machine_now() - speed.recorded_at) < timedelta(minutes=9)  # both times
    assert system.detail["to"] == "system"


def test_fixed_time_wins_and_is_not_moved(settings: Settings) -> None:
    write_clock(settings.data_dir.parent, None)  # nothing to remove is no error
    fixed = Settings.from_environment(
        {"MLOPS_DATA_DIR": str(settings.data_dir), "MLOPS_NOW": "2025-01-01"}
    )
    with OpsDatabase.open(settings.database_url) as ops:
        move_clock(ops, settings, JUNE, by="Ann")
        assert fixed.now() == datetime(2025, 1, 1, tzinfo=UTC)
        with pytest.raises(ConfigError, match="MLOPS_NOW"):
            move_clock(ops, fixed, JUNE, by="Ann")


def test_step_waits_for_nobody_while_a_run_works(
    mlops: Callable[[str], Result], settings: Settings
) -> None:
    with OpsDatabase.open(settings.database_url) as ops:
        name = "lifecycle:churn"
        claim_lease(ops, name, "run 1", process=("elsewhere", 1), ttl_s=60, now=machine_now())
    refused = mlops("clock step --to 2024-06-01").exception
    assert isinstance(refused, StateError)
    assert "run 1" in str(refused)
    assert read_clock(settings.data_dir) is None
