"""A job as a Dagster process, what it left in words, and the servers of `mlops dev`."""

import getpass
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
import yaml
from rich.markup import escape
from rich.text import Text

from mlops_pipeline.cli.console import console, errors, print_table, project, say
from mlops_pipeline.core.rollout.approvals import person_name
from mlops_pipeline.errors import visible
from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.bookkeeping import get_pointer
from mlops_pipeline.lifecycle.predictions import predictions_uri
from mlops_pipeline.lifecycle.status import use_case_status
from mlops_pipeline.stores.models.address import prepare
from mlops_pipeline.stores.models.mlflow import QUIET
from mlops_pipeline.stores.settings import Settings, project_root

LOG_LINE = re.compile(  # what an asset says: level, job, run, op, text
    r" - (?P<level>INFO|WARNING|ERROR) - \S+ - [0-9a-f-]{36} - \w+?__(?P<asset>\w+) - (?P<text>.*)"
)
COLOURS = {"passed": "green", "failed": "red"}  # of a rule's outcome; any other waits for somebody
BY = "mlops/by"  # the tag of a run that says who started it
HOST = "127.0.0.1"
STOP_SECONDS = 15
FAILURE_LINES = 25  # of Dagster's log, shown when a run fails


def execute_job(
    use_case: str,
    job: str,
    ops: Mapping[str, Mapping[str, Any]],
    *,
    by: str | None = None,
    multiprocess: bool = False,
    verbose: bool = False,
) -> float:
    """Execute a job of the code location, showing what its assets say; return its seconds."""
    begun = time.perf_counter()
    config: dict[str, Any] = {
        "ops": {f"{use_case}__{asset}": {"config": dict(given)} for asset, given in ops.items()}
    }
    if multiprocess:
        config["execution"] = {"config": {"multiprocess": {"max_concurrent": os.cpu_count() or 1}}}
    tags = json.dumps({BY: by or person_name(getpass.getuser())})
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        command = [
            sys.executable, "-m", "dagster", "job", "execute", "-m", "mlops_pipeline.definitions",
            "-j", f"{use_case}_{job}", "-c", str(path), "--tags", tags,
        ]  # fmt: skip
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
    if code != 0:
        if not verbose:
            errors.print(visible("\n".join(tail)), markup=False)
        _print_failure(use_case)
        raise typer.Exit(code)
    return time.perf_counter() - begun


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
        say(line.rstrip())
        return
    match = LOG_LINE.search(line.rstrip())
    if match is None or match["text"].startswith("STEP_"):
        return
    style = {"WARNING": "yellow", "ERROR": "red"}.get(match["level"], "default")
    console.print(f"[cyan]{match['asset']:>18}[/]  [{style}]{escape(visible(match['text']))}[/]")


def _print_failure(name: str) -> None:
    with project(name) as context:
        alerts = list_alerts(context.ops, name, open_only=True)
    console.rule(f"[bold red]{name}: the run failed")
    if alerts:
        newest = max(alerts, key=lambda item: item.last_raised_at)
        say(newest.message)
        if newest.action not in newest.message:
            say(f"what to do: {newest.action}")


def print_scored(name: str, *, is_trial: bool = False) -> None:
    """Print what the newest scoring wrote."""
    with project(name) as context:
        uri = predictions_uri(context.lake, context.use_case, is_trial=is_trial)
        written = context.lake.commit_metadata(uri)
    for facts in written[-1:]:
        say(
            f"{name}: {facts['rows']:,} rows of period {facts['period']} scored by "
            f"version {facts['model_version']}, {facts['positives']:,} positive decisions"
        )
        say(f"table: {uri}")
    if is_trial:
        say("", lead="trial scores: not for decisions", colour="yellow")


def print_summary(name: str, *, wall_seconds: float | None = None) -> None:
    """Print the state of a use case; with `wall_seconds`, also where they went."""
    with project(name) as context:
        state = use_case_status(context.use_case, context.settings)
        trained = get_pointer(context.ops, name, "trained_model")
        fingerprint = str(trained.value["fingerprint"]) if trained else ""
        report = context.lake.artifact_folder(name, fingerprint) / "report.html"
    console.rule(f"[bold]{name}")
    _headline(state)
    _tables(state, wall_seconds)
    _cost(state["cost"])
    for alert in state["alerts"][:3]:
        say(f" {alert['message'].splitlines()[0]}", lead="alert", colour="red")
        say(f"      what to do: {alert['action']}")
    if report.is_file():
        say(f"report:  {report.as_uri()}")
    say("Dagster: make dev, then http://127.0.0.1:3000")
    say("MLflow:  make dev, then http://127.0.0.1:5000")


def _outcome(rule: Mapping[str, Any]) -> Text:
    if rule["excepted"]:
        return Text(f"{rule['outcome']}, excepted", "yellow")
    return Text(rule["outcome"], COLOURS.get(rule["outcome"], "yellow"))


def _tables(state: dict[str, Any], wall_seconds: float | None) -> None:
    rows: Iterable[Sequence[object]]
    gate, champion = state["last_gate"], state["champion"]
    if gate:
        rows = ((rule["name"], _number(rule["value"]), rule["effect"],
                 _outcome(rule), rule["reason"])
                for rule in gate["rules"])  # fmt: skip
        title = f"gate: {'passed' if gate['passed'] else 'refused'}"
        print_table(("rule", "value", "effect", "verdict", "reason"), rows, title=title)
    for item in state["exceptions"]:
        subject = item["rule"] + (f" ({item['attribute']})" if item["attribute"] else "")
        said = f"until {item['expires_at'][:10]}: {item['by']}: {item['reason']}"
        say(f" from {subject} {said}", lead=f"exception {item['id']}", colour="yellow")
    if champion and champion["metrics"]:
        rows = ((metric, _number(figure["value"], "not computable"),
                 " to ".join(_number(end) for end in figure["interval"] or ()))
                for metric, figure in champion["metrics"].items())  # fmt: skip
        title = f"champion (version {champion['version']}) on its test part"
        print_table(("metric", "value", "95 % interval"), rows, title=title)
    if state["data"]:
        heads = ("source", "version", "rows", "quarantined")
        rows = ((source, item["version"], f"{item['rows']:,}", f"{item['quarantined']:,}")
                for source, item in state["data"].items())  # fmt: skip
        print_table(heads, rows, title="accepted data", right=heads[1:])
    if wall_seconds is not None and state["last_run"]:
        seconds = state["last_run"]["seconds"]
        rest = {"starting, importing, recording": wall_seconds - sum(seconds.values())}
        rows = ((part, f"{spent:.1f}") for part, spent in {**seconds, **rest}.items())
        title = f"where {wall_seconds:.0f} s went"
        print_table(("asset", "seconds"), rows, title=title, right=("seconds",))


def _number(value: float | None, instead: str = "") -> str:
    return instead if value is None else f"{value:.4f}"


def _headline(state: dict[str, Any]) -> None:
    run = state["last_run"]
    if run is not None:
        as_of = f"as_of {run['as_of'][:10]}, " if run["as_of"] else ""
        say(f": {as_of}{run['state'].replace('_', ' ')}", lead="last run", colour="bold")
    champion = state["champion"]
    say(f"champion: version {champion['version']}" if champion else "no champion")
    if champion and champion["approval_expires"]:
        ended = "[red]ended[/]" if champion["approval_ended"] else "ends"
        console.print(f"its approval {ended} at {champion['approval_expires']}")
    if trial := state["trial"]:
        say(f"in trial: version {trial['version']}, stage {trial['stage']} ({trial['state']})")
    for item in state["waiting"]:
        version, kind, who = item["version"], item["approval_state"], item["waiting_for"] or ""
        say(f": mlops approve {state['use_case']} {version} --by NAME --reason TEXT",
            lead=f"version {version} ({kind}) waits for {who}", colour="yellow")  # fmt: skip


def _cost(cost: dict[str, Any]) -> None:
    known = {
        "the last run": cost["last_run"],
        "a training run": cost["per_training_run"],
        "1,000 predictions": cost["per_1000_predictions"],
        "an accepted version": cost["per_accepted_improvement"],
    }
    parts = [f"{name} {price:.4f}" for name, price in known.items() if price is not None]
    say(f"cost ({cost['currency']}): {', '.join(parts)}")


def serve(dagster_port: int, mlflow_port: int) -> int:
    """Start both servers, wait, and stop both when one ends; return the exit code."""
    settings = Settings.from_environment()
    prepare(settings)
    (settings.data_dir / "dagster").mkdir(parents=True, exist_ok=True)
    artifacts = settings.data_dir / "mlflow" / "artifacts"
    commands = [
        ["dagster", "dev", "-h", HOST, "-p", str(dagster_port)],
        ["mlflow", "server", "--host", HOST, "--port", str(mlflow_port),
         "--default-artifact-root", str(artifacts), "--workers", "1"],
    ]  # fmt: skip
    environment = {
        **dagster_environment(),
        "MLFLOW_BACKEND_STORE_URI": settings.mlflow_uri,  # no password on a command line
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    processes = [
        subprocess.Popen(  # noqa: S603 # our own words
            [sys.executable, "-m", *command],
            env=environment,
            cwd=project_root(),
            start_new_session=True,
        )
        for command in commands
    ]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both are stopped either way
    say(f"Dagster: http://{HOST}:{dagster_port}   MLflow: http://{HOST}:{mlflow_port}")
    try:
        while all(process.poll() is None for process in processes):
            try:
                processes[0].wait(timeout=1)
            except subprocess.TimeoutExpired:
                continue
    except KeyboardInterrupt:
        say("stopping")
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
