"""`mlops keys`: a key is shown once, and a server on a network needs one."""

import json
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mlops_pipeline.cli.app import app
from mlops_pipeline.errors import ConfigError, NotFoundError
from mlops_pipeline.stores.clock import machine_now
from mlops_pipeline_tests.documentation import CONFIGS


@pytest.fixture
def mlops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Result]:
    shutil.copytree(CONFIGS, tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLOPS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MLOPS_NOW", "2025-01-01")
    return lambda line: CliRunner().invoke(app, line.split())


def test_keys_are_created_rotated_and_revoked(mlops: Callable[[str], Result]) -> None:
    assert mlops("keys list").output == "there is no key\n"
    made = mlops("keys create shop --scopes predict,read --expires 2100-07-01 --by Ann")
    assert made.exit_code == 0
    assert made.stdout.startswith("mlops_")
    assert len(made.stdout.split()) == 1
    rotated = mlops("keys rotate shop --overlap-hours 1 --by Ben")
    assert made.stdout != rotated.stdout
    listed = mlops("keys list --json").stdout
    assert made.stdout.strip() not in listed
    found = [(one["scopes"], one["state"], one["by"], one["expires_at"])
             for one in json.loads(listed)]  # fmt: skip
    assert [row[:3] for row in found] == [
        ("predict, read", "valid", "Ann"),
        ("predict, read", "valid", "Ben"),
    ]
    first, second = (datetime.fromisoformat(row[3]) - machine_now() for row in found)
    assert first < timedelta(hours=1) < timedelta(days=364) < second  # whatever MLOPS_NOW says
    assert mlops("keys revoke shop --by Cat").output == "shop: 2 keys revoked\n"
    assert mlops("keys list").output.count("revoked by Cat") == 2


def test_server_of_an_unknown_use_case_names_the_nearest(mlops: Callable[[str], Result]) -> None:
    refused = mlops("serve chrun").exception
    assert isinstance(refused, NotFoundError)
    assert "churn" in str(refused)


def test_server_on_a_network_without_keys_does_not_start(mlops: Callable[[str], Result]) -> None:
    refused = mlops("serve --host 0.0.0.0").exception
    assert isinstance(refused, ConfigError)
    assert "mlops keys create" in str(refused)
