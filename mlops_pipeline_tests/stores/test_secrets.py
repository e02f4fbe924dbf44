"""Passwords show nowhere, and files are their owner's."""

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_pipeline.cli import runs
from mlops_pipeline.errors import ConfigError, ContractError, MlopsError, masked, without_secrets
from mlops_pipeline.stores.models.address import reach
from mlops_pipeline.stores.models.contract import check_contract
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.stores.online.servers import free_port


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////tmp/ops.db", "sqlite:////tmp/ops.db"),
        ("postgresql://ann:sekret@db:5432/x", "postgresql://ann:***@db:5432/x"),
        ("postgresql://db/x?user=ann&password=sekret", "postgresql://db/x?user=ann&password=***"),
        (
            "http://u:sekret@mlflow:5000/?api_token=sekret",
            "http://u:***@mlflow:5000/?api_token=***",
        ),
        ("redis://:sekret@cache/1", "redis://:***@cache/1"),
        ("postgresql://ann:sek/r#e@t@db/x", "postgresql://ann:***@db/x"),
        ("http://mlflow:5000", "http://mlflow:5000"),
    ],
)
def test_address_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    "text",
    [
        "connection to 'redis://:sekret@cache:6379/0' failed",
        "host=db user=ann password=sekret sslmode=require",
        "host=db password = 'sek ret' user=ann",
        'refused: {"user": "ann", "api_key": "sekret"}',
        "GET https://store/x?sig=1&X-Amz-Security-Token=sekret HTTP/1.1",
        "Authorization: Bearer sekret",
        "AWS_SECRET_ACCESS_KEY=sekret is refused",
    ],
)
def test_secret_in_a_text_is_shown_in_no_error_and_no_log(text: str) -> None:
    for shown in (str(MlopsError(text, found=text)), masked(text), _logged(text)):
        assert "sek" not in shown
        assert "***" in shown


def _logged(text: str) -> str:
    """What a process of ours logs of a text, of an error with it, and of an escape."""
    logs = "import logging, sys; from mlops_pipeline.stores.settings import keep_private"
    fails = "try: raise ValueError(sys.argv[1])\nexcept ValueError: logging.exception(sys.argv[1])"
    code = f"{logs}\nkeep_private()\nlogging.error('\\x1b[2J%s', sys.argv[1])\n{fails}"
    command = [sys.executable, "-c", code, text]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert r"\x1b[2J" in log
    assert "ValueError" in log
    return log


def test_text_without_secrets_stays_as_it_is() -> None:
    text = "passed = 3; 12 tokens of http://db:5432/x, see a@b: the password is wrong"
    assert without_secrets(text) == text


@pytest.mark.parametrize("place", ["ann:sekret@127.0.0.1:1/x", "127.0.0.1:1/x?password=sekret"])
def test_database_that_is_away_does_not_show_its_password(place: str) -> None:
    mark = "&" if "?" in place else "?"
    with pytest.raises(ConfigError) as caught:
        OpsDatabase.open(f"postgresql+psycopg://{place}{mark}connect_timeout=1")
    assert "sekret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["http://", "postgresql+psycopg://u:sekret@"])
def test_mlflow_that_is_away_is_one_error_at_once(kind: str) -> None:
    with pytest.raises(ConfigError, match="MLflow cannot be reached") as caught:
        reach(f"{kind}127.0.0.1:{free_port()}/x")
    assert "sekret" not in str(caught.value)


@pytest.mark.parametrize("login", ["", "ann:sekret@", "ann:sek%2Fret@"])
def test_mlflow_that_listens_is_reached_with_and_without_a_login(login: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reach(f"http://{login}127.0.0.1:{listener.getsockname()[1]}")


def test_address_of_mlflow_that_cannot_be_read_does_not_show_its_password() -> None:
    with pytest.raises(ConfigError, match="MLflow cannot be reached") as caught:
        reach("http://ann:sek/ret@127.0.0.1:1")
    assert "sek" not in str(caught.value)


def test_servers_of_dev_have_no_password_on_their_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLOPS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("MLOPS_MLFLOW_URI", "postgresql://ann:sekret@db/mlflow")
    started: list[tuple[list[str], dict[str, str]]] = []

    class Ended:
        returncode, pid = 0, -1

        def __init__(self, words: list[str], env: dict[str, str], **_: object) -> None:
            started.append((words, env))

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", Ended)
    monkeypatch.setattr(runs, "_stop", lambda _: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert runs.serve(3000, 5000) == 0
    assert not [words for words, _ in started if "sekret" in " ".join(words)]
    assert started[1][1]["MLFLOW_BACKEND_STORE_URI"] == "postgresql://ann:sekret@db/mlflow"


def test_what_a_command_makes_is_private(tmp_path: Path) -> None:
    environment = {**os.environ, "MLOPS_DATA_DIR": str(tmp_path / "data")}
    command = [sys.executable, "-m", "mlops_pipeline", "audit", "list"]
    subprocess.run(
        ["/bin/sh", "-c", 'umask 022; exec "$@"', "sh", *command], check=True, env=environment
    )
    made = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
    assert (tmp_path / "data" / "ops.db") in made
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in made} == {0}


def test_contract_that_takes_too_long_is_a_contract_error(tmp_path: Path) -> None:
    (tmp_path / "model_script.py").write_text("x")
    with pytest.raises(ContractError, match="in time") as caught:
        check_contract(tmp_path, "x", tmp_path / "rows.json", (), timeout_s=0)
    assert "MLOPS_CONTRACT_TIMEOUT_S" in str(caught.value)
