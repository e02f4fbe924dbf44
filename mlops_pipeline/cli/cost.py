"""`mlops cost`: what use cases cost, by use case and by owner."""

import json
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from mlops_pipeline.cli.console import console
from mlops_pipeline.cli.use_cases import find_use_case
from mlops_pipeline.config import load_use_cases
from mlops_pipeline.governance.cost import CostSheet, total_by_owner
from mlops_pipeline.stores.settings import Settings, project_root
from mlops_pipeline.training.metrics import Estimate


def cost(
    use_case: Annotated[str | None, typer.Argument(help="Default: every use case.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One document instead.")] = False,
) -> None:
    """Show what training runs, predictions and accepted versions cost."""
    from mlops_pipeline.stores.costs import use_case_costs
    from mlops_pipeline.stores.lake import Lake
    from mlops_pipeline.stores.opsdb import OpsDatabase

    chosen = (
        [find_use_case(use_case)]
        if use_case
        else list(load_use_cases(project_root() / "configs").values())
    )
    settings = Settings.from_environment()
    lake = Lake(settings.lake_uri)
    with OpsDatabase.open(settings.database_url) as ops:
        sheets = [use_case_costs(item, ops, lake) for item in chosen]
    if as_json:
        typer.echo(json.dumps([sheet.to_dict() for sheet in sheets], indent=2, allow_nan=False))
        return
    console.print(_table(sheets))
    for (owner, currency), total in sorted(total_by_owner(sheets).items()):
        console.print(f"{escape(owner)}: {total:.4f} {escape(currency)} in all")


def _table(sheets: list[CostSheet]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("use case")
    for head in ("currency", "total", "training runs", "per run", "predictions",
                 "per 1,000 predictions", "accepted versions", "per accepted version"):  # fmt: skip
        table.add_column(head, justify="right", overflow="fold")
    for sheet in sheets:
        cells = (
            sheet.use_case,
            sheet.currency,
            f"{sheet.total:.4f}",
            f"{sheet.training_runs:,}",
            _price(sheet.per_training_run),
            f"{sheet.predictions:,}",
            _price(sheet.per_1000_predictions),
            f"{sheet.accepted:,}",
            _price(sheet.per_accepted_improvement),
        )
        table.add_row(*map(escape, cells))
    return table


def _price(estimate: Estimate) -> str:
    return estimate.reason or "" if estimate.value is None else f"{estimate.value:.4f}"
