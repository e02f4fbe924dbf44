"""The log of predictions in the lake: every row once, and the log kept small.

Answers and shadow scores are written in the order of their ids, thousands in one commit, and marked
in the log when the commit is there. What a killed run had written and not marked is found in the
table by its id and marked. Only marked rows leave the log.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from datetime import UTC, timedelta
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import ConfigError
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.features.online.layout import from_us, to_us
from mlops_pipeline.lifecycle.rollouts import find_judged, find_trial
from mlops_pipeline.stores.lake.engine import literal
from mlops_pipeline.stores.lake.tables import ARCHIVE, SHADOW_ARCHIVE, Lake
from mlops_pipeline.stores.log_archive import ANSWERS, SHADOWS, Kept, Row, remove_archived
from mlops_pipeline.stores.predictions import LoggedPrediction, PredictionLog, Role, ShadowScore

ROWS_AT_ONCE = 20_000  # of one commit, in memory
ID = "prediction_id"
COLUMNS = {  # of the tables, by field: the same, but for these and the entity's key
    "id": ID, "at_us": "predicted_at", "feature_time_us": "feature_time",
}  # fmt: skip
TIMES = ("at_us", "feature_time_us")


@dataclass(frozen=True)
class Archived:
    """What a run moved: `rows` and `shadows` into the lake, `removed` answers out of the log.

    The lake holds `total` answers.
    """

    uri: str
    rows: int
    shadows: int
    removed: int
    total: int


def archive_predictions(context: Context, check: Callable[[], None]) -> Archived:
    """Write what the log has and the lake has not, and remove from the log what is old.

    What a trial is judged by stays in the log until that is over. `check` is called before each
    write: it fails when the lease was lost.
    """
    use_case, uri = context.use_case, _uri(context.lake, context.use_case, ARCHIVE)
    with PredictionLog(context.settings.predictions_url) as log:
        shadows = _move(context, log, SHADOWS, SHADOW_ARCHIVE, check)
        rows = _move(context, log, ANSWERS, ARCHIVE, check)
        end = context.now - timedelta(days=use_case.serving.log_days)
        trial = find_trial(context.ops, use_case.name) or find_judged(context.ops, use_case.name)
        end = end if trial is None else min(end, trial.rollout.opened_at)
        removed = remove_archived(log, use_case.name, to_us(end))
    return Archived(uri, rows, shadows, removed, _total(context, uri))


def find_archived(lake: Lake, use_case: UseCase, prediction_id: str) -> LoggedPrediction | None:
    """Return an answer that left the log; None if the lake has none with this id."""
    found = lake.find_row(_uri(lake, use_case, ARCHIVE), ID, prediction_id)
    if found is None:
        return None
    given = _restored(LoggedPrediction, use_case, found)
    return LoggedPrediction(**{**given, "features": json.loads(given["features"])})


def find_archived_shadows(lake: Lake, use_case: UseCase, prediction_id: str) -> list[ShadowScore]:
    """Return the shadow score of an answer that left the log, if the lake has one."""
    found = lake.find_row(_uri(lake, use_case, SHADOW_ARCHIVE), ID, prediction_id)
    return [] if found is None else [ShadowScore(**_restored(ShadowScore, use_case, found))]


def _uri(lake: Lake, use_case: UseCase, layer: str) -> str:
    return lake.table_uri(use_case.name, layer)


def _move(
    context: Context, log: PredictionLog, kept: Kept, layer: str, check: Callable[[], None]
) -> int:
    """Write the rows of a table of the log that the lake has not; return how many."""
    name, uri, count = context.use_case.name, _uri(context.lake, context.use_case, layer), 0
    while rows := kept.not_archived(log, name, ROWS_AT_ONCE):
        check()
        ids = [kept.id_of(row) for row in rows]
        there = _stored(context, uri, ids)
        new = [row for row, one in zip(rows, ids, strict=True) if one not in there]
        if new:
            facts = {"rows": len(new), "through": from_us(new[-1].at_us).isoformat()}
            context.lake.write(uri, _table(context.use_case, new), facts, "extend")
        kept.mark_archived(log, ids)
        count += len(new)
    return count


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


def _archived_fields(record: type[Row]) -> list[Field[Any]]:
    return [item for item in fields(record) if item.name != "use_case"]


def _column(use_case: UseCase, name: str) -> str:
    """Return the column of a field; by the name of the key, the person's rows are found."""
    return use_case.entity.key if name == "entity" else COLUMNS.get(name, name)


def _table(use_case: UseCase, rows: Sequence[Row]) -> Any:
    import pyarrow as pa

    kinds: dict[Any, Any] = {
        str: pa.string(),
        Role: pa.string(),
        int: pa.int64(),
        float: pa.float64(),
        bool: pa.bool_(),
        Sequence[str]: pa.list_(pa.string()),
    }
    columns: dict[str, Any] = {}
    for item in _archived_fields(type(rows[0])):
        kind = next((kinds[one] for one in kinds if item.type in (one, one | None)), pa.string())
        kind = pa.timestamp("us") if item.name in TIMES else kind
        values = [_value(item.name, getattr(row, item.name)) for row in rows]
        columns.setdefault(_column(use_case, item.name), pa.array(values, kind))
    if len(columns) != len(_archived_fields(type(rows[0]))):
        raise ConfigError(
            "the entity's key has the name of a column of the archive",
            where=f"{use_case.name}: entity.key",
            found=use_case.entity.key,
            way_out="call the column otherwise in the source",
        )
    return pa.table(columns)


def _value(name: str, value: Any) -> Any:
    if name in TIMES and value is not None:
        return from_us(value).replace(tzinfo=None)
    return json.dumps(dict(value)) if isinstance(value, Mapping) else value


def _restored(record: type[Row], use_case: UseCase, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an archived row; of an older one, what was not written is None."""
    given = {
        item.name: found.get(_column(use_case, item.name)) for item in _archived_fields(record)
    }
    times = {name: time for name in TIMES if (time := given.get(name)) is not None}
    given |= {name: to_us(time.replace(tzinfo=UTC)) for name, time in times.items()}
    return {**given, "use_case": use_case.name}
