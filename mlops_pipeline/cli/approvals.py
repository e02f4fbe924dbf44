"""`mlops approve | reject | rollback`: what a person says; `mlops registry history`."""

import json
from datetime import datetime
from typing import Annotated

import typer
from rich.markup import escape

from mlops_pipeline.cli.console import console, table
from mlops_pipeline.cli.use_cases import Name, print_pending, project
from mlops_pipeline.errors import ConfigError
from mlops_pipeline.stores.settings import parse_time

registry_app = typer.Typer(help="The model registry over time.", no_args_is_help=True)

TABLES = {
    "history": ("version", "state", "alias", "since", "until", "by", "reason"),
    "approvals": ("version", "stage", "verdict", "at", "expires_at", "by", "reason"),
}
By = Annotated[str, typer.Option("--by", help="Your name (self-asserted, recorded).")]
Reason = Annotated[str, typer.Option("--reason", help="Why; recorded for good.")]
Version = Annotated[int, typer.Argument(help="The model version.")]
StageName = Annotated[str, typer.Option("--stage", help="staging or production.")]


def approve(
    use_case: Name,
    version: Version,
    by: By,
    reason: Reason,
    stage: StageName = "production",
    *,
    expires: Annotated[
        str | None, typer.Option(help="From then on it may not score (ISO date or time, UTC).")
    ] = None,
) -> None:
    """Approve a version that waits: for production it becomes the champion."""
    _decide(use_case, version, (by, reason, stage), is_approval=True, expires=expires)


def reject(
    use_case: Name, version: Version, by: By, reason: Reason, stage: StageName = "production"
) -> None:
    """Reject a version that waits: the champion stays."""
    _decide(use_case, version, (by, reason, stage), is_approval=False, expires=None)


def rollback(use_case: Name, by: By, reason: Reason) -> None:
    """Take the champion out of use: the version before it is champion again."""
    from mlops_pipeline.lifecycle.deployments import roll_back_champion

    with project(use_case) as found:
        rollout = roll_back_champion(
            found.ops, found.settings, found.use_case, by=by, reason=reason, now=found.now
        )
    console.print(
        f"{use_case} version {rollout.version}: champion again; recorded: {escape(by)}: "
        f"{escape(reason)}"
    )


@registry_app.command("history")
def history(
    use_case: Name,
    as_json: Annotated[bool, typer.Option("--json", help="One document instead.")] = False,
) -> None:
    """Show which version held which state and alias, from when to when, by whom and why."""
    from mlops_pipeline.lifecycle.deployments import registry_history

    with project(use_case) as context:
        found = registry_history(context.ops, use_case)
        if not as_json:
            print_pending(context)
    if as_json:
        typer.echo(json.dumps(found, indent=2, default=datetime.isoformat))
        return
    for row in found["history"]:
        row["state"] = row["state"].replace("_", " ")  # a narrow terminal breaks at spaces
    for part, columns in TABLES.items():
        if found[part]:
            console.print(table(columns, ([row[name] for name in columns] for row in found[part])))


def _decide(
    name: str,
    version: int,
    signed: tuple[str, str, str],
    *,
    is_approval: bool,
    expires: str | None,
) -> None:
    from mlops_pipeline.lifecycle.deployments import decide_approval
    from mlops_pipeline.lifecycle.rollouts import PersonsDecision

    by, reason, stage = signed
    if stage not in ("staging", "production"):
        raise ConfigError("--stage is not valid", expected="staging or production", found=stage)
    said = PersonsDecision(
        verdict="approved" if is_approval else "rejected",
        by=by,
        reason=reason,
        stage="staging" if stage == "staging" else "production",
        expires_at=None if expires is None else parse_time(expires),
    )
    with project(name) as found:
        rollout = decide_approval(
            found.ops, found.settings, found.use_case, version, said, now=found.now
        )
    console.print(
        f"{name} version {version}: {rollout.state}; recorded: {said.verdict} for {stage}, "
        f"{escape(by)}: {escape(reason)}"
    )
