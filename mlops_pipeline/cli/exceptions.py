"""`mlops exception`: let a failed gate rule pass for a time, with a reason; list; revoke."""

from typing import Annotated

import typer
from rich.markup import escape

from mlops_pipeline.cli.console import console, table
from mlops_pipeline.cli.use_cases import Name, find_use_case
from mlops_pipeline.stores.settings import Settings, parse_time

exception_app = typer.Typer(
    help="Exceptions from gate rules: with a name, a reason and an end.", no_args_is_help=True
)

By = Annotated[str, typer.Option("--by", help="Your name (self-asserted, recorded).")]
Reason = Annotated[str, typer.Option("--reason", help="Why; recorded for good.")]


@exception_app.command("grant")
def grant(
    use_case: Name,
    *,
    rule: Annotated[str, typer.Option(help="demographic_parity, metric:roc_auc, ...")],
    by: By,
    reason: Reason,
    expires: Annotated[str, typer.Option(help="When it ends (ISO date, UTC).")],
    attribute: Annotated[
        str | None, typer.Option(help="For this protected attribute only.")
    ] = None,
) -> None:
    """Let a blocking rule that fails pass until a date: a person still has to approve."""
    from mlops_pipeline.core.evaluation.exceptions import check_exception
    from mlops_pipeline.lifecycle.exceptions import grant_exception
    from mlops_pipeline.stores.ops import OpsDatabase

    chosen, settings = find_use_case(use_case), Settings.from_environment()
    end, now = parse_time(expires), settings.now()
    check_exception(chosen, rule, attribute, end, now=now)
    with OpsDatabase.open(settings.database_url) as ops:
        given = grant_exception(
            ops, chosen.name, rule, attribute, by=by, reason=reason, expires_at=end, now=now
        )
    console.print(f"{use_case} exception {given.id}, {given.subject}: {escape(given.sentence)}")


@exception_app.command("list")
def list_exceptions(use_case: Name) -> None:
    """List the exceptions of a use case, also those that ended."""
    from mlops_pipeline.lifecycle.exceptions import list_exceptions
    from mlops_pipeline.stores.ops import OpsDatabase

    chosen, settings = find_use_case(use_case), Settings.from_environment()
    with OpsDatabase.open(settings.database_url) as ops:
        found = list_exceptions(ops, chosen.name)
    if not found:
        console.print(f"{chosen.name} has no exception from a gate rule")
        return
    rows = []
    for item in found:
        state = "in force" if item.is_in_force(settings.now()) else "expired"
        if item.revoked_at is not None:
            state = f"revoked by {item.revoked_by}: {item.revocation}"
        days = (item.granted_at.date(), item.expires_at.date())
        rows.append((item.id, item.subject, state, item.by, item.reason, *days))
    heads = ("id", "rule", "state", "by", "reason", "granted", "expires")
    console.print(table(heads, rows))


@exception_app.command("revoke")
def revoke(
    use_case: Name,
    exception_id: Annotated[int, typer.Argument(help="As `mlops exception list` shows it.")],
    by: By,
    reason: Reason,
) -> None:
    """End an exception before its date; the record of it stays."""
    from mlops_pipeline.lifecycle.exceptions import revoke_exception
    from mlops_pipeline.stores.ops import OpsDatabase

    chosen, settings = find_use_case(use_case), Settings.from_environment()
    with OpsDatabase.open(settings.database_url) as ops:
        ended = revoke_exception(
            ops, chosen.name, exception_id, by=by, reason=reason, now=settings.now()
        )
    console.print(f"{use_case} exception {ended.id}, {ended.subject}: revoked by {escape(by)}")
