"""The offline feature table: one Delta commit per finished period.

A period that is there is finished: what arrives later counts as known later (ingestion.py), so an
incremental build equals a rebuild. The table's name holds the hash of the feature definitions:
other definitions are another table. Reading it with labels is labelled.py's.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.periods import Period, periods
from mlops_pipeline.core.features.frames import EVENT_ROW, feature_frame
from mlops_pipeline.errors import DataError, shape
from mlops_pipeline.lifecycle.context import Context, Snapshot
from mlops_pipeline.lifecycle.ingest.accepted import register_accepted, row_guarantees
from mlops_pipeline.stores.lake.engine import content_hash, overflow_refused, quoted, sql_timestamp

SEMANTICS = 3  # raise it when the same definitions come to mean other values
# Compiling a frame takes longer than running it, so it is compiled once, for a period that no data
# reach; the query of a real period differs in its times only.
TEMPLATE_PERIOD = Period(datetime(6001, 1, 1, tzinfo=UTC), datetime(8001, 1, 1, tzinfo=UTC))
COMPUTED = "_computed_period"  # the table in DuckDB that holds one period between its two steps
TIMES = re.compile(r"MAKE_TIMESTAMP\((\d+), (\d+), (\d+), (\d+), (\d+), 0\.0\)")


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
    rule = use_case.population
    read = {rule.source, rule.leaves_with}
    read |= {view.source for view in use_case.views.values()}
    read |= {attribute.source for attribute in use_case.protected.values()}
    document["semantics"] = SEMANTICS
    document["sources"] = {
        name: {
            "event_time": source.event_time,
            "available_at": source.availability,
            "key": source.key,
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


def row_key(use_case: UseCase) -> str:
    """Return the column that tells the rows of an as_of apart."""
    return EVENT_ROW if use_case.grid.every == "event" else use_case.entity.key


def finished_periods(context: Context) -> dict[str, PeriodFacts]:
    """Return the finished periods of the present definitions by name."""
    return {
        facts["period"]: PeriodFacts(facts["period"], facts["rows"], facts["content_hash"])
        for facts in context.lake.commit_metadata(features_uri(context))
    }


def finished_through(context: Context) -> datetime | None:
    """Return the newest time up to which the feature table is finished."""
    ends = [facts["end"] for facts in context.lake.commit_metadata(features_uri(context))]
    return max(map(datetime.fromisoformat, ends), default=None)


def build_features(
    context: Context,
    snapshot: Snapshot,
    *,
    progress: Callable[[str, int], None] | None = None,
) -> BuiltFeatures:
    """Compute the periods up to the as_of that are not finished, one commit each.

    A killed run leaves whole periods, and none without those before it.
    """
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
            _compute(context, query_of(template, period), period)
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
    first = None
    if context.use_case.grid.every == "event" and context.use_case.grid.start is None:
        name = context.use_case.population.source
        column = quoted(context.use_case.sources[name].event_time)
        first = context.engine.query(f"SELECT min({column}) FROM {quoted(name)}")[0][0]
        first = first.replace(tzinfo=UTC) if first else None
    return periods(context.use_case.grid, as_of, first)


def query_of(template: str, period: Period) -> str:
    """Return the query of a period: every time of the template, moved to the period's."""

    def moved(match: re.Match[str]) -> str:
        year, month, day, hour, minute = map(int, match.groups()[:5])
        time = datetime(year, month, day, hour, minute, tzinfo=UTC)
        is_end = abs(time - TEMPLATE_PERIOD.end) < abs(time - TEMPLATE_PERIOD.start)
        base, target = (
            (TEMPLATE_PERIOD.end, period.end) if is_end else (TEMPLATE_PERIOD.start, period.start)
        )
        return sql_timestamp(target + (time - base))

    return TIMES.sub(moved, template)


def _check_keys_match(context: Context) -> None:
    home, query = context.use_case.population.source, context.engine.query
    key = quoted(context.use_case.entity.key)
    for name in {view.source for view in context.use_case.views.values()} - {home}:
        shared = query(
            f"SELECT 1 FROM {quoted(name)} SEMI JOIN {quoted(home)} USING ({key}) LIMIT 1"
        )
        if not shared:
            example = query(f"SELECT {key} FROM {quoted(name)} LIMIT 1")
            other = query(f"SELECT {key} FROM {quoted(home)} LIMIT 1")
            raise DataError(
                f"the sources {home} and {name} share no {context.use_case.entity.key}",
                where=f"sources.{name}",
                expected=f"keys like {shape(other[0][0])} of {home}",
                found=f"keys like {shape(example[0][0])}" if example else "no row",
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
    """Write the computed period in the order of its rows' keys."""
    use_case = context.use_case
    key = row_key(use_case)
    columns = [key, "as_of", *use_case.features, *use_case.protected]
    rows, digest = context.engine.content(COMPUTED, columns)
    facts = PeriodFacts(period.name, rows, content_hash(digest))
    batches = context.engine.batches(f"SELECT * FROM {COMPUTED} ORDER BY as_of, {quoted(key)}")
    commit = {**asdict(facts), "end": period.end.isoformat()}
    context.lake.write(uri, batches, commit, "append")
    return facts
