"""Rows of the feature table with their labels, for training. What a label means is core/data's."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.data.labels import (
    column_labels,
    events_in_horizon,
    label_events,
    labelled_periods,
)
from mlops_pipeline.core.data.periods import Period
from mlops_pipeline.errors import DataError, NotFoundError
from mlops_pipeline.lifecycle.context import Context, Snapshot
from mlops_pipeline.lifecycle.features.offline import (
    features_uri,
    finished_periods,
    row_key,
    use_case_periods,
)
from mlops_pipeline.lifecycle.ingest.accepted import register_accepted, with_revisions
from mlops_pipeline.stores.lake.engine import quoted, sql_timestamp

NO_LABELS = "SELECT *, NULL::TINYINT AS _label, as_of AS _known_at FROM f WHERE FALSE"


def load_frame(
    context: Context,
    snapshot: Snapshot,
    *,
    only: Collection[str] | None = None,
    newest: int | None = None,
) -> LabelledFrame:
    """Read every row whose label is known at the as_of, in a stable order."""
    use_case = context.use_case
    tables = register_accepted(context, snapshot.accepted)
    wanted = periods_with_labels(context, snapshot)
    if not wanted:
        raise DataError(
            "no label is known yet",
            expected=f"an as_of at least {use_case.label_horizon_days} days after the "
            f"grid's start {use_case.grid.start}",
            found=str(snapshot.as_of.date()),
            way_out="give a later --as-of, or start the grid earlier",
        )
    if only is not None:
        wanted = [period for period in wanted if period.name in only]
    if newest is not None:
        wanted = wanted[-newest:]
    done = finished_periods(context)
    missing = [period.name for period in wanted if period.name not in done]
    state = context.lake.state(features_uri(context))
    if missing or state is None:
        raise NotFoundError(
            "features were not built",
            where=f"periods {', '.join(missing[:5])}",
            way_out=f"materialize {use_case.name}/features first",
        )
    labels = with_labels(context, snapshot, tables, wanted)
    order = quoted(row_key(use_case))
    parts = (
        context.engine.arrow(
            f"WITH f AS (SELECT * FROM {context.engine.scan(state)} "
            f"WHERE {_is_of(period, use_case)}) {labels} ORDER BY f.as_of, f.{order}"
        )
        for period in wanted
    )
    frame = _frame(use_case, parts, sum(done[period.name].rows for period in wanted))
    if len(frame) == 0:
        names = f", periods {wanted[0].name} to {wanted[-1].name}" if wanted else ""
        raise DataError(
            "there is no labelled row",
            where=f"{use_case.name}{names}",
            way_out="check the label rule and the population, or give a later --as-of",
        )
    return frame


def periods_with_labels(context: Context, snapshot: Snapshot) -> list[Period]:
    """Return the periods up to the as_of whose labels may be known; labels of columns say when."""
    every = use_case_periods(context, snapshot.as_of)
    if context.use_case.label.kind == "column":
        return every
    return labelled_periods(context.use_case, every, snapshot.as_of)


def with_labels(
    context: Context, snapshot: Snapshot, tables: Mapping[str, Any], wanted: Sequence[Period]
) -> str:
    """Return SQL that adds _label (0 or 1) and _known_at to rows `f` of the feature table.

    It reads a temporary table made here, which holds what was known at the as_of.
    """
    use_case, engine, as_of = context.use_case, context.engine, snapshot.as_of
    if use_case.label.kind == "column":
        revised = with_revisions(snapshot.accepted)
        labels = engine.compile(column_labels(use_case, tables, as_of, revised=revised))
        engine.create_table(
            "_label_rows",
            f"SELECT event_row, label AS _label, known_at AS _known_at FROM ({labels}) "
            f"WHERE label IS NOT NULL AND known_at <= {sql_timestamp(as_of)}",
        )
        return "SELECT f.*, _label, _known_at FROM f JOIN _label_rows USING (event_row)"
    by_event = use_case.grid.every == "event"
    if by_event:
        events = label_events(use_case, tables, as_of)
    else:
        events = events_in_horizon(use_case, tables, wanted, as_of)
    engine.create_table("_label_events", engine.compile(events))
    key = quoted(use_case.entity.key)
    same = f"l.{key} = f.{key} AND l.as_of = f.as_of"
    if by_event:  # of its own source the row itself is no outcome, only what happens later
        after = ">" if use_case.label.source == use_case.population.source else ">="
        until = f"f.as_of + INTERVAL {use_case.label.horizon_days} DAY"
        same = f"l.{key} = f.{key} AND l._happened {after} f.as_of AND l._happened < {until}"
    hit, miss = (1, 0) if use_case.label.kind == "event_present" else (0, 1)
    return (
        f"SELECT f.*, CASE WHEN EXISTS (SELECT 1 FROM _label_events AS l WHERE {same}) "
        f"THEN {hit} ELSE {miss} END AS _label, "
        f"f.as_of + INTERVAL {use_case.label_horizon_days} DAY AS _known_at FROM f"
    )


def _is_of(period: Period, use_case: UseCase) -> str:
    start = sql_timestamp(period.start)
    if use_case.grid.every == "event":
        return f"as_of >= {start} AND as_of < {sql_timestamp(period.end)}"
    return f"as_of = {start}"


def _frame(use_case: UseCase, parts: Iterable[Any], capacity: int) -> LabelledFrame:
    """Put parts into arrays of their final size: no second copy of the data."""
    names = [*use_case.features, *use_case.protected]
    texts = {name for name in names if use_case.feature_type(name) == "string"}
    key = use_case.entity.key
    is_number = use_case.sources[use_case.population.source].column(key).type == "int64"
    columns: dict[str, npt.NDArray[Any]] = {
        name: np.empty(capacity, dtype=object if name in texts else np.float32) for name in names
    }
    columns |= {
        key: np.empty(capacity, dtype=np.int64 if is_number else object),
        "as_of": np.empty(capacity, dtype="datetime64[us]"),
        "_known_at": np.empty(capacity, dtype="datetime64[us]"),
        "_label": np.empty(capacity, dtype=np.int8),
    }
    end = 0
    for part in parts:
        begin, end = end, end + len(part)
        for name, array in columns.items():
            values = part.column(name)
            array[begin:end] = _texts(values) if name in texts else values.to_numpy()
    columns = {name: array[:end] for name, array in columns.items()}
    return LabelledFrame(
        columns={name: columns[name] for name in use_case.inputs},
        protected={name: columns[name] for name in use_case.protected},
        entity=columns[key],
        as_of=columns["as_of"],
        known_at=columns["_known_at"],
        label=columns["_label"],
    )


def _texts(column: Any) -> npt.NDArray[np.object_]:
    """Return texts as objects, one object for each distinct text: a row costs a pointer."""
    encoded = column.combine_chunks().dictionary_encode()
    distinct = np.asarray([*encoded.dictionary.to_pylist(), None], dtype=object)
    texts: npt.NDArray[np.object_] = distinct[encoded.indices.fill_null(len(distinct) - 1)]
    return texts
