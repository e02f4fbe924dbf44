"""The offline feature table: one Delta commit per finished period, and reading it for training.

A period that is there is finished: what arrives later counts as known later (ingestion.py), so an
incremental build equals a rebuild. The table's name holds the hash of the feature definitions:
other definitions are another table. Building and reading stay together, above 300 lines, because
both have to agree on the table's columns; computing and writing one period is feature_periods.py's,
the labels are labelled.py's.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame
from mlops_pipeline.core.data.labels import labelled_periods
from mlops_pipeline.core.data.periods import Period, periods
from mlops_pipeline.core.features.frames import feature_frame
from mlops_pipeline.errors import DataError, NotFoundError, shape
from mlops_pipeline.lifecycle.context import Context, Snapshot
from mlops_pipeline.lifecycle.features.feature_periods import (
    TEMPLATE_PERIOD,
    PeriodFacts,
    build_periods,
    plain,
    row_key,
)
from mlops_pipeline.lifecycle.features.labelled import with_labels
from mlops_pipeline.lifecycle.ingest.accepted import (
    register_accepted,
    row_guarantees,
)
from mlops_pipeline.stores.lake.engine import quoted
from mlops_pipeline.stores.lake.tables import TableState

SEMANTICS = 3  # raise it when the same definitions come to mean other values


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
    document["semantics"] = SEMANTICS
    document["sources"] = {
        name: {
            "event_time": source.event_time,
            "available_at": source.availability,
            "key": source.key,
            "columns": {column: source.column(column).type for column in source.columns},
        }
        for name, source in use_case.sources.items()
        if name in _feature_sources(use_case)
    }
    text = json.dumps(document, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _feature_sources(use_case: UseCase) -> set[str]:
    rule = use_case.population
    read = {view.source for view in use_case.views.values()}
    read |= {attribute.source for attribute in use_case.protected.values()}
    return {rule.source, *read, *([rule.leaves_with] if rule.leaves_with else [])}


def features_uri(context: Context) -> str:
    """Return the address of the feature table of the present definitions."""
    return context.lake.table_uri(
        context.use_case.name, "features", definitions_hash(context.use_case)
    )


def finished_periods(context: Context) -> dict[str, PeriodFacts]:
    """Return the finished periods of the present definitions by name."""
    return {
        facts["period"]: PeriodFacts(facts["period"], facts["rows"], facts["content_hash"])
        for facts in context.lake.facts_of_commits(features_uri(context))
    }


def finished_through(context: Context) -> datetime | None:
    """Return the newest moment up to which the feature table is finished."""
    ends = [facts["end"] for facts in context.lake.facts_of_commits(features_uri(context))]
    return max(map(datetime.fromisoformat, ends), default=None)


def build_features(
    context: Context,
    snapshot: Snapshot,
    *,
    progress: Callable[[str, int], None] | None = None,
) -> BuiltFeatures:
    """Compute the periods up to the as_of that are not finished, one commit each.

    Raises
    ------
    DataError
        When a view's source shares no entity with the population: keys that cannot match.
    """
    tables = register_accepted(context, snapshot.accepted)
    wanted = use_case_periods(context, snapshot.as_of)
    done = finished_periods(context)
    uri = features_uri(context)
    built: list[PeriodFacts] = []
    if not done:
        _check_keys_match(context, tables)
    missing = [period for period in wanted if period.name not in done]

    def finished(facts: PeriodFacts) -> None:
        built.append(facts)
        if progress:
            progress(facts.period, facts.rows)

    if missing:
        facts = row_guarantees(context.use_case, snapshot.accepted)
        frame = feature_frame(context.use_case, tables, TEMPLATE_PERIOD, facts)
        template = str(context.engine.ibis.compile(frame))
        build_periods(context, template, missing, uri, finished)
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


def _check_keys_match(context: Context, tables: Mapping[str, Any]) -> None:
    home = context.use_case.population.source
    key = quoted(context.use_case.entity.key)
    for name in {view.source for view in context.use_case.views.values()} - {home}:
        shared = context.engine.query(
            f"SELECT 1 FROM {quoted(name)} SEMI JOIN {quoted(home)} USING ({key}) LIMIT 1"
        )
        if not shared and tables[name] is not None:
            example = context.engine.query(f"SELECT {key} FROM {quoted(name)} LIMIT 1")
            other = context.engine.query(f"SELECT {key} FROM {quoted(home)} LIMIT 1")
            raise DataError(
                f"the sources {home} and {name} share no {context.use_case.entity.key}",
                where=f"sources.{name}",
                expected=f"keys like {shape(other[0][0])} of {home}",
                found=f"keys like {shape(example[0][0])}" if example else "no row",
                way_out="deliver both with the same identifiers",
            )


def load_frame(
    context: Context,
    snapshot: Snapshot,
    *,
    only: Collection[str] | None = None,
    newest: int | None = None,
) -> LabelledFrame:
    """Read every row whose label is known at the as_of, in a stable order.

    Parameters
    ----------
    only : collection of str, optional
        Names of the periods to read; default all.
    newest : int, optional
        Read this many of the newest labelled periods only.

    Raises
    ------
    DataError
        When no label is known yet.
    NotFoundError
        When the features of a period were never built.
    """
    tables = register_accepted(context, snapshot.accepted)
    every = use_case_periods(context, snapshot.as_of)
    if context.use_case.label.kind == "column":
        wanted = every
    else:
        wanted = labelled_periods(context.use_case, every, snapshot.as_of)
    if not wanted:
        raise DataError(
            "no label is known yet",
            expected=f"an as_of at least {context.use_case.label_horizon_days} days after the "
            f"grid's start {context.use_case.grid.start}",
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
            way_out=f"materialize {context.use_case.name}/features first",
        )
    rows = sum(done[period.name].rows for period in wanted)
    labels = with_labels(context, snapshot, tables, wanted)
    return _read_periods(context, state, labels, wanted, rows)


def _read_periods(
    context: Context, state: TableState, labels: str, wanted: Sequence[Period], capacity: int
) -> LabelledFrame:
    """Read period by period into arrays of their final size: no second copy of the data."""
    use_case = context.use_case
    names = [*use_case.features, *(name for name in use_case.protected)]
    texts = {name for name in names if use_case.feature_type(name) == "string"}
    columns: dict[str, npt.NDArray[Any]] = {
        name: np.empty(capacity, dtype=object if name in texts else np.float32) for name in names
    }
    entity: npt.NDArray[Any] | None = None
    as_of = np.empty(capacity, dtype="datetime64[us]")
    known_at = np.empty(capacity, dtype="datetime64[us]")
    label = np.empty(capacity, dtype=np.int8)
    at, order = 0, quoted(row_key(use_case))
    for period in wanted:
        where = f"as_of = TIMESTAMP '{plain(period.start)}'"
        if use_case.grid.every == "event":
            where = (
                f"as_of >= TIMESTAMP '{plain(period.start)}' "
                f"AND as_of < TIMESTAMP '{plain(period.end)}'"
            )
        part = context.engine.sql.sql(
            f"WITH f AS (SELECT * FROM {context.engine.scan(state)} WHERE {where}) "
            f"{labels} ORDER BY f.as_of, f.{order}"
        ).to_arrow_table()
        stop = at + len(part)
        if entity is None:
            kind = part.column(use_case.entity.key).type
            is_number = str(kind).startswith("int")
            entity = np.empty(capacity, dtype=np.int64 if is_number else object)
        for name in names:
            values = part.column(name)
            columns[name][at:stop] = _texts(values) if name in texts else values.to_numpy()
        entity[at:stop] = part.column(use_case.entity.key).to_numpy()
        as_of[at:stop] = part.column("as_of").to_numpy()
        known_at[at:stop] = part.column("_known_at").to_numpy()
        label[at:stop] = part.column("_label").to_numpy()
        at = stop
    if at == 0 or entity is None:
        raise DataError(
            "there is no labelled row",
            where=f"{use_case.name}, periods {wanted[0].name} to {wanted[-1].name}"
            if wanted
            else use_case.name,
            way_out="check the label rule and the population, or give a later --as-of",
        )
    protected = {name: columns[name][:at] for name in use_case.protected}
    return LabelledFrame(
        columns={name: columns[name][:at] for name in use_case.inputs},
        protected=protected,
        entity=entity[:at],
        as_of=as_of[:at],
        known_at=known_at[:at],
        label=label[:at],
    )


def _texts(column: Any) -> npt.NDArray[np.object_]:
    """Return texts as objects, one object for each distinct text: a row costs a pointer."""
    encoded = column.combine_chunks().dictionary_encode()
    distinct = np.asarray([*encoded.dictionary.to_pylist(), None], dtype=object)
    texts: npt.NDArray[np.object_] = distinct[encoded.indices.fill_null(len(distinct) - 1)]
    return texts
