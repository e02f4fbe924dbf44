"""What a person decides: approve, reject, roll back, let a gate rule pass for a time, forget."""

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from mlops_pipeline.cli import console
from mlops_pipeline.config import UseCase
from mlops_pipeline.core.rollout.records import Stage
from mlops_pipeline.errors import ConfigError, NotFoundError
from mlops_pipeline.stores.settings import Settings, parse_time

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.compliance.erasure import Erased, Found

registry_app = typer.Typer(help="The model registry over time.", no_args_is_help=True)
exception_app = typer.Typer(
    help="Exceptions from gate rules: with a name, a reason and an end.", no_args_is_help=True
)

HISTORY = {
    "history": ("version", "state", "alias", "since", "until", "by", "reason"),
    "approvals": ("version", "stage", "verdict", "at", "expires_at", "by", "reason"),
}
Version = Annotated[int, typer.Argument(help="The model version.")]
StageName = Annotated[str, typer.Option("--stage", help="staging or production.")]


def approve(
    use_case: console.Name,
    version: Version,
    by: console.By,
    reason: console.Reason,
    stage: StageName = "production",
    *,
    expires: Annotated[
        str | None, typer.Option(help="From then on it may not score (ISO date or time, UTC).")
    ] = None,
) -> None:
    """Approve a version that waits: for production it becomes the champion."""
    end = None if expires is None else parse_time(expires)
    _decide(use_case, version, stage, verdict="approved", by=by, reason=reason, expires_at=end)


def reject(
    use_case: console.Name,
    version: Version,
    by: console.By,
    reason: console.Reason,
    stage: StageName = "production",
) -> None:
    """Reject a version that waits: the champion stays."""
    _decide(use_case, version, stage, verdict="rejected", by=by, reason=reason)


def _decide(name: str, version: int, stage: str, **given: Any) -> None:
    from mlops_pipeline.lifecycle.deployments import decide_approval
    from mlops_pipeline.lifecycle.rollouts import PersonsDecision

    if stage not in get_args(Stage):
        raise ConfigError("--stage is not valid", expected="staging or production", found=stage)
    made = PersonsDecision(**{**given, "stage": stage})
    with console.project(name) as found:
        rollout = decide_approval(
            found.ops, found.settings, found.use_case, version, made, now=found.now
        )
    console.say(
        f"{name} version {version}: {rollout.state}; recorded: {made.verdict} for {stage}, "
        f"{made.by}: {made.reason}"
    )


def rollback(use_case: console.Name, by: console.By, reason: console.Reason) -> None:
    """Take the champion out of use: the version before it is champion again."""
    from mlops_pipeline.lifecycle.deployments import roll_back_champion

    with console.project(use_case) as found:
        rollout = roll_back_champion(
            found.ops, found.settings, found.use_case, by=by, reason=reason, now=found.now
        )
    console.say(f"{use_case} version {rollout.version}: champion again; recorded: {by}: {reason}")


@registry_app.command("history")
def history(use_case: console.Name, as_json: console.AsJson = False) -> None:
    """Show which version held which state and alias, from when to when, by whom and why."""
    from mlops_pipeline.lifecycle.deployments import registry_history

    with console.project(use_case) as context:
        found = registry_history(context.ops, use_case)
        if not as_json:
            console.print_pending(context)
    if as_json:
        console.print_json(found)
        return
    for row in found["history"]:
        row["state"] = row["state"].replace("_", " ")  # a narrow terminal breaks at spaces
    for part, columns in HISTORY.items():
        if found[part]:
            console.print_table(columns, ([row[name] for name in columns] for row in found[part]))


@exception_app.command("grant")
def grant(
    use_case: console.Name,
    *,
    rule: Annotated[str, typer.Option(help="demographic_parity, metric:roc_auc, ...")],
    by: console.By,
    reason: console.Reason,
    expires: Annotated[str, typer.Option(help="When it ends (ISO date, UTC).")],
    attribute: Annotated[
        str | None, typer.Option(help="For this protected attribute only.")
    ] = None,
) -> None:
    """Let a blocking rule that fails pass until a date: a person still has to approve."""
    from mlops_pipeline.core.evaluation.records import check_exception
    from mlops_pipeline.lifecycle.exceptions import grant_exception

    end = parse_time(expires)
    with console.project(use_case) as found:
        check_exception(found.use_case, rule, attribute, end, now=found.now)
        given = grant_exception(
            found.ops, use_case, rule, attribute, by=by, reason=reason, expires_at=end,
            now=found.now,
        )  # fmt: skip
        console.say(f"{use_case} exception {given.id}, {given.subject}: {given.sentence}")
        console.print_pending(found)


@exception_app.command("list")
def list_exceptions(use_case: console.Name) -> None:
    """List the exceptions of a use case, also those that ended."""
    from mlops_pipeline.lifecycle.exceptions import list_exceptions

    with console.project(use_case) as context:
        found, now = list_exceptions(context.ops, use_case), context.now
    if not found:
        console.say(f"{use_case} has no exception from a gate rule")
        return
    rows = []
    for item in found:
        state = "in force" if item.is_in_force(now) else "expired"
        if item.revoked_at is not None:
            state = f"revoked by {item.revoked_by}: {item.revocation}"
        days = (item.granted_at.date(), item.expires_at.date())
        rows.append((item.id, item.subject, state, item.by, item.reason, *days))
    console.print_table(("id", "rule", "state", "by", "reason", "granted", "expires"), rows)


@exception_app.command("revoke")
def revoke(
    use_case: console.Name,
    exception_id: Annotated[int, typer.Argument(help="As `mlops exception list` shows it.")],
    by: console.By,
    reason: console.Reason,
) -> None:
    """End an exception before its date; the record of it stays."""
    from mlops_pipeline.lifecycle.exceptions import revoke_exception

    with console.project(use_case) as found:
        ended = revoke_exception(
            found.ops, use_case, exception_id, by=by, reason=reason, now=found.now
        )
        console.say(f"{use_case} exception {ended.id}, {ended.subject}: revoked by {by}")
        console.print_pending(found)


def forget(
    entity: Annotated[str, typer.Argument(help="The entity's name in the configuration.")],
    entity_id: Annotated[str, typer.Argument(help="Its key.")],
    *,
    by: console.By,
    reason: Annotated[str, typer.Option("--reason", help="Why; recorded for good: no names.")],
    use_case: Annotated[str | None, typer.Option(help="Only this use case.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what there is.")] = False,
) -> None:
    """Remove a person from lake, online store and MLflow, and keep them out."""
    from mlops_pipeline.core.rollout.approvals import signed
    from mlops_pipeline.lifecycle.compliance.erasure import find, forget, person_of
    from mlops_pipeline.lifecycle.ingest.ingestion import EVERY

    settings = Settings.from_environment()
    said = signed(by, reason, settings.now())
    person = person_of(settings, _having(entity, use_case), entity_id, use_case or EVERY)
    for found in find(person, settings):
        _print_found(found)
    if dry_run:
        console.say("nothing was changed")
        return
    if not yes:
        typer.confirm("Remove all of this? It cannot be undone", abort=True)
    with console.open_ops() as ops:
        for erased in forget(person, settings, ops, by=said.by, reason=said.reason):
            _print_erased(erased)
    console.say(f"{entity} {person.pseudonym} is forgotten; recorded: {said.by}: {said.reason}")


def _having(entity: str, name: str | None) -> list[UseCase]:
    """Return the use cases that have an entity of this name: all, or the one that is named."""
    every = console.all_use_cases()
    having = {key: item for key, item in every.items() if item.entity.name == entity}
    known = sorted(having) or sorted({item.entity.name for item in every.values()})
    if having and name is None:
        return list(having.values())
    if having and name in having:
        return [having[name]]
    kind, asked = ("use case with this entity", str(name)) if having else ("entity", entity)
    raise NotFoundError.of(kind, asked, known, where="configs/")


def _print_found(found: "Found") -> None:
    console.say("", lead=found.use_case, colour="bold")
    for place, count in found.rows.items():
        console.say(f"  {place}: {count:,} rows")
    if found.in_mlflow:
        console.say(f"  MLflow: {found.in_mlflow:,} rows of run files")
    if found.logged:
        console.say(f"  log of predictions: {found.logged:,} answers")
    if not found.rows and not found.in_mlflow and not found.logged:
        console.say("  nothing in the lake and in MLflow")
    for place in found.unsearched:
        console.say(f"  {place}: not searched, it has no key of the entity")
    for source, rows in found.delivered.items():
        if rows is None:
            console.say("", lead=f"  delivered files of {source}: cannot be read", colour="yellow")
        elif rows:
            console.say(f"  delivered files of {source}: {rows:,} rows, which stay")
    for version, data in found.model_versions.items():
        console.say(f"  model version {version} was made from {', '.join(data)}")


def _print_erased(erased: "Erased") -> None:
    found = erased.found
    console.say(
        f"{found.use_case}: removed {sum(found.rows.values()):,} rows of {len(found.rows)} tables, "
        f"{erased.online:,} online records and events, {found.in_mlflow:,} rows in MLflow, "
        f"{found.logged:,} logged predictions"
    )
    if erased.model_versions:
        versions = ", ".join(map(str, erased.model_versions))
        console.say(
            f"  model versions {versions} were made from data that held the person: they stay as "
            "they are, and their data can no longer be reproduced; the next lifecycle's model "
            "will be without"
        )
    still = [source for source, count in found.delivered.items() if count or count is None]
    if still:
        console.say(
            f"  the delivered files of {', '.join(still)} may still hold the person: they are the "
            "deliverer's to mend; ingestion leaves these rows out"
        )
