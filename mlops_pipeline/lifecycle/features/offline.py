"""The offline feature table: built by periods, one Delta commit each, and read with labels.

A period that is there is finished: what arrives later counts as known later (ingestion.py), so an
incremental build equals a rebuild. The table's name holds the hash of the feature definitions:
other definitions are another table. What a label means is core/data's.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.periods import (
    Period,
    column_labels,
    events_in_horizon,
    label_events,
    labelled_periods,
    no_label_yet,
    periods,
)
from mlops_pipeline.core.features.frames import EVENT_ROW, feature_frame
from mlops_pipeline.errors import DataError, NotFoundError, shape
from mlops_pipeline.lifecycle.context import Context, Snapshot
from mlops_pipeline.lifecycle.ingest.accepted import (
    register_accepted,
    row_guarantees,
    with_revisions,
)
from mlops_pipeline.stores.lake.engine import content_hash, overflow_refused, quoted, sql_timestamp
from mlops_pipeline.stores.lake.tables import TableState

if TYPE_CHECKING:
    import numpy.typing as npt

    from mlops_pipeline.core.data.frame import LabelledFrame

SEMANTICS = 3  # raise it when the same definitions come to mean other values
# Compiling a frame takes longer than running it, so it is compiled once, for a period that no data
# reach; the query of a real period differs in its times only.
TEMPLATE_PERIOD = Period(datetime(6001, 1, 1, tzinfo=UTC), datetime(8001, 1, 1, tzinfo=UTC))
COMPUTED = "_computed_period"  # the table in DuckDB that holds one period between its two steps
TIMES = re.compile(r"MAKE_TIMESTAMP\((\d+), (\d+), (\d+), (\d+), (\d+), 0\.0\)")
NO_LABELS = "SELECT *, NULL::TINYINT AS _label, as_of AS _known_at FROM f WHERE FALSE"


@dataclass(frozen=True)
class PeriodFacts:
    """One finished period of the feature table."""

    period: str
    rows: int
    content_hash: str


@dataclass(frozen=True)
class BuiltFeatures:
    """What one run did to the feature table."""

    uri: str
    version: int
    definitions: str
    built: tuple[PeriodFacts, ...]
    periods: tuple[PeriodFacts, ...]

    @property
    def content_hash(self) -> str:
        """Hash over every period's name, rows and content."""
        text = json.dumps([(item.period, item.rows, item.content_hash) for item in self.periods])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def definitions_hash(use_case: UseCase) -> str:
    """Return the hash of everything that determines feature values, 12 hex digits."""
    about = {
        *("description", "owner", "freshness_days", "ttl_days"),
        *("online", "deprecated", "as_input", "expected"),
    }
    document = use_case.model_dump(
        mode="json",
        include={"entity", "grid", "population", "views", "derived", "protected"},
        exclude={
            "views": {"__all__": dict.fromkeys(about, True) | {"columns": {"__all__": about}}},
            "derived": {"__all__": about},
            "protected": {"__all__": about},
        },
    )
    read = {use_case.population.source, use_case.population.leaves_with}
    read |= {view.source for view in use_case.views.values()}
    read |= {attribute.source for attribute in use_case.protected.values()}
    document["semantics"] = SEMANTICS
    document["sources"] = {
        name: {
            "event_time": source.happened,
            "available_at": source.availability,
            "key": source.key,
            **({"known": "end of day"} if source.is_day(source.availability) else {}),
            "columns": {column: source.column(column).type for column in source.columns},
        }
        for name, source in use_case.sources.items()
        if name in read
    }
    text = json.dumps(document, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def features_uri(context: Context) -> str:
    """Return the address of the feature table of the present definitions."""
    definitions = definitions_hash(context.use_case)
    return context.lake.table_uri(context.use_case.name, "features", definitions)


def feature_table(context: Context) -> TableState:
    """Return the feature table of the present definitions; NotFoundError before the first build."""
    uri = features_uri(context)
    state = context.lake.state(uri)
    if state is None:
        way_out = f"materialize {context.use_case.name}/features first"
        raise NotFoundError("there are no features", where=uri, way_out=way_out)
    return state


def row_key(use_case: UseCase) -> str:
    """Return the column that tells the rows of an as_of apart."""
    return EVENT_ROW if use_case.grid.every == "event" else use_case.entity.key


def finished_periods(context: Context) -> dict[str, PeriodFacts]:
    """Return the finished periods of the present definitions by name."""
    names = ("period", "rows", "content_hash")
    commits = context.lake.commit_metadata(features_uri(context))
    return {item["period"]: PeriodFacts(*(item[name] for name in names)) for item in commits}


def finished_through(context: Context) -> datetime | None:
    """Return the newest time up to which the feature table is finished."""
    ends = [facts["end"] for facts in context.lake.commit_metadata(features_uri(context))]
    return max(map(datetime.fromisoformat, ends), default=None)


def build_features(
    context: Context, snapshot: Snapshot, *, progress: Callable[[str, int], None] | None = None
) -> BuiltFeatures:
    """Compute the periods up to the as_of that are not finished, one commit each, in order."""
    tables = register_accepted(context, snapshot.accepted)
    wanted = use_case_periods(context, snapshot.as_of)
    done = finished_periods(context)
    uri = features_uri(context)
    built: list[PeriodFacts] = []
    if not done:
        _check_keys_match(context)
    missing = [period for period in wanted if period.name not in done]
    if missing:
        guarantees = row_guarantees(context.use_case, snapshot.accepted)
        frame = feature_frame(context.use_case, tables, TEMPLATE_PERIOD, guarantees)
        template = context.engine.compile(frame)
        for period in missing:  # computing takes every core: one after the other
            _compute(context, _query_of(template, period), period)
            built.append(_write(context, period, uri))
            if progress:
                progress(period.name, built[-1].rows)
        context.engine.drop_table(COMPUTED)
    state = context.lake.state(uri)
    if state is None:
        raise DataError("there are no features", where=uri, found="no period up to as_of")
    done = finished_periods(context)
    return BuiltFeatures(
        uri=uri,
        version=state.version,
        definitions=definitions_hash(context.use_case),
        built=tuple(built),
        periods=tuple(done[period.name] for period in wanted),
    )


def use_case_periods(context: Context, as_of: datetime) -> list[Period]:
    """Return every period of the use case up to `as_of`."""
    first, grid, name = None, context.use_case.grid, context.use_case.population.source
    if grid.every == "event" and grid.start is None:
        column = quoted(context.use_case.sources[name].happened)
        first = context.engine.query(f"SELECT min({column}) FROM {quoted(name)}")[0][0]
    return periods(grid, as_of, first.replace(tzinfo=UTC) if first else None)


def _query_of(template: str, period: Period) -> str:
    """Return the query of a period: every time of the template, moved to the period's."""

    def moved(match: re.Match[str]) -> str:
        year, month, day, hour, minute = map(int, match.groups()[:5])
        time = datetime(year, month, day, hour, minute, tzinfo=UTC)
        base, target = min(
            (TEMPLATE_PERIOD.start, period.start),
            (TEMPLATE_PERIOD.end, period.end),
            key=lambda pair: abs(time - pair[0]),
        )
        return sql_timestamp(target + (time - base))

    return TIMES.sub(moved, template)


def _check_keys_match(context: Context) -> None:
    use_case, query = context.use_case, context.engine.query
    home, key = use_case.population.source, quoted(use_case.entity.key)
    for name in {view.source for view in use_case.views.values()} - {home}:
        shared = f"SELECT 1 FROM {quoted(name)} SEMI JOIN {quoted(home)} USING ({key}) LIMIT 1"
        if not query(shared):
            ours, theirs = (
                query(f"SELECT {key} FROM {quoted(source)} LIMIT 1") for source in (home, name)
            )
            raise DataError(
                f"the sources {home} and {name} share no {use_case.entity.key}",
                where=f"sources.{name}",
                expected=f"keys like {shape(ours[0][0])} of {home}",
                found=f"keys like {shape(theirs[0][0])}" if theirs else "no row",
                way_out="deliver both with the same identifiers",
            )


def _compute(context: Context, statement: str, period: Period) -> None:
    """Make a table of the period: it counts towards DuckDB's memory limit, and spills."""
    with overflow_refused(
        "a feature's value does not fit its type",
        where=f"{context.use_case.name}, period {period.name}",
        expected="values whose exact sums fit: below 9.2e18 units of their precision",
        way_out="quarantine such rows with a range rule, or change dtype or precision",
    ):
        context.engine.create_table(COMPUTED, statement)


def _write(context: Context, period: Period, uri: str) -> PeriodFacts:
    use_case = context.use_case
    key = row_key(use_case)
    columns = [key, "as_of", *use_case.features, *use_case.protected]
    rows, digest = context.engine.content(COMPUTED, columns)
    facts = PeriodFacts(period.name, rows, content_hash(digest))
    batches = context.engine.batches(f"SELECT * FROM {COMPUTED} ORDER BY as_of, {quoted(key)}")
    commit = {**asdict(facts), "end": period.end.isoformat()}
    context.lake.write(uri, batches, commit, "append")
    return facts


def load_frame(
    context: Context,
    snapshot: Snapshot,
    *,
    only: Collection[str] | None = None,
    newest: int | None = None,
) -> "LabelledFrame":
    """Read every row whose label is known at the as_of, in a stable order."""
    use_case = context.use_case
    tables = register_accepted(context, snapshot.accepted)
    wanted = periods_with_labels(context, snapshot)
    if not wanted:
        every = use_case_periods(context, snapshot.as_of)
        if every:
            raise no_label_yet(use_case, every[0], snapshot.as_of)
        raise DataError("no label is known yet", where=use_case.name, found="no period up to as_of")
    if only is not None:
        wanted = [period for period in wanted if period.name in only]
    if newest is not None:
        wanted = wanted[-newest:]
    done = finished_periods(context)
    missing = [period.name for period in wanted if period.name not in done]
    if missing:
        raise NotFoundError(
            "features were not built",
            where=f"periods {', '.join(missing[:5])}",
            way_out=f"materialize {use_case.name}/features first",
        )
    labels = with_labels(context, snapshot, tables, wanted)
    scan, order = context.engine.scan(feature_table(context)), quoted(row_key(use_case))
    parts = (
        context.engine.arrow(
            f"WITH f AS (SELECT * FROM {scan} WHERE {_is_of(period)}) {labels} "
            f"ORDER BY f.as_of, f.{order}"
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
    """Return SQL that adds _label (0 or 1) and _known_at to rows `f`, from a temporary table."""
    use_case, engine, as_of = context.use_case, context.engine, snapshot.as_of
    if use_case.label.kind == "column":
        row, revised = quoted(row_key(use_case)), with_revisions(snapshot.accepted)
        labels = engine.compile(column_labels(use_case, tables, as_of, revised=revised))
        engine.create_table(
            "_label_rows",
            f"SELECT {row}, label AS _label, known_at AS _known_at FROM ({labels})",
        )
        return f"SELECT f.*, _label, _known_at FROM f JOIN _label_rows USING ({row})"
    by_event = use_case.grid.every == "event"
    if by_event:
        events = label_events(use_case, tables, as_of)
    else:
        events = events_in_horizon(use_case, tables, wanted, as_of)
    engine.create_table("_label_events", engine.compile(events))
    key = quoted(use_case.entity.key)
    same = f"l.{key} = f.{key} AND l.as_of = f.as_of"
    if by_event:
        same = f"l.{key} = f.{key} AND {in_horizon(use_case, 'f.as_of')}"
    return f"SELECT f.*, {event_label(use_case, 'f.as_of', same)} FROM f"


def in_horizon(use_case: UseCase, at: str) -> str:
    """Return SQL of whether a label event `l` is within the horizon of a row at the time `at`."""
    # of its own source an event row itself is no outcome, only what happens later
    is_own = use_case.population.source in use_case.label.sources
    after = ">" if use_case.grid.every == "event" and is_own else ">="
    until = f"{at} + INTERVAL {use_case.label.horizon_days} DAY"
    return f"l._happened {after} {at} AND l._happened < {until}"


def event_label(use_case: UseCase, at: str, same: str) -> str:
    """Return SQL of _label and _known_at of a row at `at`, by events `l` of _label_events."""
    hit, miss = (1, 0) if use_case.label.kind == "event_present" else (0, 1)
    return (
        f"CASE WHEN EXISTS (SELECT 1 FROM _label_events AS l WHERE {same}) "
        f"THEN {hit} ELSE {miss} END AS _label, "
        f"{at} + INTERVAL {use_case.label_horizon_days} DAY AS _known_at"
    )


def _is_of(period: Period) -> str:
    start, end = sql_timestamp(period.start), sql_timestamp(period.end)
    return f"as_of = {start}" if start == end else f"as_of >= {start} AND as_of < {end}"


def _frame(use_case: UseCase, parts: Iterable[Any], capacity: int) -> "LabelledFrame":
    """Put parts into arrays of their final size: no second copy of the data."""
    import numpy as np

    from mlops_pipeline.core.data.frame import LabelledFrame

    names = [*use_case.features, *use_case.protected]
    texts = {name for name in names if use_case.feature_type(name) == "string"}
    key = use_case.entity.key
    is_number = use_case.sources[use_case.population.source].column(key).type == "int64"
    columns: dict[str, npt.NDArray[Any]] = {
        name: np.empty(capacity, dtype=object if name in texts else np.float32) for name in names
    }
    columns[key] = np.empty(capacity, dtype=np.int64 if is_number else object)
    columns["as_of"], columns["_known_at"] = np.empty((2, capacity), dtype="datetime64[us]")
    columns["_label"] = np.empty(capacity, dtype=np.int8)
    end = 0
    for part in parts:
        begin, end = end, end + len(part)
        for name, array in columns.items():
            values = part.column(name)
            if name in texts:  # one object for each distinct text: a row costs a pointer
                encoded = values.combine_chunks().dictionary_encode()
                distinct = np.asarray([*encoded.dictionary.to_pylist(), None], dtype=object)
                array[begin:end] = distinct[encoded.indices.fill_null(len(distinct) - 1)]
            else:
                array[begin:end] = values.to_numpy()
    columns = {name: array[:end] for name, array in columns.items()}
    return LabelledFrame(
        columns={name: columns[name] for name in use_case.inputs},
        protected={name: columns[name] for name in use_case.protected},
        entity=columns[key],
        as_of=columns["as_of"],
        known_at=columns["_known_at"],
        label=columns["_label"],
    )
