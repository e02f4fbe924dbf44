"""`mlops dev`: the Dagster UI with its daemon and the MLflow UI, on loopback, until interrupted."""

import os
import signal
import subprocess
import sys

from mlops_pipeline.cli.console import console
from mlops_pipeline.cli.runs import dagster_environment
from mlops_pipeline.stores.models.tracking import prepare
from mlops_pipeline.stores.settings import Settings, project_root

HOST = "127.0.0.1"
STOP_SECONDS = 15


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
