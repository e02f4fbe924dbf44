"""What of a use case is online and where: tables of records, streams of events, how far they are.

On a month, week or day grid one record of an entity holds every online view. On an event grid
`daily` views are stored, `continuous` ones counted from recent events, `request_time` ones come
with the request. Protected attributes never get here. A table's name holds a hash of what
determines its content. A row of a source is a version of an event; a revision that gives the event
to another entity is a version for the one that loses it, too. Rows in quarantine are no events.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any, TypeVar, cast

from mlops_pipeline import errors
from mlops_pipeline.config.tables import FeatureType
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.rules import row_rules
from mlops_pipeline.core.expressions.types import Value
from mlops_pipeline.core.features.aggregates import Event
from mlops_pipeline.core.features.streams import stream_columns, stream_fresh_us, stream_reach
from mlops_pipeline.lifecycle.features.offline import definitions_hash
from mlops_pipeline.stores.lake.engine import quoted, rows_engine
from mlops_pipeline.stores.online.codec import RecordSchema
from mlops_pipeline.stores.online.interface import OnlineStore, OnlineTable, StoredEvent
from mlops_pipeline.stores.sources import known_at

US = timedelta(microseconds=1)
DAY_US = timedelta(days=1) // US
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
NEVER = datetime(9999, 1, 1, tzinfo=UTC)  # times after now are refused by the push itself
SEMANTICS = 1  # raise it when the same rows come to be other events
# of columns that records cannot hold: as a whole number in SQL, and back again
STORED_AS = {"timestamp": "epoch_us({})", "date": "({} - DATE '1970-01-01')::BIGINT"}
RESTORED: dict[str, Any] = {
    "timestamp": lambda value: datetime(1970, 1, 1) + timedelta(microseconds=value),  # noqa: DTZ001 # naive UTC, as in the tables
    "date": lambda value: date(1970, 1, 1) + timedelta(days=value),
}
OWN: dict[str, FeatureType] = {"_declared_us": "int64", "_arrival": "int64", "_is_here": "boolean"}
Checkpoint = TypeVar("Checkpoint")


@dataclass(frozen=True)
class OnlineLayout:
    """Which views are stored, counted from events, made of the request; all their features."""

    use_case: UseCase
    stored: tuple[str, ...]
    streamed: tuple[str, ...]
    requested: tuple[str, ...]
    features: tuple[str, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources whose events are kept."""
        return tuple(dict.fromkeys(self.use_case.views[name].source for name in self.streamed))

    @property
    def stored_names(self) -> tuple[str, ...]:
        """The features of a record, in order."""
        views = self.use_case.views
        return tuple(column for name in self.stored for column in views[name].columns)

    @property
    def expiry_days(self) -> int | None:
        """How long a record is of use: the longest `ttl_days` of its views; None: for ever."""
        found = [self.use_case.views[name].ttl_days for name in self.stored]
        kept = [days for days in found if days is not None]
        return max(kept) if kept and len(kept) == len(found) else None

    def records(self) -> tuple[OnlineTable, RecordSchema] | None:
        """Return the table of records and the layout of one; None when no view is stored."""
        if not self.stored:
            return None
        kinds = self.use_case.definitions
        dtypes = [kinds[name].dtype for name in self.stored_names]
        definitions = definitions_hash(self.use_case)
        name = f"records_{digest([definitions, list(self.stored_names), dtypes])}"
        schema = RecordSchema(self.stored_names, dtypes, definitions)
        return OnlineTable(self.use_case.name, name), schema


def online_layout(use_case: UseCase) -> OnlineLayout:
    """Divide the online views of a use case."""
    places: dict[str, list[str]] = {"stored": [], "streamed": [], "requested": []}
    features: list[str] = []
    for name, view in use_case.views.items():
        if view.online:
            is_streamed = use_case.grid.every == "event" and view.refresh == "continuous"
            place = "streamed" if is_streamed else "stored"
            places["requested" if view.request_time else place].append(name)
            features += view.columns
    for name, derived in use_case.derived.items():
        if derived.expression.columns <= set(features):
            features.append(name)
    found = {place: tuple(names) for place, names in places.items()}
    return OnlineLayout(use_case, **found, features=tuple(features))


def digest(content: object) -> str:
    """Return a hash of plain JSON, 12 hex digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def to_us(timestamp: datetime) -> int:
    """Return an aware timestamp in microseconds since 1970 (UTC)."""
    return (timestamp - EPOCH) // US


def from_us(time_us: int) -> datetime:
    """Return the aware timestamp (UTC) of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=time_us)


def never_filled(use_case: UseCase, table: OnlineTable) -> errors.OnlineDefinitionError:
    """Return the error for a table that is not there, or not complete yet."""
    return errors.OnlineDefinitionError(
        "the online store has no complete features of these definitions",
        where=f"{use_case.name}, table {table.name}",
        way_out=f"materialize {use_case.name}/online_features",
    )


@dataclass(frozen=True)
class RecordsCheckpoint:
    """How far records are filled: behind `last`. `was_complete`: every entity was there once."""

    feature_time_us: int
    last: str | None
    is_done: bool
    was_complete: bool
    expiry_days: int | None
    rows: int


@dataclass(frozen=True)
class StreamCheckpoint:
    """How far a stream is filled; rows declared before `late_before_us` count from arrival."""

    rows: int
    quarantine: int | None
    is_complete: bool
    late_before_us: int
    newest_us: int
    kept_from_us: int


def read_checkpoint(
    store: OnlineStore, table: OnlineTable, kind: type[Checkpoint]
) -> Checkpoint | None:
    """Return a table's checkpoint as the dataclass that was written; None where there is none."""
    text = store.checkpoint(table)
    if text is None:
        return None
    try:
        return kind(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise errors.OnlineCorruptError(
            "a checkpoint of the online store is damaged",
            where=f"table {table.name} of {table.use_case}",
            expected=f"the JSON of a {kind.__name__}",
            found=type(error).__name__,
            way_out="remove the table's keys and run `mlops features materialize`",
        ) from error


def checkpoint_text(checkpoint: Any) -> str:
    """Return a dataclass as the text that is stored."""
    return json.dumps(asdict(checkpoint))


class EventStream:
    """The stream of one source of a use case."""

    def __init__(self, use_case: UseCase, source: str) -> None:
        self.use_case, self.source = use_case, source
        section = use_case.sources[source]
        self._kinds = stream_columns(use_case, source)
        label = use_case.label
        content = [SEMANTICS, use_case.entity.key, list(section.key), section.happened]
        content += [section.availability, self._kinds]
        content += ["known at the end of its day"] if section.is_day(section.availability) else []
        content += [rule.model_dump(mode="json") for rule in section.rules]
        if label.kind == "column" and source in label.sources:
            content += [label.column, label.positive, label.negative]
            content += ["may lack it"] if label.also else []
        identity = digest(content)
        self.table = OnlineTable(use_case.name, f"events_{source}_{identity}")
        kinds = list(self._kinds.values())
        types = [cast(FeatureType, "int64" if kind in STORED_AS else kind) for kind in kinds]
        self._schema = RecordSchema([*OWN, *self._kinds], [*OWN.values(), *types], identity)
        self._restored = [(n, RESTORED[kind]) for n, kind in enumerate(kinds) if kind in RESTORED]
        self.reach_us = stream_reach(use_case, source) // US  # an event counts up to so long after
        self.fresh_us = stream_fresh_us(use_case, source)  # silent for so long: there was no event
        self.keep_us = self.reach_us + section.lateness_days * DAY_US  # that the source allows

    def encode(self, rows: Any) -> list[StoredEvent]:
        """Return the Arrow rows of a `versions` query as events."""
        payloads = self._schema.encode_batch(rows, rows.column("_happened_us").to_numpy())
        columns = ("_entity", "_version", "_kept_us", "_known_us")
        parts = (rows.column(name).to_pylist() for name in columns)
        return list(map(StoredEvent, *parts, payloads))

    def decode(self, stored: StoredEvent) -> Event:
        """Return an event as it was encoded."""
        happened_us, (declared, arrival, is_here, *found) = self._schema.decode(stored.payload)
        values: list[Value] = [*found]
        for place, restored in self._restored:
            if values[place] is not None:
                values[place] = restored(values[place])
        return Event(
            stored.identity.rpartition("@")[0],
            happened_us,
            cast(int, declared),
            stored.available_at_us,
            cast(int, arrival),
            tuple(values) if is_here else None,
        )

    def columns(self) -> str:
        """Return SQL of what is made of a row; `_identity` is its key, where that is complete."""
        section = self.use_case.sources[self.source]
        texts = [f"{quoted(column)}::VARCHAR" for column in section.key]
        identity = " || '/' || ".join(f"length({text}) || ':' || {text}" for text in texts)
        declared = f"epoch_us({quoted(section.availability)})"
        fields = [
            f"{quoted(self.use_case.entity.key)}::VARCHAR AS _entity",
            f"coalesce({identity}, '#' || _row_no) AS _identity",
            f"epoch_us({quoted(section.happened)}) AS _happened_us",
            f"{declared} AS _declared_us",
            "epoch_us(_available_at) AS _known_us",
            "_row_no AS _arrival",
        ]
        for name, kind in self._kinds.items():
            fields.append(f"{STORED_AS.get(kind, '{}').format(quoted(name))} AS {quoted(name)}")
        return ", ".join(fields)

    def versions(self, rows: str, *, revised: bool) -> str:
        """Return the query of events from rows of `columns`; `_kept_us` says when one may go."""
        times = ("_happened_us", "_declared_us", "_known_us", "_arrival")
        fields = f"_identity || '@' || _declared_us AS _version, {quoted(*times, *self._kinds)}"
        if not revised:
            return (
                f"SELECT _entity, {fields}, TRUE AS _is_here, _happened_us AS _kept_us "
                f"FROM {rows} WHERE _entity IS NOT NULL"
            )
        return (
            f"SELECT owner._entity, {fields}, "
            "v._entity IS NOT DISTINCT FROM owner._entity AS _is_here, "
            "max(_happened_us) OVER (PARTITION BY _identity) AS _kept_us "
            f"FROM {rows} AS v JOIN (SELECT DISTINCT _identity, _entity FROM {rows} "
            "WHERE _entity IS NOT NULL) AS owner USING (_identity)"
        )


@dataclass(frozen=True)
class Pushed:
    """What became of pushed rows: `refused` break a rule, `late` count from their ingestion."""

    rows: int
    new: int
    refused: int
    late: int = 0


class LiveEvents:
    """Pushes events of a source as they happen, before their rows are ingested.

    A pushed row is the event that ingestion will make of it: held against the same rules, known
    when it declares so. Two things only the accepted rows know: from when on a late row counts,
    which is its ingestion; and that a revision gives an event to another entity, which the entity
    that loses it sees with the next materialization.
    """

    def __init__(self, use_case: UseCase, source: str) -> None:
        import pyarrow as pa

        sources = online_layout(use_case).sources
        if source not in sources:
            raise errors.NotFoundError(
                "no online view is counted from events of this source",
                where=use_case.name,
                expected=", ".join(sources) or "a continuous view",
                found=source,
            )
        self.stream = EventStream(use_case, source)
        self._section = section = use_case.sources[source]
        types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(),
                 "boolean": pa.bool_(), "timestamp": pa.timestamp("us"),
                 "date": pa.date32()}  # fmt: skip
        self._schema = pa.schema({n: types[section.column(n).type] for n in section.columns})
        self._engine = engine = rows_engine()
        engine.register_arrow("_given", self._schema.empty_table())
        table = engine.table("_given")
        broken = reduce(or_, row_rules(use_case, source, section, table, NEVER).values())
        engine.create_view("_checked", engine.compile(table.mutate(_is_broken=broken)))

    def push(
        self, store: OnlineStore, rows: Sequence[Mapping[str, Any]], *, now: datetime
    ) -> Pushed:
        """Add rows of the source to its stream; the same rows again change nothing."""
        import pyarrow.compute as pc

        before = read_checkpoint(store, self.stream.table, StreamCheckpoint)
        if before is None or not before.is_complete:
            raise never_filled(self.stream.use_case, self.stream.table)
        self._engine.register_arrow("_given", self._arrow(rows))
        self._engine.create_table("_good", self._good(to_us(now)))
        good = self._engine.arrow(self.stream.versions("_good", revised=False))
        events = good.filter(pc.field("_declared_us") >= before.late_before_us)
        newest_us = max([before.newest_us, *events.column("_declared_us").to_pylist()])
        after = replace(
            before,
            newest_us=newest_us,
            kept_from_us=max(before.kept_from_us, newest_us - self.stream.keep_us),
        )
        new = store.append_events(
            self.stream.table,
            self.stream.encode(events),
            keep_after_us=after.kept_from_us,
            checkpoint=checkpoint_text(after),
        )
        return Pushed(len(rows), new, len(rows) - len(good), len(good) - len(events))

    def _arrow(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        import pyarrow as pa

        missing = {name for name in self._schema.names for row in rows if name not in row}
        if missing:
            raise errors.DataError(
                "a pushed event lacks a column",
                where=f"source {self.stream.source}, {', '.join(sorted(missing))}",
                expected="every column of the source; a missing value is null",
            )
        try:
            return pa.Table.from_pylist(list(rows), schema=self._schema)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise errors.DataError(
                "a value of a pushed event is not of its column's type",
                where=f"source {self.stream.source}",
                found=errors.masked(str(error)),
            ) from error

    def _good(self, now_us: int) -> str:
        section, now = self._section, f"make_timestamp({now_us})"
        happened, declared = quoted(section.happened), quoted(section.availability)
        keys = [quoted(name) for name in section.key]
        conditions = ["NOT _is_broken", f"{happened} <= {now}", f"{declared} <= {now}"]
        conditions += [f"{key} IS NOT NULL" for key in keys]
        return (
            f"SELECT {self.stream.columns()} FROM (SELECT *, "
            f"{known_at(section, section.availability)}::TIMESTAMP AS _available_at, "
            f"{now_us} + row_number() OVER () - 1 AS _row_no "
            f"FROM _checked WHERE {' AND '.join(conditions)})"
        )
