"""The `mlops` command: every subcommand, its options, and how errors become exit codes.

Belongs here: the command line. What a command does is in lifecycle/; a lifecycle runs as a
`dagster job execute` process (runs.py), because only orchestration/ knows Dagster.
"""

import getpass
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from mlops_pipeline.cli.approvals import approve, registry_app, reject, rollback
from mlops_pipeline.cli.audit import audit_app
from mlops_pipeline.cli.cards import card_app, pack
from mlops_pipeline.cli.console import console, fail, progress_bar
from mlops_pipeline.cli.cost import cost
from mlops_pipeline.cli.exceptions import exception_app
from mlops_pipeline.cli.features import features_app
from mlops_pipeline.cli.forget import forget
from mlops_pipeline.cli.reproduce import reproduce
from mlops_pipeline.cli.use_cases import Name, find_use_case
from mlops_pipeline.config import json_schema, load_use_case, load_use_cases
from mlops_pipeline.errors import MlopsError
from mlops_pipeline.stores.settings import Settings, project_root

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
app.add_typer(simulate_app, name="simulate")
app.add_typer(config_app, name="config")
app.add_typer(features_app, name="features")
app.add_typer(audit_app, name="audit")
app.add_typer(registry_app, name="registry")
app.command()(approve)
app.command()(reject)
app.command()(rollback)
app.command()(cost)
app.command()(reproduce)
app.add_typer(exception_app, name="exception")
app.command("forget")(forget)
app.add_typer(card_app, name="card")
app.command("pack")(pack)


def main() -> None:
    """Run the command line; a known error is one message and exit code 1."""
    try:
        app()
    except MlopsError as error:
        fail(error)
        sys.exit(1)


@simulate_app.command("churn")
def simulate_churn(
    customers: Annotated[int, typer.Option(min=1, help="Accounts ever opened.")] = 20_000,
    months: Annotated[int, typer.Option(min=6, max=120, help="Length of the world.")] = 30,
    seed: Annotated[int, typer.Option(help="Same seed, same world.")] = 7,
) -> None:
    """Simulate the telecom world into data/sources/churn/ (docs/simulation.md)."""
    from mlops_pipeline.demo.simulated import write_churn

    _simulate("churn", write_churn, customers=customers, months=months, seed=seed)


@simulate_app.command("fraud")
def simulate_fraud(
    customers: Annotated[int, typer.Option(min=1, help="Who ever holds a card.")] = 2_000,
    months: Annotated[int, typer.Option(min=6, max=120, help="Length of the world.")] = 18,
    seed: Annotated[int, typer.Option(help="Same seed, same world.")] = 7,
) -> None:
    """Simulate the card world into data/sources/fraud/ (docs/simulation.md)."""
    from mlops_pipeline.demo.simulated import write_fraud

    _simulate("fraud", write_fraud, customers=customers, months=months, seed=seed)


def _simulate(
    name: str, write: Callable[..., dict[str, int]], *, customers: int, months: int, seed: int
) -> None:
    folder = Settings.from_environment().data_dir / "sources" / name
    with progress_bar("simulating customers", customers) as advance:
        rows = write(folder, customers=customers, months=months, seed=seed, progress=advance)
    total = sum(rows.values())
    console.print(f"{customers:,} customers, {months} months: {total:,} rows in {folder}")


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
    for table, rows in result.rows.items():
        console.print(f"{table}: {rows:,} rows in {result.path}")


@app.command()
def run(
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
    multiprocess: Annotated[bool, typer.Option(help="Each asset in a process of its own.")] = False,
    verbose: Annotated[bool, typer.Option(help="Show Dagster's own log.")] = False,
) -> None:
    """Run the lifecycle and say how it ended."""
    from mlops_pipeline.cli.runs import run_lifecycle
    from mlops_pipeline.cli.summary import print_failure, print_summary

    chosen = find_use_case(use_case)
    load_use_cases(project_root() / "configs")  # a mistake in any file stops the code location
    done = run_lifecycle(
        chosen,
        as_of=as_of,
        on_rejection=on_rejection,
        triggered_by=by or getpass.getuser(),
        multiprocess=multiprocess,
        verbose=verbose,
    )
    if done.exit_code != 0:
        print_failure(chosen, Settings.from_environment())
        raise typer.Exit(done.exit_code)
    print_summary(chosen, Settings.from_environment(), wall_seconds=done.seconds)


@app.command()
def score(
    use_case: Name,
    period: Annotated[str | None, typer.Option(help="ISO date; default the newest.")] = None,
    version: Annotated[
        int | None, typer.Option(help="Trial scores of a version in staging: no decisions.")
    ] = None,
) -> None:
    """Score a period with the champion into the predictions table (idempotent)."""
    from mlops_pipeline.cli.runs import run_scoring
    from mlops_pipeline.cli.summary import print_failure, print_scored

    chosen, settings = find_use_case(use_case), Settings.from_environment()
    done = run_scoring(chosen, period=period, version=version)
    if done.exit_code != 0:
        print_failure(chosen, settings)
        raise typer.Exit(done.exit_code)
    print_scored(chosen, settings, is_trial=version is not None)


@app.command()
def status(
    use_case: Name,
    as_json: Annotated[bool, typer.Option("--json", help="The stable document.")] = False,
) -> None:
    """Show the champion, the last gate, the data and the last run."""
    from mlops_pipeline.cli.summary import print_summary
    from mlops_pipeline.lifecycle.status import use_case_status

    chosen, settings = find_use_case(use_case), Settings.from_environment()
    if as_json:
        typer.echo(json.dumps(use_case_status(chosen, settings), indent=2, allow_nan=False))
    else:
        print_summary(chosen, settings)


@app.command()
def dev(
    dagster_port: Annotated[int, typer.Option(help="Of the Dagster UI.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="Of the MLflow UI.")] = 5000,
) -> None:
    """Serve the Dagster UI with its daemon and the MLflow UI on loopback."""
    from mlops_pipeline.cli.runs import serve

    raise typer.Exit(serve(dagster_port, mlflow_port))


@app.command("serve")
def serve_features(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="On loopback.")] = 8000,
) -> None:
    """Serve the online features of all use cases over HTTP on loopback."""
    serving = import_module("mlops_pipeline.serving.http")  # entrances do not import each other
    use_cases = load_use_cases(project_root() / "configs")
    console.print(f"features: http://{serving.HOST}:{port}/features/ENTITY/ID?features=a,b")
    serving.http_server(use_cases, Settings.from_environment(), port).run()


@config_app.command("check")
def config_check(
    files: Annotated[list[Path] | None, typer.Argument(help="Default: configs/*.yaml")] = None,
) -> None:
    """Check configuration files, by themselves and against the models that are live."""
    from mlops_pipeline.lifecycle.features.catalogue import check_live_models

    if files:
        found = [load_use_case(path) for path in files]
    else:
        found = list(load_use_cases(project_root() / "configs").values())
    settings = Settings.from_environment()
    for item in found:
        check_live_models(item, settings)
        console.print(
            f"{item.name}: {len(item.features)} features from {len(item.sources)} sources"
        )


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of a configuration file, for editors."""
    typer.echo(json.dumps(json_schema(), indent=2, sort_keys=True))
