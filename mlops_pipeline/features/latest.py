"""Latest values by a join on time: for many rows that each look from a moment of their own.

The latest of an entity's known rows (by event time, then availability, then arrival) changes only
when a row becomes known that is later than all known before it. Those rows, ordered by when they
were known, are what an as-of join needs: each asked row meets one of them, not its whole history.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from mlops_pipeline.config.features import FeatureColumn
from mlops_pipeline.features.aggregates import before, typed
from mlops_pipeline.features.compile import compiled


def latest_values(
    moments: Any,
    rows: Any,
    columns: Mapping[str, FeatureColumn],
    *,
    event_time: str,
    key: str,
    reach: timedelta | None,
    is_ordered: bool,
) -> Any:
    """Return `_event_row` and the columns' latest values, one row for each of `moments`.

    Parameters
    ----------
    moments : ibis.Table
        `_event_row`, `_event_key` and `_as_of`.
    rows : ibis.Table
        Rows of the source that count, none superseded, with a key.
    reach : timedelta or None
        An older latest row counts as none.
    is_ordered : bool
        Rows of an entity have different event times and were known when they happened.
    """
    import ibis

    values = {f"_{name}": compiled(str(column.of), rows) for name, column in columns.items()}
    known = rows[event_time]
    if not is_ordered:
        known = ibis.greatest(known, rows._available_at)
    right = rows.mutate(_key=rows[key], _happened=rows[event_time], _known=known, **values)
    if not is_ordered:
        right = _changes(right)
    right = right.select("_key", "_happened", "_known", *values)
    joined = moments.asof_join(
        right,
        on=moments._as_of > right._known,
        predicates=[moments._event_key == right._key],
    )

    def value(name: str, column: FeatureColumn) -> Any:
        found = joined[f"_{name}"]
        if reach is not None:
            is_recent = joined._happened >= before(joined._as_of, reach)
            found = ibis.ifelse(is_recent, found, ibis.null(found.type()))
        return typed(found, column.dtype, column.precision)

    return joined.select(
        "_event_row", **{name: value(name, column) for name, column in columns.items()}
    )


def _changes(rows: Any) -> Any:
    """Keep the rows that were the latest known of their entity when they became known."""
    import ibis

    order = [rows._happened, rows._available_at, rows._row_no]
    rows = rows.mutate(_rank=ibis.row_number().over(group_by=rows._key, order_by=order))
    so_far = rows._rank.max().over(
        ibis.window(group_by=rows._key, order_by=rows._known, range=(None, 0))
    )
    rows = rows.mutate(_newest=so_far)
    return rows.filter(rows._rank == rows._newest)
