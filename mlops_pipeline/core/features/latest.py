"""Latest values by a join on time: for many rows that each look from a moment of their own.

The latest of an entity's known rows (by event time, then availability, then arrival) changes only
when a row becomes known that is later than all known before it. Those rows, ordered by when they
were known, are what an as-of join needs: each asked row meets one of them, not its whole history.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from mlops_pipeline.core.features.aggregates import before


def with_latest(
    frame: Any,
    rows: Any,
    values: Mapping[str, Any],
    *,
    moment: Any,
    event_time: str,
    key: str,
    reach: timedelta | None,
    is_ordered: bool,
) -> Any:
    """Return the frame with the latest values; every row of it stays.

    Parameters
    ----------
    frame : ibis.Table
        Asked rows, with the entity key.
    rows : ibis.Table
        Rows of the source that count, none superseded, with a key.
    values : mapping of name to ibis column of `rows`
    moment : ibis column of `frame`
        From when each asked row looks: it sees what was known strictly before.
    reach : timedelta or None
        An older latest row counts as none.
    is_ordered : bool
        Rows of an entity have different event times and were known when they happened.
    """
    import ibis

    names, values = list(values), dict(values)
    known = rows[event_time]
    if not is_ordered:
        known = ibis.greatest(known, rows._available_at)
    right = rows.mutate(_key=rows[key], _happened=rows[event_time], _known=known)
    if not is_ordered:
        values = {f"_value_{index}": value for index, value in enumerate(values.values())}
        right = _changes(right.mutate(**values))
        values = {name: right[f"_value_{index}"] for index, name in enumerate(names)}
    times = ["_known"] if reach is None else ["_happened", "_known"]
    right = right.select("_key", *times, **values)
    left = frame.mutate(_moment=moment)
    joined = left.asof_join(
        right, on=left._moment > right._known, predicates=[left[key] == right._key]
    )
    if reach is not None:
        is_recent = joined._happened >= before(joined._moment, reach)
        nothing = {name: ibis.null(joined[name].type()) for name in names}
        joined = joined.mutate(
            **{name: ibis.ifelse(is_recent, joined[name], nothing[name]) for name in names}
        )
    return joined.select(*frame.columns, *names)


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
