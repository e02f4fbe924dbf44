"""`mlops exception`: let a failed gate rule pass for a time, with a reason; list; revoke."""

from typing import Annotated

import typer
from rich.markup import escape

from mlops_pipeline.cli.console import console, table
from mlops_pipeline.cli.use_cases import Name, print_pending, project
from mlops_pipeline.stores.settings import parse_time

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
    from mlops_pipeline.core.evaluation.records import check_exception
    from mlops_pipeline.lifecycle.exceptions import grant_exception

    end = parse_time(expires)
    with project(use_case) as found:
        check_exception(found.use_case, rule, attribute, end, now=found.now)
        given = grant_exception(
            found.ops, use_case, rule, attribute, by=by, reason=reason, expires_at=end,
            now=found.now,
        )  # fmt: skip
        console.print(f"{use_case} exception {given.id}, {given.subject}: {escape(given.sentence)}")
        print_pending(found)


@exception_app.command("list")
def list_exceptions(use_case: Name) -> None:
    """List the exceptions of a use case, also those that ended."""
    from mlops_pipeline.lifecycle.exceptions import list_exceptions

    with project(use_case) as context:
        found, now = list_exceptions(context.ops, use_case), context.now
    if not found:
        console.print(f"{use_case} has no exception from a gate rule")
        return
    rows = []
    for item in found:
        state = "in force" if item.is_in_force(now) else "expired"
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

    with project(use_case) as found:
        ended = revoke_exception(
            found.ops, use_case, exception_id, by=by, reason=reason, now=found.now
        )
        console.print(f"{use_case} exception {ended.id}, {ended.subject}: revoked by {escape(by)}")
        print_pending(found)
