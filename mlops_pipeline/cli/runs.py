"""Other programs as processes: a job as `dagster job execute`, and the servers of `mlops dev`."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.markup import escape

from mlops_pipeline.cli.console import console, errors
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import ConfigError
from mlops_pipeline.stores.models.mlflow import QUIET, prepare
from mlops_pipeline.stores.settings import Settings, parse_time, project_root

LOG_LINE = re.compile(  # what an asset says: level, job, run, op, text
    r" - (?P<level>INFO|WARNING|ERROR) - \S+ - [0-9a-f-]{36} - \w+?__(?P<asset>\w+) - (?P<text>.*)"
)
HOST = "127.0.0.1"
STOP_SECONDS = 15
FAILURE_LINES = 25  # of Dagster's log, shown when a run fails


@dataclass(frozen=True)
class Done:
    """How a process ended."""

    exit_code: int
    seconds: float


def run_lifecycle(
    use_case: UseCase,
    *,
    as_of: str | None,
    on_rejection: str,
    triggered_by: str,
    multiprocess: bool,
    verbose: bool,
) -> Done:
    """Run `<use_case>_lifecycle`, showing what its assets say."""
    if on_rejection not in ("keep", "fail"):
        raise ConfigError(
            "--on-rejection is not valid", expected="keep or fail", found=on_rejection
        )
    ops: dict[str, Any] = {
        f"{use_case.name}__registry_entry": {"config": {"on_rejection": on_rejection}}
    }
    if as_of is not None:
        parse_time(as_of)  # what is no date is refused before anything starts
        ops[f"{use_case.name}__features"] = {"config": {"as_of": as_of}}
    config: dict[str, Any] = {"ops": ops}
    if multiprocess:
        config["execution"] = {"config": {"multiprocess": {"max_concurrent": os.cpu_count() or 1}}}
    tags = {"mlops/by": triggered_by}
    return execute_job(f"{use_case.name}_lifecycle", config, tags=tags, verbose=verbose)


def run_scoring(use_case: UseCase, *, period: str | None, version: int | None) -> Done:
    """Run `<use_case>_batch_score`."""
    given = {"period": period, "version": version}
    chosen = {name: value for name, value in given.items() if value is not None}
    config = {}
    if chosen:
        config = {"ops": {f"{use_case.name}__batch_predictions": {"config": chosen}}}
    return execute_job(f"{use_case.name}_batch_score", config, verbose=False)


def execute_job(
    job: str,
    config: Mapping[str, Any],
    *,
    tags: Mapping[str, str] | None = None,
    verbose: bool,
) -> Done:
    """Execute a job of the code location and stream its log."""
    begun = time.perf_counter()
    with _config_file(config) as path:
        command = [
            sys.executable,
            "-m",
            "dagster",
            "job",
            "execute",
            "-m",
            "mlops_pipeline.definitions",
            "-j",
            job,
            "-c",
            str(path),
            "--tags",
            json.dumps(dict(tags or {})),
        ]
        process = subprocess.Popen(  # noqa: S603 # our own interpreter and words
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=dagster_environment(),
            cwd=project_root(),
        )
        tail: list[str] = []
        for line in process.stdout or ():
            tail = [*tail[-FAILURE_LINES:], line.rstrip()]
            _show(line, verbose=verbose)
        code = process.wait()
    if code != 0 and not verbose:
        errors.print("\n".join(escape(line) for line in tail))
    return Done(code, time.perf_counter() - begun)


def dagster_environment() -> dict[str, str]:
    """Return the environment of a Dagster process: its home, and no telemetry."""
    home = os.environ.get("DAGSTER_HOME") or str(project_root())
    return {
        **os.environ,
        **QUIET,
        "DAGSTER_HOME": home,
        "DAGSTER_DISABLE_TELEMETRY": "true",
        "PYTHONWARNINGS": "ignore",
    }


def _show(line: str, *, verbose: bool) -> None:
    if verbose:
        console.print(escape(line.rstrip()))
        return
    match = LOG_LINE.search(line.rstrip())
    if match is None or match["text"].startswith("STEP_"):
        return
    style = {"WARNING": "yellow", "ERROR": "red"}.get(match["level"], "default")
    console.print(f"[cyan]{match['asset']:>18}[/]  [{style}]{escape(match['text'])}[/]")


@contextmanager
def _config_file(config: Mapping[str, Any]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
        yield path


def serve(dagster_port: int, mlflow_port: int) -> int:
    """Start both servers, wait, and stop both when one ends; return the exit code."""
    settings = Settings.from_environment()
    prepare(settings)
    (settings.data_dir / "dagster").mkdir(parents=True, exist_ok=True)
    artifacts = settings.data_dir / "mlflow" / "artifacts"
    commands = [
        [sys.executable, "-m", "dagster", "dev", "-h", HOST, "-p", str(dagster_port)],
        [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            HOST,
            "--port",
            str(mlflow_port),
            "--backend-store-uri",
            settings.mlflow_uri,
            "--default-artifact-root",
            str(artifacts),
            "--workers",
            "1",
        ],
    ]
    environment = {**dagster_environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    processes = [
        subprocess.Popen(  # noqa: S603 # our own words
            command, env=environment, cwd=project_root(), start_new_session=True
        )
        for command in commands
    ]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both are stopped either way
    console.print(f"Dagster: http://{HOST}:{dagster_port}   MLflow: http://{HOST}:{mlflow_port}")
    try:
        while all(process.poll() is None for process in processes):
            try:
                processes[0].wait(timeout=1)
            except subprocess.TimeoutExpired:
                continue
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        for process in processes:
            _stop(process)
    return max(process.returncode or 0 for process in processes)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask a server and everything it started to end; after a while, insist."""
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return
