"""One person in the stores beside the lake: online records and events, rows of MLflow's files.

The log of a prediction service belongs here when there is one.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import SourceError
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.features.online.layout import (
    RecordsCheckpoint,
    checkpoint_text,
    online_layout,
    read_checkpoint,
    stored_tables,
)
from mlops_pipeline.stores.lake.engine import literal, quoted
from mlops_pipeline.stores.models.tracking import Tracking, open_tracking
from mlops_pipeline.stores.online.interface import OnlineStore, OnlineTable
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline.stores.sources.files import open_delivery
from mlops_pipeline.stores.sources.interface import readable

HASHED = "entity_hash"  # the first column of a file that holds rows of entities


def forget_online(use_case: UseCase, store: OnlineStore, entity_id: str) -> int:
    """Remove every record and event of an entity; return how many there were.

    A checkpoint that a killed materialization left at the entity goes back to the beginning.
    """
    names = set(stored_tables(store, use_case.name))
    records = online_layout(use_case).records()
    names |= {records[0].name} if records else set()
    for name in sorted(names):
        if name.startswith("records_"):
            table = OnlineTable(use_case.name, name)
            held = read_checkpoint(store, table, RecordsCheckpoint)
            if held is not None and held.last == entity_id:
                store.set_checkpoint(table, checkpoint_text(replace(held, last=None, rows=0)))
    return store.forget(use_case.name, entity_id)


def rows_in_mlflow(
    settings: Settings, use_case: UseCase, pseudonym: str, *, erase: bool = False
) -> int:
    """Count the rows of MLflow's files that are an entity's; with `erase`, take them out."""
    database = urlparse(settings.mlflow_uri)
    if database.scheme == "sqlite" and not Path("/", database.path.lstrip("/")).is_file():
        return 0  # nothing was ever trained
    tracking, count = open_tracking(settings, use_case.name), 0
    for run, name, text in _entity_files(tracking):
        rows = list(csv.reader(io.StringIO(text)))
        kept = [row for row in rows if row[0] != pseudonym]
        count += len(rows) - len(kept)
        if erase and len(kept) < len(rows):
            out = io.StringIO()
            csv.writer(out, lineterminator="\n").writerows(kept)
            tracking.log_files(run, {name: out.getvalue()})
    return count


def _entity_files(tracking: Tracking) -> Iterator[tuple[str, str, str]]:
    """Yield run, name and text of every file of entities' rows, those of deleted runs too."""
    from mlflow.artifacts import download_artifacts
    from mlflow.entities import ViewType

    token: str | None = ""
    while token is not None:
        runs = tracking.client.search_runs(
            [tracking.experiment_id], run_view_type=ViewType.ALL, page_token=token or None
        )
        for run in runs:
            for item in tracking.client.list_artifacts(run.info.run_id):
                if item.path.endswith(".csv"):
                    uri = f"{run.info.artifact_uri}/{item.path}"
                    text = Path(download_artifacts(artifact_uri=uri)).read_text(encoding="utf-8")
                    if text.startswith(HASHED):
                        yield run.info.run_id, item.path, text
        token = runs.token or None


def rows_delivered(context: Context, entity_id: str) -> dict[str, int | None]:
    """Count an entity's rows in the delivered files, by source; None where they cannot be read."""
    key = context.use_case.entity.key
    found: dict[str, int | None] = {}
    for name, source in context.use_case.sources.items():
        if key not in source.columns:
            continue
        try:
            delivery = open_delivery(context.engine, context.settings, context.use_case, name)
            with readable(source, ", ".join(delivery.files)):
                count = context.engine.query(
                    f"SELECT count(*) FROM ({delivery.select}) "
                    f"WHERE {quoted(key)}::VARCHAR = {literal(entity_id)}"
                )[0][0]
        except SourceError:
            found[name] = None
        else:
            found[name] = int(count)
    return found
