"""The readable summary of a use case: champion, gate, data, and where the time went."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from mlops_pipeline.cli.console import console
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.bookkeeping import get_pointer
from mlops_pipeline.lifecycle.predictions import predictions_uri
from mlops_pipeline.lifecycle.status import use_case_status
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

VERDICTS = {True: "[green]passed[/]", False: "[red]failed[/]", None: "[yellow]not computable[/]"}


def print_summary(
    use_case: UseCase, settings: Settings, *, wall_seconds: float | None = None
) -> None:
    """Print the state of a use case; with `wall_seconds`, also where they went."""
    state = use_case_status(use_case, settings)
    console.rule(f"[bold]{use_case.name}")
    _headline(state)
    if state["last_gate"]:
        console.print(_gate(state["last_gate"]))
    for item in state["exceptions"]:
        subject = item["rule"] + (f" ({item['attribute']})" if item["attribute"] else "")
        console.print(
            f"[yellow]exception {item['id']}[/] from {subject} until {item['expires_at'][:10]}: "
            f"{escape(item['by'])}: {escape(item['reason'])}"
        )
    if state["champion"] and state["champion"]["metrics"]:
        console.print(_metrics(state["champion"]))
    if state["data"]:
        console.print(_data(state["data"]))
    if wall_seconds is not None and state["last_run"]:
        console.print(_seconds(state["last_run"]["seconds"], wall_seconds))
    _cost(state["cost"])
    for alert in state["alerts"][:3]:
        console.print(f"[red]alert[/] {escape(alert['message'].splitlines()[0])}")
        console.print(f"      what to do: {escape(alert['action'])}")
    _report(use_case, settings)


def print_failure(use_case: UseCase, settings: Settings) -> None:
    """Print what the failed run left: its alert with what to do."""
    with OpsDatabase.open(settings.database_url) as ops:
        alerts = list_alerts(ops, use_case.name, open_only=True)
    console.rule(f"[bold red]{use_case.name}: the run failed")
    if alerts:
        newest = max(alerts, key=lambda item: item.last_raised_at)
        console.print(escape(newest.message))
        console.print(f"what to do: {escape(newest.action)}")


def print_scored(use_case: UseCase, settings: Settings, *, is_trial: bool = False) -> None:
    """Print what the newest scoring wrote."""
    lake = Lake(settings.lake_uri)
    uri = predictions_uri(lake, use_case, is_trial=is_trial)
    for facts in lake.commit_metadata(uri)[-1:]:
        console.print(
            f"{use_case.name}: {facts['rows']:,} rows of period {facts['period']} scored by "
            f"version {facts['model_version']}, {facts['positives']:,} positive decisions"
        )
        console.print(f"table: {uri}")
    if is_trial:
        console.print("[yellow]trial scores: not for decisions[/]")


def _headline(state: dict[str, Any]) -> None:
    run = state["last_run"]
    if run is not None:
        ended = run["verdict"] or "not finished"
        console.print(f"last run: as_of {run['as_of'][:10]}, [bold]{ended}[/]")
    champion = state["champion"]
    console.print(f"champion: version {champion['version']}" if champion else "no champion")
    if champion and champion["approval_expires"]:
        ended = "[red]ended[/]" if champion["approval_ended"] else "ends"
        console.print(f"its approval {ended} at {champion['approval_expires']}")
    for item in state["waiting"]:
        console.print(
            f"[yellow]version {item['version']} ({item['approval_state']}) waits for "
            f"{escape(item['waiting_for'] or '')}[/]: "
            f"mlops approve {state['use_case']} {item['version']} --by NAME --reason TEXT"
        )


def _gate(gate: dict[str, Any]) -> Table:
    table = Table(title=f"gate: {'passed' if gate['passed'] else 'refused'}", title_justify="left")
    for column in ("rule", "value", "effect", "verdict", "reason"):
        table.add_column(column, overflow="fold")
    for rule in gate["rules"]:
        value = "" if rule["value"] is None else f"{rule['value']:.4f}"
        verdict = "[yellow]failed, excepted[/]" if rule["excepted"] else VERDICTS[rule["passed"]]
        table.add_row(rule["name"], value, rule["effect"], verdict, escape(rule["reason"]))
    return table


def _metrics(champion: dict[str, Any]) -> Table:
    table = Table(
        title=f"champion (version {champion['version']}) on its test part", title_justify="left"
    )
    for column in ("metric", "value", "95 % interval"):
        table.add_column(column)
    for name, figure in champion["metrics"].items():
        interval = figure["interval"]
        table.add_row(
            name,
            "not computable" if figure["value"] is None else f"{figure['value']:.4f}",
            "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}",
        )
    return table


def _data(data: dict[str, Any]) -> Table:
    table = Table(title="accepted data", title_justify="left")
    for column in ("source", "version", "rows", "quarantined"):
        table.add_column(column, justify="left" if column == "source" else "right")
    for name, item in data.items():
        table.add_row(name, str(item["version"]), f"{item['rows']:,}", f"{item['quarantined']:,}")
    return table


def _seconds(seconds: dict[str, float], wall: float) -> Table:
    table = Table(title=f"where {wall:.0f} s went", title_justify="left")
    table.add_column("asset")
    table.add_column("seconds", justify="right")
    for name, value in seconds.items():
        table.add_row(name, f"{value:.1f}")
    table.add_row("starting, importing, recording", f"{wall - sum(seconds.values()):.1f}")
    return table


def _cost(cost: dict[str, Any]) -> None:
    known = {
        "the last run": cost["last_run"],
        "a training run": cost["per_training_run"],
        "1,000 predictions": cost["per_1000_predictions"],
        "an accepted version": cost["per_accepted_improvement"],
    }
    parts = [f"{name} {price:.4f}" for name, price in known.items() if price is not None]
    console.print(f"cost ({escape(cost['currency'])}): {', '.join(parts)}")


def _report(use_case: UseCase, settings: Settings) -> None:
    with OpsDatabase.open(settings.database_url) as ops:
        trained = get_pointer(ops, use_case.name, "trained_model")
    if trained is not None:
        folder = Lake(settings.lake_uri).artifact_folder(
            use_case.name, str(trained.value["fingerprint"])
        )
        if (folder / "report.html").is_file():
            console.print(f"report:  {(folder / 'report.html').as_uri()}")
    console.print("Dagster: make dev, then http://127.0.0.1:3000")
    console.print("MLflow:  make dev, then http://127.0.0.1:5000")
