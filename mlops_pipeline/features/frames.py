"""Point-in-time feature frames as Ibis expressions: what was known strictly before as_of.

One definition for every reader. A frame of a month, week or day grid is computed for one as_of
(the per-period form is as fast as one query for all, flat in memory, and incremental); a frame of
an event grid is computed for the events of one period, each at its own time.

On an event grid the events of a period are those known before its end: one that arrives later is
history for the events after it, and no row of its own, because finished periods stay finished.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from mlops_pipeline.config.features import COUNTS, FeatureColumn, Refresh
from mlops_pipeline.config.tables import Source
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.data.periods import Period
from mlops_pipeline.features.aggregates import Aggregation, before, typed
from mlops_pipeline.features.compile import compiled, condition

EVENT_ROW = "event_row"  # on an event grid: the row of the population's source


def feature_frame(
    use_case: UseCase,
    tables: Mapping[str, Any],
    period: Period,
    *,
    revised: frozenset[str] = frozenset(),
    unique: frozenset[str] = frozenset(),
) -> Any:
    """Return the frame of one period: entity key, as_of, features, protected attributes.

    Parameters
    ----------
    tables : mapping of source name to Ibis table
        Accepted rows, with `_row_no`, `_available_at` and `_superseded_at`.
    revised : frozenset of str
        Sources that hold revisions; the others skip that test.
    unique : frozenset of str
        Sources with at most one row of an entity at a time: the latest needs no tie-break.

    Returns
    -------
    ibis.Table
        One row per entity (event grid: per event), ordered by it.
    """
    return _Frame(use_case, tables, period, revised, unique).whole()


def population(
    use_case: UseCase,
    tables: Mapping[str, Any],
    period: Period,
    *,
    revised: frozenset[str] = frozenset(),
) -> Any:
    """Return who belongs at the period: entity key and as_of, one row each."""
    return _Frame(use_case, tables, period, revised).spine()


class _Frame:
    def __init__(
        self,
        use_case: UseCase,
        tables: Mapping[str, Any],
        period: Period,
        revised: frozenset[str],
        unique: frozenset[str] = frozenset(),
    ) -> None:
        self.use_case = use_case
        self.tables = tables
        self.period = period
        self.revised = revised
        self.unique = unique
        self.by_event = use_case.grid.every == "event"
        self.key = use_case.entity.key
        self.row_key = EVENT_ROW if self.by_event else self.key
        self.part_key = "_event_row" if self.by_event else self.key
        self.moment = _naive(period.start)

    # who

    def spine(self) -> Any:
        import ibis

        if self.by_event:
            return self._event_spine()
        rule = self.use_case.population
        rows = self._known(rule.source)
        if rule.where:
            rows = rows.filter(condition(rule.where, rows))
        if rule.active_within_days:
            since = self.moment - timedelta(days=rule.active_within_days)
            rows = rows.filter(rows[self._population_source().event_time] >= since)
        spine = rows.filter(rows[self.key].notnull()).select(self.key).distinct()
        if rule.leaves_with:
            spine = spine.anti_join(self._known(rule.leaves_with), self.key)
        return spine.mutate(as_of=ibis.literal(self.moment))

    def _event_spine(self) -> Any:
        rows = self._event_rows()
        spine = rows.select(
            self.key,
            as_of=rows[self._population_source().event_time],
            **{EVENT_ROW: rows._row_no},
        )
        left = self.use_case.population.leaves_with
        if not left:
            return spine
        gone = self._known(left, events=spine).select("_event_key", "_as_of").distinct()
        return spine.anti_join(
            gone, [spine[self.key] == gone._event_key, spine.as_of == gone._as_of]
        )

    def _population_source(self) -> Any:
        return self.use_case.sources[self.use_case.population.source]

    def _event_rows(self) -> Any:
        """Rows of the population's source within the period, known before its end: the grid."""
        rule = self.use_case.population
        rows = self.tables[rule.source]
        happened = rows[self._population_source().event_time]
        end = _naive(self.period.end)
        inside = (happened >= self.moment) & (happened < end) & (rows._available_at < end)
        if rule.source in self.revised:
            inside &= rows._superseded_at.isnull() | (rows._superseded_at >= end)
        rows = rows.filter(inside)
        if rule.where:
            rows = rows.filter(condition(rule.where, rows))
        return rows.filter(rows[self.key].notnull())

    # what was known

    def _known(
        self,
        name: str,
        window: timedelta | None = None,
        *,
        events: Any = None,
        refresh: Refresh = "continuous",
    ) -> Any:
        """Rows of a source known before as_of; on an event grid, joined to each event.

        For a daily view of an event grid, as_of is the midnight before the event.
        """
        source = self.use_case.sources[name]
        rows = self.tables[name]
        if self.by_event:
            spine = self.spine() if events is None else events
            moment = spine.as_of.truncate("D") if refresh == "daily" else spine.as_of
            events = spine.select(
                _event_key=spine[self.key], _as_of=moment, _event_row=spine[EVENT_ROW]
            )
            rows = self._around_period(rows, source, window)
            rows = rows.inner_join(events, rows[self.key] == events._event_key)
            as_of = rows._as_of
        else:
            as_of = self.moment
        happened = rows[source.event_time]
        known = (happened < as_of) & (rows._available_at < as_of)
        if name in self.revised:
            known &= rows._superseded_at.isnull() | (rows._superseded_at >= as_of)
        if window is not None:
            known &= happened >= before(as_of, window)
        return rows.filter(known)

    def _around_period(self, rows: Any, source: Source, window: timedelta | None) -> Any:
        """Return the rows that any event of the period can see: fewer rows to join."""
        happened = rows[source.event_time]
        seen = happened < _naive(self.period.end)
        if window is not None:
            seen &= happened >= self.moment - window - timedelta(days=1)  # a daily view's midnight
        return rows.filter(seen)

    # features

    def whole(self) -> Any:
        frame = self.spine()
        for part in self._parts():
            frame = self._attached(frame, part)
        frame = self._with_unseen(frame)
        for name, derived in self.use_case.derived.items():
            value = compiled(derived.expression, frame)
            frame = frame.mutate(**{name: typed(value, derived.dtype, derived.precision)})
        first = [self.key, "as_of", *([EVENT_ROW] if self.by_event else [])]
        names = [*first, *self.use_case.features, *self.use_case.protected]
        return frame.select(*names).order_by(["as_of", self.row_key])

    def _attached(self, frame: Any, part: Any) -> Any:
        right = part.rename(_part_key=self.part_key)
        return frame.left_join(right, frame[self.row_key] == right._part_key).drop("_part_key")

    def _parts(self) -> Iterator[Any]:
        """Yield the views' features and protected attributes, one row per entity (or event).

        What comes from one source is computed together, with one scan of it: bounded windows
        apart from columns that look back without limit.
        """
        groups: dict[tuple[str, Refresh, bool], dict[str, FeatureColumn]] = {}
        own: dict[str, FeatureColumn] = {}
        for view in self.use_case.views.values():
            for name, column in view.columns.items():
                key = (view.source, view.refresh, column.reach is not None)
                (own if view.request_time else groups.setdefault(key, {}))[name] = column
        for name, attribute in self.use_case.protected.items():
            column = FeatureColumn(aggregate="last", of=attribute.of, dtype="string")
            is_own = self.by_event and attribute.source == self.use_case.population.source
            (own if is_own else groups.setdefault((attribute.source, "continuous", False), {}))[
                name
            ] = column
        if own:
            yield self._request_time(own)
        for (source, refresh, _), columns in groups.items():
            yield self._aggregated(source, refresh, columns)

    def _request_time(self, columns: Mapping[str, FeatureColumn]) -> Any:
        rows = self._event_rows()
        values = {
            name: typed(compiled(column.of or name, rows), column.dtype, column.precision)
            for name, column in columns.items()
        }
        return rows.select(**{self.part_key: rows._row_no, **values})

    def _aggregated(
        self, source: str, refresh: Refresh, columns: Mapping[str, FeatureColumn]
    ) -> Any:
        reaches = [column.reach for column in columns.values()]
        widest = None if None in reaches else max(item for item in reaches if item is not None)
        rows = self._known(source, widest, refresh=refresh)
        rows = rows.filter(rows[self.key].notnull())
        return Aggregation(
            rows,
            self.use_case.sources[source].event_time,
            rows._as_of if self.by_event else self.moment,
            widest=widest,
            is_unique=source in self.unique,
        ).by(self.part_key, columns)

    def _with_unseen(self, frame: Any) -> Any:
        """Fill what an entity without any row gets: counts 0, others their `unseen`."""
        filled = {}
        for view in self.use_case.views.values():
            for name, column in view.columns.items():
                value = column.unseen
                if value is None and column.aggregate in COUNTS:
                    value = 0
                if value is not None:
                    filled[name] = typed(
                        frame[name].fill_null(value), column.dtype, column.precision
                    )
        return frame.mutate(**filled) if filled else frame


def _naive(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None)
