"""The log of predictions in the lake: every answer once, and the log kept small.

Answers are written in the order of their ids, thousands in one commit, and marked in the log when
the commit is there. What a killed run had written and not marked is found in the table by its id
and marked. Only marked answers leave the log.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import ConfigError
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.features.online.layout import from_us, to_us
from mlops_pipeline.stores.lake.engine import literal
from mlops_pipeline.stores.lake.tables import ARCHIVE, Lake
from mlops_pipeline.stores.log_archive import mark_archived, not_archived, remove_archived
from mlops_pipeline.stores.predictions import LoggedPrediction, PredictionLog

ROWS_AT_ONCE = 20_000  # of one commit, in memory
ID = "prediction_id"
COLUMNS = {  # of the table, by field: the same, but for these
    "id": ID, "at_us": "predicted_at", "feature_time_us": "feature_time",
}  # fmt: skip
TIMES = ("at_us", "feature_time_us")


@dataclass(frozen=True)
class Archived:
    """What a run moved: `rows` into the lake, `removed` out of the log; the lake holds `total`."""

    uri: str
    rows: int
    removed: int
    total: int


def archive_predictions(context: Context, check: Callable[[], None]) -> Archived:
    """Write what the log has and the lake has not, and remove from the log what is old.

    `check` is called before each write: it fails when the lease was lost.
    """
    use_case, uri, count = context.use_case, archive_uri(context.lake, context.use_case), 0
    with PredictionLog(context.settings.predictions_url) as log:
        while rows := not_archived(log, use_case.name, ROWS_AT_ONCE):
            check()
            ids = [row.id for row in rows]
            there = _stored(context, uri, ids)
            new = [row for row in rows if row.id not in there]
            if new:
                facts = {"rows": len(new), "through": from_us(new[-1].at_us).isoformat()}
                context.lake.write(uri, _table(use_case, new), facts, "append")
            mark_archived(log, ids)
            count += len(new)
        end = context.now - timedelta(days=use_case.serving.log_days)
        removed = remove_archived(log, use_case.name, to_us(end))
    return Archived(uri, count, removed, _total(context, uri))


def archive_uri(lake: Lake, use_case: UseCase) -> str:
    """Return the address of the table."""
    return lake.table_uri(use_case.name, ARCHIVE)


def find_archived(lake: Lake, use_case: UseCase, prediction_id: str) -> LoggedPrediction | None:
    """Return an answer that left the log; None if the lake has none with this id."""
    found = lake.find_row(archive_uri(lake, use_case), ID, prediction_id)
    return None if found is None else _restored(use_case, found)


def _total(context: Context, uri: str) -> int:
    state = context.lake.state(uri)
    if state is None:
        return 0
    return int(context.engine.query(f"SELECT count(*) FROM {context.engine.scan(state)}")[0][0])


def _stored(context: Context, uri: str, ids: Sequence[str]) -> set[str]:
    """Return which of the ids, which are in order, the table has."""
    state = context.lake.state(uri)
    if state is None:
        return set()
    rows = context.engine.query(
        f"SELECT {ID} FROM {context.engine.scan(state)} "
        f"WHERE {ID} BETWEEN {literal(ids[0])} AND {literal(ids[-1])}"
    )
    return {row[0] for row in rows}


def _table(use_case: UseCase, rows: Sequence[LoggedPrediction]) -> Any:
    import pyarrow as pa

    kinds = {
        ID: pa.string(),
        use_case.entity.key: pa.string(),  # by this name, the person's rows are found
        "predicted_at": pa.timestamp("us"),
        "caller": pa.string(),
        "request_id": pa.string(),
        "place": pa.int64(),
        "request_digest": pa.string(),
        "model_version": pa.int64(),
        "role": pa.string(),
        "probability": pa.float64(),
        "decision": pa.bool_(),
        "threshold": pa.float64(),
        "needs_review": pa.bool_(),
        "reasons": pa.list_(pa.string()),
        "features": pa.string(),
        "feature_time": pa.timestamp("us"),
    }
    if len(kinds) != len(vars(rows[0])) - 1:
        raise ConfigError(
            "the entity's key has the name of a column of the archive",
            where=f"{use_case.name}: entity.key",
            found=use_case.entity.key,
            way_out="call the column otherwise in the source",
        )
    documents = [_document(use_case, row) for row in rows]
    return pa.table({
        name: pa.array([document[name] for document in documents], kind)
        for name, kind in kinds.items()
    })  # fmt: skip


def _document(use_case: UseCase, row: LoggedPrediction) -> dict[str, Any]:
    given = {COLUMNS.get(name, name): value for name, value in vars(row).items()}
    for name in ("predicted_at", "feature_time"):
        time_us = given[name]
        given[name] = None if time_us is None else from_us(time_us).replace(tzinfo=None)
    given["features"] = json.dumps(dict(row.features))
    given[use_case.entity.key] = row.entity
    return given


def _restored(use_case: UseCase, found: Mapping[str, Any]) -> LoggedPrediction:
    given: dict[str, Any] = {
        name: found[COLUMNS.get(name, name)]
        for name in LoggedPrediction.__dataclass_fields__
        if name not in ("use_case", "entity")
    }
    for name in TIMES:
        time = given[name]
        given[name] = None if time is None else to_us(time.replace(tzinfo=UTC))
    given["features"] = json.loads(given["features"])
    return LoggedPrediction(use_case=use_case.name, entity=found[use_case.entity.key], **given)
