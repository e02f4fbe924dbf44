"""The `mlops` command: every subcommand, its options, and how errors become exit codes.

Belongs here: the command line. What a command does is in lifecycle/; a lifecycle runs as a
`dagster job execute` process (runs.py), because only orchestration/ knows Dagster.
"""

import getpass
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from mlops_pipeline.cli.approvals import (
    approve,
    exception_app,
    forget,
    registry_app,
    reject,
    rollback,
)
from mlops_pipeline.cli.clock import clock_app
from mlops_pipeline.cli.console import (
    AsJson,
    Name,
    all_use_cases,
    errors,
    find_use_case,
    print_json,
    print_table,
    progress_bar,
    say,
)
from mlops_pipeline.cli.documents import audit_app, card_app, pack, reproduce
from mlops_pipeline.cli.features import features_app
from mlops_pipeline.cli.rollout import rollout_app
from mlops_pipeline.cli.serving import keys_app, review_app, serve
from mlops_pipeline.config import json_schema, load_use_case
from mlops_pipeline.errors import ConfigError, MachineError, MlopsError, visible
from mlops_pipeline.stores.settings import Settings, keep_private, parse_time

app = typer.Typer(
    name="mlops",
    help="A governed machine-learning lifecycle: one YAML file per use case.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
simulate_app = typer.Typer(
    help="Make demo data with known drift, bias and label delay.", no_args_is_help=True
)
config_app = typer.Typer(help="Check and describe configuration files.", no_args_is_help=True)
for name, group in {
    "simulate": simulate_app, "config": config_app, "features": features_app, "audit": audit_app,
    "registry": registry_app, "exception": exception_app, "card": card_app, "keys": keys_app,
    "review": review_app, "clock": clock_app, "rollout": rollout_app,
}.items():  # fmt: skip
    app.add_typer(group, name=name)
for command in (approve, reject, rollback, reproduce, forget, pack, serve):
    app.command()(command)


def main() -> None:
    """Run the command line; a known error is one message and exit code 1."""
    keep_private()
    try:
        app()
    except BaseException as error:
        known = error if isinstance(error, MlopsError) else MachineError.of(error)
        if known is None:
            raise
        errors.print(f"[bold red]error:[/] {escape(visible(str(known)))}")
        sys.exit(1)


def _simulation(world: str, about: str, who: str, customers: int, months: int) -> None:
    @simulate_app.command(world, help=f"{about} into data/sources/{world}/ (docs/simulation.md).")
    def simulate(
        customers: Annotated[int, typer.Option(min=1, help=who)] = customers,
        months: Annotated[int, typer.Option(min=6, max=120, help="Length of the world.")] = months,
        seed: Annotated[int, typer.Option(help="Same seed, same world.")] = 7,
    ) -> None:
        from mlops_pipeline.demo.simulated import write_churn, write_fraud

        write = {"churn": write_churn, "fraud": write_fraud}[world]
        folder = Settings.from_environment().data_dir / "sources" / world
        with progress_bar("simulating customers", customers) as advance:
            rows = write(folder, customers=customers, months=months, seed=seed, progress=advance)
        total = sum(rows.values())
        say(f"{customers:,} customers, {months} months: {total:,} rows in {folder}")


_simulation("churn", "Simulate the telecom world", "Accounts ever opened.", 20_000, 30)
_simulation("fraud", "Simulate the card world", "Who ever holds a card.", 2_000, 18)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="online_retail, bank_marketing, adult, telco_churn")],
    from_folder: Annotated[
        Path | None, typer.Option("--from", help="Take the files from this folder.")
    ] = None,
) -> None:
    """Bring a public data set, verify its sha256, and write canonical Parquet."""
    from mlops_pipeline.demo.datasets import fetch_dataset

    with progress_bar(f"fetching {name}", 1) as advance:
        result = fetch_dataset(
            name, Settings.from_environment().data_dir, from_folder=from_folder, progress=advance
        )
    for name_of_table, rows in result.rows.items():
        say(f"{name_of_table}: {rows:,} rows in {result.path}")


@app.command()
def run(  # noqa: PLR0913 # an option each
    use_case: Name,
    as_of: Annotated[
        str | None, typer.Option(help="Look from this grid point (ISO date, UTC).")
    ] = None,
    on_rejection: Annotated[
        str, typer.Option(help="keep: a refused run is green; fail: it is red (CI).")
    ] = "keep",
    *,
    by: Annotated[
        str | None, typer.Option(help="Who triggers it: self-asserted, recorded.")
    ] = None,
    accept_jump: Annotated[
        list[str] | None, typer.Option(help="A source whose newest rows may lie far ahead.")
    ] = None,
    restate: Annotated[
        list[str] | None, typer.Option(help="A source whose rows count however late they came.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why that is right: recorded.")] = "",
    multiprocess: Annotated[bool, typer.Option(help="Each asset in a process of its own.")] = False,
    verbose: Annotated[bool, typer.Option(help="Show Dagster's own log.")] = False,
) -> None:
    """Run the lifecycle and say how it ended."""
    from mlops_pipeline.cli.runs import execute_job, print_summary
    from mlops_pipeline.core.rollout.approvals import person_name

    find_use_case(use_case)
    all_use_cases()  # a mistake in any file stops the code location
    if on_rejection not in ("keep", "fail"):
        expected = "keep or fail"
        raise ConfigError("--on-rejection is not valid", expected=expected, found=on_rejection)
    ops: dict[str, dict[str, Any]] = {"registry_entry": {"on_rejection": on_rejection}}
    if as_of is not None:
        parse_time(as_of)  # what is no date is refused before anything starts
        ops["features"] = {"as_of": as_of}
    name = person_name(by or getpass.getuser())
    if permits := {
        key: named for key, named in (("accept_jump", accept_jump), ("restate", restate)) if named
    }:
        ops["raw_data"] = {**permits, "by": name, "reason": reason}
    seconds = execute_job(
        use_case, "lifecycle", ops, by=name, multiprocess=multiprocess, verbose=verbose
    )
    print_summary(use_case, wall_seconds=seconds)


@app.command()
def score(
    use_case: Name,
    period: Annotated[str | None, typer.Option(help="ISO date; default the newest.")] = None,
    version: Annotated[
        int | None, typer.Option(help="Trial scores of a version in staging: no decisions.")
    ] = None,
) -> None:
    """Score a period with the champion into the predictions table (idempotent)."""
    from mlops_pipeline.cli.runs import execute_job, print_scored

    given = {"period": period, "version": version}
    chosen = {name: value for name, value in given.items() if value is not None}
    find_use_case(use_case)
    execute_job(use_case, "batch_score", {"batch_predictions": chosen} if chosen else {})
    print_scored(use_case, is_trial=version is not None)


@app.command()
def archive(use_case: Name) -> None:
    """Write the log of predictions into the lake; what is old leaves the log (idempotent)."""
    from mlops_pipeline.cli.runs import execute_job

    find_use_case(use_case)
    execute_job(use_case, "archive", {})
    say(f"{use_case}: the log of predictions is in the lake")


@app.command()
def status(
    use_case: Name,
    as_json: Annotated[bool, typer.Option("--json", help="The stable document.")] = False,
) -> None:
    """Show the champion, the last gate, the data and the last run."""
    from mlops_pipeline.cli.runs import print_summary
    from mlops_pipeline.lifecycle.status import use_case_status

    if as_json:
        print_json(use_case_status(find_use_case(use_case), Settings.from_environment()))
    else:
        print_summary(use_case)


@app.command()
def cost(
    use_case: Annotated[str | None, typer.Argument(help="Default: every use case.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what training runs, predictions and accepted versions cost."""
    from mlops_pipeline.core.monitoring.cost import CostSheet, price_text, total_by_owner
    from mlops_pipeline.lifecycle.status import use_case_costs
    from mlops_pipeline.stores.lake.tables import Lake
    from mlops_pipeline.stores.ops import OpsDatabase

    chosen = [find_use_case(use_case)] if use_case else all_use_cases().values()
    settings = Settings.from_environment()
    lake = Lake(settings.lake_uri)
    with OpsDatabase.open(settings.database_url) as ops:
        sheets = [use_case_costs(item, ops, lake) for item in chosen]
    if as_json:
        print_json([sheet.to_dict() for sheet in sheets])
        return
    names = [sheet.use_case for sheet in sheets]
    lines: dict[str, Callable[[CostSheet], str]] = {
        "total": lambda sheet: f"{sheet.total:.4f} {sheet.currency}",
        "training runs": lambda sheet: f"{sheet.training_runs:,}",
        "per training run": lambda sheet: price_text(sheet.per_training_run),
        "predictions": lambda sheet: f"{sheet.predictions:,}",
        "per 1,000 predictions": lambda sheet: price_text(sheet.per_1000_predictions),
        "accepted versions": lambda sheet: f"{sheet.accepted:,}",
        "per accepted version": lambda sheet: price_text(sheet.per_accepted_improvement),
    }
    rows = ((head, *map(line, sheets)) for head, line in lines.items())
    print_table(("", *names), rows, right=names)
    for (owner, currency), total in sorted(total_by_owner(sheets).items()):
        say(f"{owner}: {total:.4f} {currency} in all")


@app.command()
def dev(
    dagster_port: Annotated[int, typer.Option(help="Of the Dagster UI.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="Of the MLflow UI.")] = 5000,
) -> None:
    """Serve the Dagster UI with its daemon and the MLflow UI on loopback."""
    from mlops_pipeline.cli import runs

    raise typer.Exit(runs.serve(dagster_port, mlflow_port))


@config_app.command("check")
def config_check(
    files: Annotated[list[Path] | None, typer.Argument(help="Default: configs/*.yaml")] = None,
) -> None:
    """Check configuration files, by themselves and against the models that are live."""
    from mlops_pipeline.config.checks import notes
    from mlops_pipeline.lifecycle.features.catalogue import check_live_models

    found = map(load_use_case, files) if files else all_use_cases().values()
    for item in list(found):  # all are read before the first is checked
        check_live_models(item, Settings.from_environment())
        say(f"{item.name}: {len(item.features)} features from {len(item.sources)} sources")
        for name, source in item.sources.items():
            say(f"  sources.{name}: {source.uri}, read as {source.format}")
        for note in notes(item):
            say(f"  {note}")


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of a configuration file, for editors."""
    typer.echo(json.dumps(json_schema(), indent=2, sort_keys=True))
