"""`mlops cost`: what use cases cost, by use case and by owner."""

import json
from typing import Annotated

import typer
from rich.markup import escape

from mlops_pipeline.cli.console import console, table
from mlops_pipeline.cli.use_cases import find_use_case
from mlops_pipeline.config import load_use_cases
from mlops_pipeline.core.monitoring.cost import CostSheet, price_text, total_by_owner
from mlops_pipeline.stores.settings import Settings, project_root


def cost(
    use_case: Annotated[str | None, typer.Argument(help="Default: every use case.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One document instead.")] = False,
) -> None:
    """Show what training runs, predictions and accepted versions cost."""
    from mlops_pipeline.lifecycle.status import use_case_costs
    from mlops_pipeline.stores.lake.tables import Lake
    from mlops_pipeline.stores.ops import OpsDatabase

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
    names = [sheet.use_case for sheet in sheets]
    console.print(table(("", *names), _rows(sheets), right=names))
    for (owner, currency), total in sorted(total_by_owner(sheets).items()):
        console.print(f"{escape(owner)}: {total:.4f} {escape(currency)} in all")


def _rows(sheets: list[CostSheet]) -> list[tuple[str, ...]]:
    return [
        ("total", *(f"{sheet.total:.4f} {sheet.currency}" for sheet in sheets)),
        ("training runs", *(f"{sheet.training_runs:,}" for sheet in sheets)),
        ("per training run", *(price_text(sheet.per_training_run) for sheet in sheets)),
        ("predictions", *(f"{sheet.predictions:,}" for sheet in sheets)),
        ("per 1,000 predictions", *(price_text(sheet.per_1000_predictions) for sheet in sheets)),
        ("accepted versions", *(f"{sheet.accepted:,}" for sheet in sheets)),
        ("per accepted version", *(price_text(sheet.per_accepted_improvement) for sheet in sheets)),
    ]
