"""Labels beside the rows of the feature table. What a label means is core/data/labels.py's."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mlops_pipeline.core.data.labels import column_labels, events_in_horizon, label_events
from mlops_pipeline.core.data.periods import Period
from mlops_pipeline.lifecycle.context import Context, Snapshot
from mlops_pipeline.lifecycle.ingest.accepted import with_revisions
from mlops_pipeline.stores.lake.engine import quoted, sql_timestamp


def with_labels(
    context: Context,
    snapshot: Snapshot,
    tables: Mapping[str, Any],
    wanted: Sequence[Period],
) -> str:
    """Return SQL that adds _label (0 or 1) and _known_at to rows `f` of the feature table.

    It reads a temporary table made here, which holds what was known at the as_of.
    """
    if context.use_case.label.kind == "column":
        return _column_label_table(context, snapshot, tables)
    return _event_label_table(context, tables, wanted, snapshot.as_of)


def _event_label_table(
    context: Context, tables: Mapping[str, Any], wanted: Sequence[Period], as_of: datetime
) -> str:
    """Make table `_label_events` and return the query that adds label and known_at."""
    use_case, engine = context.use_case, context.engine
    by_event = use_case.grid.every == "event"
    if by_event:
        frame = label_events(use_case, tables, as_of)
    else:
        frame = events_in_horizon(use_case, tables, wanted, as_of)
    statement = engine.ibis.compile(frame)
    engine.ibis._register_in_memory_tables(frame)
    engine.sql.execute(f"CREATE OR REPLACE TEMP TABLE _label_events AS {statement}")
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


def _column_label_table(context: Context, snapshot: Snapshot, tables: Mapping[str, Any]) -> str:
    revised = with_revisions(snapshot.accepted)
    labels = column_labels(context.use_case, tables, snapshot.as_of, revised=revised)
    statement = context.engine.ibis.compile(labels)
    context.engine.sql.execute(
        f"CREATE OR REPLACE TEMP TABLE _label_rows AS SELECT event_row, label AS _label, "
        f"known_at AS _known_at FROM ({statement}) "
        f"WHERE label IS NOT NULL AND known_at <= {sql_timestamp(snapshot.as_of)}"
    )
    return "SELECT f.*, _label, _known_at FROM f JOIN _label_rows USING (event_row)"
