"""`mlops features`: what features there are, their values in the past and now, and exports.

Belongs here: options and what is printed. What they do is in lifecycle/features/; which use
case an entity means is lifecycle/features/online/reader.py's.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from mlops_pipeline.cli import console
from mlops_pipeline.errors import DataError, NotFoundError
from mlops_pipeline.stores.settings import Settings, parse_time

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.features.catalogue import FeatureEntry

STATUS_COLOURS = {"fresh": "green", "stale": "yellow", "missing": "red"}

features_app = typer.Typer(
    help="The feature store: what there is, past values, values now.", no_args_is_help=True
)


@features_app.command("list")
def list_features(
    use_case: console.Name,
    unused_days: Annotated[int, typer.Option(min=1, help="Unused for longer: a candidate.")] = 90,
    as_json: console.AsJson = False,
) -> None:
    """List the features of a use case, who uses them, and which nobody does."""
    from mlops_pipeline.core.documents.records import plain
    from mlops_pipeline.lifecycle.features.catalogue import catalog, unused_features

    chosen, settings = console.find_use_case(use_case), Settings.from_environment()
    entries = catalog(chosen, settings)
    unused = [entry.name for entry in unused_features(entries, settings.now(), unused_days)]
    if as_json:
        listed = {"use_case": chosen.name, "features": plain(entries)}
        console.print_json({**listed, "unused_days": unused_days, "unused": unused})
        return
    heads = ("feature", "type", "view", "refresh", "fresh for", "owner", "models", "last used",
             "description")  # fmt: skip
    console.print_table(heads, map(_row, entries))
    if unused:
        console.say(f"unused for {unused_days} days, candidates for `deprecated: true`:")
        for name in unused:
            console.say(f"  {name}")
    else:
        console.say(f"no feature is unused for {unused_days} days")


@features_app.command("history")
def history(
    use_case: console.Name,
    rows: Annotated[Path, typer.Option(help="Entity key and as_of (UTC): Parquet or CSV.")],
    features: Annotated[str, typer.Option(help="Comma-separated names.")],
    out: Annotated[
        Path | None, typer.Option(help="The Parquet file to write; default: beside the rows.")
    ] = None,
) -> None:
    """Write the features of entities as they were known at given times."""
    from mlops_pipeline.lifecycle.features.history import write_historical_features
    from mlops_pipeline.lifecycle.features.online.plan import feature_list

    chosen = console.find_use_case(use_case)
    target = out or rows.with_name(f"{rows.stem}.features.parquet")
    names = feature_list([features])
    written = write_historical_features(chosen, rows, names, target)
    console.say(f"{written:,} rows with {len(names)} features: {target}")


@features_app.command("get")
def get(
    entity: Annotated[str, typer.Argument(help="The entity's name, for example customer.")],
    entity_id: Annotated[str, typer.Argument(help="Its key.")],
    features: Annotated[
        str, typer.Argument(help="Comma-separated names; default: all that can be answered.")
    ] = "",
    *,
    use_case: Annotated[
        str | None, typer.Option(help="Which one, where several have this entity.")
    ] = None,
    request: Annotated[
        list[str] | None,
        typer.Option(help="COLUMN=VALUE that request-time features read; repeat it."),
    ] = None,
    at: Annotated[str | None, typer.Option(help="Read as of this time (ISO, UTC).")] = None,
    as_json: console.AsJson = False,
) -> None:
    """Read features from the online store: value, status, feature time."""
    from mlops_pipeline.lifecycle.features.online import reader
    from mlops_pipeline.lifecycle.features.online.plan import feature_list

    names = feature_list([features])
    chosen = reader.choose_use_case(console.all_use_cases(), entity, names, use_case)
    as_of = None if at is None else parse_time(at)
    with reader.open_reader(chosen, Settings.from_environment()) as opened:
        found = reader.read_entity(
            opened, chosen, entity_id, names, request=_columns(request or []), at=as_of
        )
    if not found.is_known:
        raise NotFoundError(
            f"the online store knows no {entity} of this id",
            where=chosen.name,
            expected="an entity with materialized values or recent events",
            found=entity_id,
            way_out=f"mlops features materialize {chosen.name}, or look at the id",
        )
    if as_json:
        console.print_json(reader.document(chosen, entity_id, found))
        return
    console.say(f"{chosen.entity.name} {entity_id} of {chosen.name}, "
                  f"read at {found.read_at.isoformat()}")  # fmt: skip
    rows = ((name, item.value, Text(item.status, STATUS_COLOURS[item.status]),
             item.feature_time and item.feature_time.isoformat())
            for name, item in found.values.items())  # fmt: skip
    console.print_table(("feature", "value", "status", "feature time (UTC)"), rows)


@features_app.command("materialize")
def materialize_features(use_case: console.Name) -> None:
    """Bring the online store up to the newest accepted features; again changes nothing."""
    from mlops_pipeline.lifecycle.features.online import materialize

    with console.project(use_case) as context, materialize.open_writer(context.settings) as store:
        done = materialize.materialize_accepted(context, context.ops, store, now=context.now)
        chosen = context.use_case
    if not done.is_new:
        console.say(f"{chosen.name}: nothing new")
    else:
        console.say(f"{chosen.name}: {done.rows:,} entities and {done.events:,} events written")
    if done.feature_time is not None:
        console.say(f"values of {done.feature_time.isoformat()}")
    for view in done.stale_views:
        console.say(
            f" {view} is older than its freshness_days by now", lead="stale:", colour="yellow"
        )


@features_app.command("export-feast")
def export_feast_repository(
    use_case: console.Name,
    folder: Annotated[Path, typer.Argument(help="New, empty, or an earlier export.")],
) -> None:
    """Write the offline features as a Feast feature repository."""
    from mlops_pipeline.lifecycle.features.feast import export_feast

    with console.project(use_case) as context:
        done = export_feast(context, folder)
    said = "exported" if done.is_new else "unchanged"
    for view, count in done.rows.items():
        console.say(f"{said}: {view}, {count:,} rows")
    console.say(f"folder: {done.folder}")
    console.say(f"oldest {done.oldest.isoformat()}, newest {done.newest.isoformat()}")


def _row(entry: "FeatureEntry") -> tuple[object, ...]:
    fresh = "" if entry.freshness_days is None else f"{entry.freshness_days:g} d"
    models = ", ".join(entry.live_models) or (
        f"{len(entry.other_models)} earlier" if entry.other_models else ""
    )
    used = entry.last_used_at and entry.last_used_at.date()
    about = ("(deprecated) " if entry.deprecated else "") + entry.description
    return (entry.name, entry.type, entry.view or "derived", entry.refresh, fresh, entry.owner,
            models, used, about)  # fmt: skip


def _columns(given: list[str]) -> dict[str, str]:
    from mlops_pipeline.lifecycle.features.online.plan import request_texts

    for text in given:
        if "=" not in text:
            raise DataError(
                "not a column and its value",
                where="--request",
                expected="COLUMN=VALUE, for example amount=12.50",
                found=text,
                way_out="write it so",
            )
    parts = [text.partition("=") for text in given]
    return request_texts((name, value) for name, _, value in parts)
