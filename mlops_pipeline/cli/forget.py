"""`mlops forget`: removes one person from every store, after showing what there is.

Belongs here: options, the question, what is printed. Finding and removing is
lifecycle/compliance/erasure.py.
"""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from mlops_pipeline.cli.console import console
from mlops_pipeline.config import UseCase, load_use_cases
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.stores.settings import Settings, project_root

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.compliance.erasure import Erased, Found


def forget(
    entity: Annotated[str, typer.Argument(help="The entity's name in the configuration.")],
    entity_id: Annotated[str, typer.Argument(help="Its key.")],
    *,
    by: Annotated[str, typer.Option("--by", help="Your name (self-asserted, recorded).")],
    reason: Annotated[str, typer.Option("--reason", help="Why; recorded for good: no names.")],
    use_case: Annotated[str | None, typer.Option(help="Only this use case.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what there is.")] = False,
) -> None:
    """Remove a person from lake, online store and MLflow, and keep them out."""
    from mlops_pipeline.core.rollout.approvals import signed
    from mlops_pipeline.lifecycle.compliance.erasure import find, forget, person_of
    from mlops_pipeline.lifecycle.compliance.tombstones import EVERY
    from mlops_pipeline.stores.ops import OpsDatabase

    settings = Settings.from_environment()
    said = signed(by, reason, settings.now())
    person = person_of(settings, _having(entity, use_case), entity_id, use_case or EVERY)
    for found in find(person, settings):
        _print_found(found)
    if dry_run:
        console.print("nothing was changed")
        return
    if not yes:
        typer.confirm("Remove all of this? It cannot be undone", abort=True)
    with OpsDatabase.open(settings.database_url) as ops:
        for erased in forget(person, settings, ops, by=said.by, reason=said.reason):
            _print_erased(erased)
    console.print(
        f"{entity} {person.pseudonym} is forgotten; recorded: {escape(said.by)}: "
        f"{escape(said.reason)}"
    )


def _having(entity: str, name: str | None) -> list[UseCase]:
    """Return the use cases that have an entity of this name: all, or the one that is named."""
    every = load_use_cases(project_root() / "configs")
    having = {key: item for key, item in every.items() if item.entity.name == entity}
    known = sorted(having) or sorted({item.entity.name for item in every.values()})
    if having and name is None:
        return list(having.values())
    if having and name in having:
        return [having[name]]
    kind, asked = ("use case with this entity", str(name)) if having else ("entity", entity)
    raise NotFoundError.of(kind, asked, known, where="configs/")


def _print_found(found: "Found") -> None:
    console.print(f"[bold]{found.use_case}")
    for table, count in found.rows.items():
        console.print(f"  {table}: {count:,} rows")
    if found.in_mlflow:
        console.print(f"  MLflow: {found.in_mlflow:,} rows of run files")
    if not found.rows and not found.in_mlflow:
        console.print("  nothing in the lake and in MLflow")
    for table in found.unsearched:
        console.print(f"  {table}: not searched, it has no key of the entity")
    for source, rows in found.delivered.items():
        if rows is None:
            console.print(f"  delivered files of {source}: [yellow]cannot be read[/]")
        elif rows:
            console.print(f"  delivered files of {source}: {rows:,} rows, which stay")
    for version, data in found.model_versions.items():
        console.print(f"  model version {version} was made from {', '.join(data)}")


def _print_erased(erased: "Erased") -> None:
    found = erased.found
    console.print(
        f"{found.use_case}: removed {sum(found.rows.values()):,} rows of {len(found.rows)} tables, "
        f"{erased.online:,} online records and events, {found.in_mlflow:,} rows in MLflow"
    )
    if erased.model_versions:
        versions = ", ".join(map(str, erased.model_versions))
        console.print(
            f"  model versions {versions} were made from data that held the person: they stay as "
            "they are, and their data can no longer be reproduced; the next lifecycle's model "
            "will be without"
        )
    still = [source for source, count in found.delivered.items() if count or count is None]
    if still:
        console.print(
            f"  the delivered files of {', '.join(still)} may still hold the person: they are the "
            "deliverer's to mend; ingestion leaves these rows out"
        )
