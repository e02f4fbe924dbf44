"""`mlops card` and `mlops pack`: a version's model card, its reviews, its technical documentation.

Belongs here: options and what is printed. What they say is lifecycle/compliance's.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from mlops_pipeline.cli.console import console
from mlops_pipeline.cli.use_cases import Name, find_use_case
from mlops_pipeline.stores.settings import Settings

Version = Annotated[int | None, typer.Argument(help="Default: the champion.")]


class ShowByDefault(TyperGroup):
    """`mlops card churn` is `mlops card show churn`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Put `show` before what is no command of the group."""
        words = args if args[0] in self.commands else ["show", *args]
        return super().resolve_command(ctx, words)


card_app = typer.Typer(
    cls=ShowByDefault, help="The model card of a version, and its reviews.", no_args_is_help=True
)


@card_app.command("show")
def show_card(
    use_case: Name,
    version: Version = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the card as an HTML file instead.")
    ] = None,
) -> None:
    """Print the card as it stands now, in Markdown (`show` may be left out)."""
    from mlops_pipeline.core.documents.model_card import model_card
    from mlops_pipeline.core.documents.pages import render_html
    from mlops_pipeline.lifecycle.compliance.cards import present_version
    from mlops_pipeline.stores.ops import OpsDatabase

    chosen, settings = find_use_case(use_case), Settings.from_environment()
    with OpsDatabase.open(settings.database_url) as ops:
        found = present_version(ops, settings, chosen, version, now=settings.now())
    text = model_card(found.facts)
    if html is None:
        typer.echo(text, nl=False)
        return
    html.parent.mkdir(parents=True, exist_ok=True)
    html.write_text(render_html(text), encoding="utf-8")
    console.print(f"{use_case} version {found.facts.metadata.version}: {escape(str(html))}")


@card_app.command("review")
def review_card(
    use_case: Name,
    by: Annotated[str, typer.Option("--by", help="Your name (self-asserted, recorded).")],
    reason: Annotated[str, typer.Option("--reason", help="What came of it; recorded.")],
) -> None:
    """Record that you reviewed the champion's card; its reminder is resolved."""
    from mlops_pipeline.lifecycle.compliance.cards import record_review
    from mlops_pipeline.stores.ops import OpsDatabase

    chosen, settings = find_use_case(use_case), Settings.from_environment()
    with OpsDatabase.open(settings.database_url) as ops:
        version = record_review(ops, chosen, by=by, reason=reason, now=settings.now())
    console.print(f"{use_case} version {version}: card reviewed; recorded: {escape(by)}")


def pack(
    use_case: Name,
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write: new, empty, or an earlier pack.")
    ],
    version: Version = None,
) -> None:
    """Write the technical documentation of a version: a folder, zipped, with hashes."""
    from mlops_pipeline.lifecycle.compliance.pack import write_pack
    from mlops_pipeline.stores.ops import OpsDatabase

    chosen, settings = find_use_case(use_case), Settings.from_environment()
    with OpsDatabase.open(settings.database_url) as ops:
        done = write_pack(ops, settings, chosen, version, out, now=settings.now())
    console.print(f"{use_case} version {done.version}: {done.files} files in {escape(str(out))}")
    console.print(f"zip: {escape(str(done.archive))}")
    for status, count in done.points.items():
        console.print(f"{status}: {count} points of Annex IV")
