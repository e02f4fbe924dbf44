"""Point-in-time feature frames as Ibis expressions: what was known strictly before as_of.

One definition for every reader. A frame of a month, week or day grid is computed for one as_of; a
frame of an event grid for the events of one period, each at its own time: those known before the
period's end. One that arrives later is history for the events after it, and no row of its own,
because finished periods stay finished.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import reduce
from operator import and_
from typing import Any, NamedTuple

from mlops_pipeline.config.tables import FeatureColumn, Refresh, Source
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.periods import Period, is_current
from mlops_pipeline.core.expressions.to_ibis import condition, to_ibis, typed
from mlops_pipeline.core.features.aggregates import Rows, before
from mlops_pipeline.spec.grammar import Expression

Tables = Mapping[str, Any]  # by name of the source
Columns = dict[str, FeatureColumn]
EVENT_ROW = "event_row"  # on an event grid: the row of the population's source


@dataclass(frozen=True)
class RowGuarantees:
    """What holds of the rows of sources, by name: the more holds, the fewer tests a query needs."""

    revised: frozenset[str] = frozenset()  # may hold revisions; the others cannot
    unique: frozenset[str] = frozenset()  # at most one row of an entity at a time
    ordered: frozenset[str] = frozenset()  # unique, and every row was known when it happened


NO_GUARANTEES = RowGuarantees()


class _Latest(NamedTuple):
    source: str
    refresh: Refresh
    reach: timedelta | None
    where: Expression | None


class _Group(NamedTuple):
    source: str
    refresh: Refresh
    is_bounded: bool


def feature_frame(
    use_case: UseCase, tables: Tables, period: Period, guarantees: RowGuarantees = NO_GUARANTEES
) -> Any:
    """Return the frame of one period: entity key, as_of, features, protected attributes.

    One row per entity (event grid: per event), in any order. `tables` are the accepted rows of each
    source, with `_row_no`, `_available_at` and `_superseded_at`.
    """
    build = _Frame(use_case, tables, period, guarantees)
    first = [build.key, "as_of", *([EVENT_ROW] if build.by_event else [])]
    frame = with_derived(use_case, build.attached())
    return frame.select(*first, *use_case.features, *use_case.protected)


def population(use_case: UseCase, tables: Tables, period: Period) -> Any:
    """Return who belongs at the period: entity key and as_of, one row each."""
    return _Frame(use_case, tables, period, NO_GUARANTEES).spine()


def entity_frame(
    use_case: UseCase, tables: Tables, rows: Any, period: Period, guarantees: RowGuarantees
) -> Any:
    """Return entity rows with their features, each as of its own time, in any order.

    `rows` have the entity key, `as_of` (within `period`), `event_row` (unique), the columns that
    request-time features read, and any other.
    """
    build = _Frame(use_case, tables, period, guarantees, given=rows)
    kept = [name for name in rows.columns if name not in use_case.features]
    return with_derived(use_case, build.attached()).select(*kept, *use_case.features)


def late_entity_frame(
    use_case: UseCase, tables: Tables, rows: Any, period: Period, guarantees: RowGuarantees
) -> tuple[Any, dict[str, Any]]:
    """Return the same in two steps, for more rows than can carry their latest values along."""
    values: dict[str, Any] = {}
    return _Frame(use_case, tables, period, guarantees, given=rows).attached(values), values


class _Frame:
    def __init__(
        self,
        use_case: UseCase,
        tables: Tables,
        period: Period,
        guarantees: RowGuarantees,
        given: Any = None,
    ) -> None:
        self.use_case = use_case
        self.tables = tables
        self.guarantees = guarantees
        self.given = given
        self.by_event = given is not None or use_case.grid.every == "event"
        self.key = use_case.entity.key
        self.part_key = "_event_row" if self.by_event else self.key
        self.as_of = period.start.replace(tzinfo=None)
        self.end = period.end.replace(tzinfo=None)
        self.population = use_case.sources[use_case.population.source]
        days = use_case.population.active_within_days
        self.active = timedelta(days=days) if days else None
        self.own, self.latest, self.others = self._groups()

    def spine(self) -> Any:
        if self.given is not None:
            # a request's column may be named like the feature that is made of it
            hidden = set(self.given.columns) & set(self.use_case.features)
            return self.given.drop(*sorted(hidden))  # in one order, so that the SQL is one text
        if self.by_event:
            return self._event_spine()
        rows = self._known(self.use_case.population.source)
        test = self._belongs(rows, None)
        rows = rows if test is None else rows.filter(test)
        return self._staying(self._keyed(rows).select(self.key).distinct())

    def _keyed(self, rows: Any) -> Any:
        return rows.filter(rows[self.key].notnull())

    def _staying(self, members: Any) -> Any:
        import ibis

        left = self.use_case.population.leaves_with
        if left:
            members = members.anti_join(self._known(left), self.key)
        return members.mutate(as_of=ibis.literal(self.as_of))

    def _home(self) -> _Group | None:
        """Return the group whose rows include all that make an entity belong: one scan for both."""
        for group, columns in self.others.items():
            widest = _widest(columns)
            is_covered = widest is None or (self.active is not None and self.active <= widest)
            if is_covered and group.source == self.use_case.population.source:
                return group
        return None

    def _belongs(self, rows: Any, widest: timedelta | None) -> Any:
        """Return the test of rows, as far back as `widest`, that make an entity belong; or None."""
        rule = self.use_case.population
        tests = [condition(rule.where, rows)] if rule.where else []
        if self.active is not None and self.active != widest:
            happened = rows[self.population.happened]
            tests.append(happened >= before(self.as_of, self.active))
        return reduce(and_, tests) if tests else None

    def _event_spine(self) -> Any:
        rows = self._event_rows()
        times = {"as_of": rows[self.population.happened], EVENT_ROW: rows._row_no}
        spine = rows.select(self.key, **times)
        left = self.use_case.population.leaves_with
        if not left:
            return spine
        gone = self._known(left, events=spine).select("_event_key", "_as_of").distinct()
        same = [spine[self.key] == gone._event_key, spine.as_of == gone._as_of]
        return spine.anti_join(gone, same)

    def _event_rows(self) -> Any:
        """Rows of the population's source within the period, known before its end: the grid."""
        if self.given is not None:
            return self.given.mutate(_row_no=self.given[EVENT_ROW])
        rule = self.use_case.population
        rows = self.tables[rule.source]
        happened = rows[self.population.happened]
        inside = (happened >= self.as_of) & (happened < self.end) & (rows._available_at < self.end)
        if rule.source in self.guarantees.revised:
            inside &= is_current(rows, self.end)
        rows = rows.filter(inside)
        if rule.where:
            rows = rows.filter(condition(rule.where, rows))
        return self._keyed(rows)

    # what was known

    def _known(
        self,
        name: str,
        window: timedelta | None = None,
        *,
        events: Any = None,
        refresh: Refresh = "continuous",
    ) -> Any:
        """Return rows of a source known before as_of; on an event grid, joined to each event."""
        source = self.use_case.sources[name]
        rows, as_of = self.tables[name], self.as_of
        if self.by_event:
            spine = self.spine() if events is None else events
            times = spine.select(
                _event_key=spine[self.key],
                _as_of=_view_as_of(spine.as_of, refresh),
                _event_row=spine[EVENT_ROW],
            )
            rows = self._around_period(rows, source, window)
            rows = rows.inner_join(times, rows[self.key] == times._event_key)
            as_of = rows._as_of
        happened = rows[source.happened]
        known = (happened < as_of) & (rows._available_at < as_of)
        if name in self.guarantees.revised:
            known &= is_current(rows, as_of)
        if window is not None:
            known &= happened >= before(as_of, window)
        return rows.filter(known)

    def _around_period(self, rows: Any, source: Source, window: timedelta | None) -> Any:
        """Return the rows that any event of the period can see: fewer rows to join."""
        happened = rows[source.happened]
        seen = happened < self.end
        if window is not None:
            seen &= happened >= self.as_of - window - timedelta(days=1)  # a daily view's midnight
        return rows.filter(seen)

    def attached(self, apart: dict[str, Any] | None = None) -> Any:
        """Return who, with what is not made of a row's own values (`apart`: late_entity_frame)."""
        home = None if self.by_event else self._home()
        frame = self.spine() if home is None else self._staying(self._aggregated(home, home=True))
        if self.own:  # of the row itself, at as_of
            rows = self._event_rows()
            part = rows.select(**{self.part_key: rows._row_no, **_values(self.own, rows)})
            frame = self._attached(frame, part)
        for kind, columns in self.latest.items():
            frame = self._with_latest(frame, kind, columns, apart)
        for group in self.others:
            if group != home:
                frame = self._attached(frame, self._aggregated(group))
        return frame

    def _attached(self, frame: Any, part: Any) -> Any:
        right = part.rename(_part_key=self.part_key)
        key = frame[EVENT_ROW if self.by_event else self.key]
        return frame.left_join(right, key == right._part_key).drop("_part_key")

    def _groups(self) -> tuple[Columns, dict[_Latest, Columns], dict[_Group, Columns]]:
        """Divide the columns by scan: of the row itself, latest values, aggregates by reach."""
        own: Columns = {}
        latest: dict[_Latest, Columns] = {}
        others: dict[_Group, Columns] = {}
        for name, source, refresh, column in self._columns():
            is_joined = self.by_event and source not in self.guarantees.revised
            if column.aggregate is None:
                own[name] = column
            elif is_joined and column.aggregate == "last" and not column.offset_days:
                kind = _Latest(source, refresh, column.reach, column.where)
                latest.setdefault(kind, {})[name] = column
            else:
                group = _Group(source, refresh, column.reach is not None)
                others.setdefault(group, {})[name] = column
        return own, latest, others

    def _columns(self) -> Iterator[tuple[str, str, Refresh, FeatureColumn]]:
        for view in self.use_case.views.values():
            for name, column in view.columns.items():
                yield name, view.source, view.refresh, column
        is_event, home = self.use_case.grid.every == "event", self.use_case.population.source
        for name, attribute in self.use_case.protected.items():
            aggregate = None if is_event and attribute.source == home else "last"
            column = FeatureColumn(aggregate=aggregate, of=attribute.of, dtype="string")
            yield name, attribute.source, "continuous", column

    def _with_latest(
        self, frame: Any, kind: _Latest, columns: Columns, apart: dict[str, Any] | None
    ) -> Any:
        """Add latest values (`apart`: the rows that hold them) to rows, by a join on time."""
        source = self.use_case.sources[kind.source]
        rows = self._around_period(self._keyed(self.tables[kind.source]), source, None)
        if kind.where:
            rows = rows.filter(condition(kind.where, rows))
        values = _values(columns, rows)
        if apart is not None:
            row_column = f"_row_of_{len(apart)}"
            apart[row_column] = rows.select("_row_no", **values)
            values = {row_column: rows._row_no}
        return with_latest(
            frame,
            rows,
            values,
            as_of=_view_as_of(frame.as_of, kind.refresh),
            event_time=source.happened,
            key=self.key,
            reach=kind.reach,
            is_ordered=kind.source in self.guarantees.ordered,
        )

    def _aggregated(self, group: _Group, *, home: bool = False) -> Any:
        """Return one row per entity (or event) that has any row; `home`: that belongs."""
        columns = self.others[group]
        widest = _widest(columns)
        rows = self._keyed(self._known(group.source, widest, refresh=group.refresh))
        event_time = self.use_case.sources[group.source].happened
        as_of = rows._as_of if self.by_event else self.as_of
        is_unique = group.source in self.guarantees.unique
        known = Rows(rows, event_time, as_of, widest=widest, is_unique=is_unique)
        kept = self._belongs(rows, widest) if home else None
        return known.aggregated(self.part_key, columns, kept)


def _values(columns: Columns, rows: Any) -> dict[str, Any]:
    return {
        name: typed(to_ibis(column.value, rows), column.dtype, column.precision)
        for name, column in columns.items()
    }


def _widest(columns: Columns) -> timedelta | None:
    """Return how far back the columns of a group look; None: without limit."""
    reaches = [column.reach for column in columns.values()]
    return None if None in reaches else max(item for item in reaches if item is not None)


def _view_as_of(as_of: Any, refresh: Refresh) -> Any:
    return as_of.truncate("D") if refresh == "daily" else as_of


def with_latest(
    frame: Any,
    rows: Any,
    values: Mapping[str, Any],
    *,
    as_of: Any,
    event_time: str,
    key: str,
    reach: timedelta | None,
    is_ordered: bool,
) -> Any:
    """Return the frame with the latest values by a join on time; every row of it stays.

    The latest of an entity's known rows (by event time, then availability, then arrival) changes
    only when a row becomes known that is later than all known before it. Those rows, ordered by
    when they were known, are what an as-of join needs: each row of the frame meets one of them, not
    its whole history.
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
    left = frame.mutate(_as_of=as_of)
    same = [left[key] == right._key]
    joined = left.asof_join(right, on=left._as_of > right._known, predicates=same)
    if reach is not None:
        is_recent = joined._happened >= before(joined._as_of, reach)
        nothing = {name: ibis.null(joined[name].type()) for name in names}
        recent = {name: ibis.ifelse(is_recent, joined[name], nothing[name]) for name in names}
        joined = joined.mutate(**recent)
    return joined.select(*frame.columns, *names)


def _changes(rows: Any) -> Any:
    """Keep the rows that were the latest known of their entity when they became known."""
    import ibis

    order = [rows._happened, rows._available_at, rows._row_no]
    rows = rows.mutate(_rank=ibis.row_number().over(group_by=rows._key, order_by=order))
    so_far = ibis.window(group_by=rows._key, order_by=rows._known, range=(None, 0))
    rows = rows.mutate(_newest=rows._rank.max().over(so_far))
    return rows.filter(rows._rank == rows._newest)


def with_derived(use_case: UseCase, frame: Any) -> Any:
    """Return the frame with defaults of the unseen (counts: 0) and derived features."""
    filled = {
        name: typed(frame[name].fill_null(column.fill), column.dtype, column.precision)
        for view in use_case.views.values()
        for name, column in view.columns.items()
        if column.fill is not None
    }
    frame = frame.mutate(**filled) if filled else frame
    for name, derived in use_case.derived.items():
        value = to_ibis(derived.expression, frame)
        frame = frame.mutate(**{name: typed(value, derived.dtype, derived.precision)})
    return frame
