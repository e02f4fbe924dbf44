"""The values of all entities at one moment, in their order: what materialization writes.

On a month, week or day grid they are read from the feature table. On an event grid, daily views are
computed as of a midnight by the same parts as historical features, for every entity that has an
accepted row in any source.

Entities are taken in slices, so that memory does not grow with them.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from mlops_pipeline.config.tables import Grid
from mlops_pipeline.core.data.periods import Period, default_as_of
from mlops_pipeline.core.features.frames import EVENT_ROW, asked_frame
from mlops_pipeline.errors import DataError, NotFoundError
from mlops_pipeline.lifecycle.context import AcceptedSource, Context
from mlops_pipeline.lifecycle.features.history import narrowed
from mlops_pipeline.lifecycle.features.offline import features_uri, finished_periods
from mlops_pipeline.lifecycle.features.online.layout import OnlineLayout, microseconds, moment_of
from mlops_pipeline.lifecycle.ingest.accepted import decisive_marks, row_guarantees
from mlops_pipeline.stores.lake.engine import literal, quoted
from mlops_pipeline.stores.settings import parse_time

SLICE_ROWS = 100_000  # entities that are read or computed at once
TICK = timedelta(microseconds=1)
MIDNIGHTS = Grid(every="day")


def newest_moment(
    context: Context,
    accepted: Mapping[str, AcceptedSource],
    layout: OnlineLayout,
    *,
    through: datetime,
    now_us: int,
) -> int:
    """Return the newest moment whose values are final.

    The start of the newest finished period up to `through`; on an event grid the last midnight up
    to which every source of a daily view is complete: rows that arrive later count as known later.

    Raises
    ------
    NotFoundError
        When no period is finished.
    DataError
        When no source of a daily view holds a row.
    """
    if context.use_case.grid.every != "event":
        moments = [parse_time(name) for name in finished_periods(context)]
        newest = max((moment for moment in moments if moment <= through), default=None)
        if newest is None:
            raise NotFoundError(
                "there are no features",
                where=features_uri(context),
                way_out=f"materialize {context.use_case.name}/features first",
            )
        return microseconds(newest)
    names = {context.use_case.views[name].source for name in layout.stored}
    marks = decisive_marks(context.use_case, {name: accepted[name].watermark for name in names})
    if not marks:
        raise DataError("no source of a daily view holds a row", where=context.use_case.name)
    return microseconds(default_as_of(MIDNIGHTS, moment_of(now_us), marks))


def snapshot(
    context: Context,
    accepted: Mapping[str, AcceptedSource],
    layout: OnlineLayout,
    moment: datetime,
    *,
    after: str | None,
    chunk_rows: int,
) -> Iterator[Any]:
    """Yield Arrow batches: the key, then the stored features; in the order of the key.

    Parameters
    ----------
    moment : datetime
        From `newest_moment`.
    after : str, optional
        The entity to go on behind.
    """
    by_event = context.use_case.grid.every == "event"
    key = quoted(context.use_case.entity.key)
    keys = _entities(context, layout) if by_event else _period_keys(context, moment)
    behind = "" if after is None else f"AND {key} > {_key_literal(context, after)}"
    context.engine.sql.execute(
        f"CREATE OR REPLACE TEMP TABLE _online_keys AS SELECT {key}, {_plain(moment)} AS as_of, "
        f"row_number() OVER (ORDER BY {key}) - 1 AS {EVENT_ROW} FROM ({keys}) "
        f"WHERE {key} IS NOT NULL {behind}"
    )
    _take(context, 0)
    statement = (
        _computed(context, accepted, layout, moment)
        if by_event
        else _finished(context, layout, moment)
    )
    count = int(context.engine.query("SELECT count(*) FROM _online_keys")[0][0])
    for start in range(0, count, SLICE_ROWS):
        _take(context, start)
        yield from context.engine.sql.sql(statement).to_arrow_reader(chunk_rows)


def _take(context: Context, start: int) -> None:
    """Make `_online_slice` the entities from a place on."""
    context.engine.sql.execute(
        "CREATE OR REPLACE TEMP VIEW _online_slice AS SELECT * FROM _online_keys "
        f"WHERE {EVENT_ROW} >= {start} AND {EVENT_ROW} < {start + SLICE_ROWS}"
    )


def _period_keys(context: Context, moment: datetime) -> str:
    key = quoted(context.use_case.entity.key)
    return f"SELECT {key} FROM {_period(context)} WHERE as_of = {_plain(moment)}"


def _finished(context: Context, layout: OnlineLayout, moment: datetime) -> str:
    """Return the query of a slice of a finished period."""
    key = quoted(context.use_case.entity.key)
    names = ", ".join([key, *map(quoted, layout.stored_names)])
    return (
        f"SELECT {names} FROM {_period(context)} SEMI JOIN _online_slice USING ({key}) "
        f"WHERE as_of = {_plain(moment)} ORDER BY {key}"
    )


def _period(context: Context) -> str:
    state = context.lake.state(features_uri(context))
    if state is None:
        raise NotFoundError("there are no features", where=features_uri(context))
    return context.engine.scan(state)


def _entities(context: Context, layout: OnlineLayout) -> str:
    """Return the query of every entity that a source of a view has."""
    key = quoted(context.use_case.entity.key)
    names = dict.fromkeys(view.source for view in layout.use_case.views.values())
    return " UNION ".join(f"SELECT DISTINCT {key} FROM {quoted(name)}" for name in names)


def _computed(
    context: Context,
    accepted: Mapping[str, AcceptedSource],
    layout: OnlineLayout,
    moment: datetime,
) -> str:
    """Return the query of a slice as of a midnight; the accepted sources are registered."""
    use_case = narrowed(context.use_case, layout.stored_names)
    key, tables = use_case.entity.key, {}
    for name in dict.fromkeys(view.source for view in use_case.views.values()):
        mine = f"SELECT * FROM {quoted(name)} SEMI JOIN _online_slice USING ({quoted(key)})"
        tables[name] = context.engine.register(f"_online_{name}", f"({mine})")
    asked = context.engine.ibis.table("_online_slice")
    period = Period(moment, moment + TICK)
    frame = asked_frame(use_case, tables, asked, period, row_guarantees(use_case, accepted))
    query = frame.select(key, *layout.stored_names).order_by(key)
    return str(context.engine.ibis.compile(query))


def _key_literal(context: Context, key: str) -> str:
    use_case = context.use_case
    kind = use_case.sources[use_case.population.source].column(use_case.entity.key).type
    return str(int(key)) if kind == "int64" else literal(key)


def _plain(moment: datetime) -> str:
    return f"TIMESTAMP '{moment.replace(tzinfo=None).isoformat(sep=' ')}'"
