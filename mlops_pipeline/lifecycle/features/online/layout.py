"""Where the features of a use case are online, how far they are filled, which tables are in force.

On a month, week or day grid every online view is stored: one record of an entity holds them all.
On an event grid `daily` views are stored, `continuous` ones are counted from the recent events of
the entity, and `request_time` views come with the request. Derived features are computed from
these when they are read. Protected attributes never get here.

A table's name holds a hash of what determines its content, so that other definitions are another
table. One that the present definitions no longer use is retired: it stays for a day, so that
services that still have the earlier configuration go on reading, and is dropped by the next run.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from mlops_pipeline.config.tables import FeatureView
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import OnlineCorruptError, OnlineDefinitionError
from mlops_pipeline.lifecycle.features.offline import definitions_hash
from mlops_pipeline.stores.online.codec import RecordSchema
from mlops_pipeline.stores.online.interface import OnlineStore, OnlineTable

US = timedelta(microseconds=1)
DAY_US = timedelta(days=1) // US
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
RETIRED_US = DAY_US  # time enough to bring a new configuration to every service
IN_FORCE = "in_force"  # the name under which the list of tables is kept
Checkpoint = TypeVar("Checkpoint")


@dataclass(frozen=True)
class OnlineLayout:
    """Which views of a use case are where, by name.

    Attributes
    ----------
    stored, streamed, requested : tuple of str
        Views that are materialized, counted from events, computed from the request.
    features : tuple of str
        Everything that can be read, in the order of the configuration: columns of these views, and
        derived features that need no others.
    """

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
        views = self.use_case.views
        columns = {n: item for name in self.stored for n, item in views[name].columns.items()}
        dtypes = [column.dtype for column in columns.values()]
        definitions = definitions_hash(self.use_case)
        name = f"records_{digest([definitions, list(columns), dtypes])}"
        schema = RecordSchema(tuple(columns), dtypes, definitions)
        return OnlineTable(self.use_case.name, name), schema


def online_layout(use_case: UseCase) -> OnlineLayout:
    """Divide the online views of a use case."""
    views = {name: view for name, view in use_case.views.items() if view.online}
    places = {name: _place(use_case, view) for name, view in views.items()}
    features = [column for view in views.values() for column in view.columns]
    for name, derived in use_case.derived.items():
        if derived.expression.columns <= set(features):
            features.append(name)
    stored, streamed, requested = (
        tuple(name for name, found in places.items() if found == place)
        for place in ("stored", "streamed", "requested")
    )
    return OnlineLayout(use_case, stored, streamed, requested, tuple(features))


def _place(use_case: UseCase, view: FeatureView) -> str:
    if view.request_time:
        return "requested"
    if use_case.grid.every == "event" and view.refresh == "continuous":
        return "streamed"
    return "stored"


def digest(content: object) -> str:
    """Return a hash of plain JSON, 12 hex digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def to_us(timestamp: datetime) -> int:
    """Return an aware timestamp in microseconds since 1970 (UTC)."""
    return (timestamp - EPOCH) // US


def from_us(time_us: int) -> datetime:
    """Return the aware timestamp (UTC) of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=time_us)


def never_filled(use_case: UseCase, table: OnlineTable) -> OnlineDefinitionError:
    """Return the error for a table that is not there, or not complete yet."""
    return OnlineDefinitionError(
        "the online store has no complete features of these definitions",
        where=f"{use_case.name}, table {table.name}",
        way_out=f"materialize {use_case.name}/online_features",
    )


@dataclass(frozen=True)
class RecordsCheckpoint:
    """How far a table of records is filled.

    Attributes
    ----------
    feature_time_us : int
        Of the records that are being written, or were written last.
    last : str or None
        The entity after which a killed run goes on; None: before the first.
    is_done : bool
        Whether all of them were written.
    was_complete : bool
        Whether the table ever held every entity.
    expiry_days : int or None
        With which `ttl_days` they were written.
    rows : int
        How many records that were.
    """

    feature_time_us: int
    last: str | None
    is_done: bool
    was_complete: bool
    expiry_days: int | None
    rows: int


@dataclass(frozen=True)
class StreamCheckpoint:
    """How far a stream is filled.

    Attributes
    ----------
    rows, quarantine : int, int or None
        Rows of the raw table that were looked at, and the version of its quarantine then.
    is_complete : bool
        Whether the first fill has ended.
    late_before_us : int
        A row that declares to have been known before counts as known when it arrives.
    newest_us, kept_from_us : int
        What is known, and what is kept, as event times.
    """

    rows: int
    quarantine: int | None
    is_complete: bool
    late_before_us: int
    newest_us: int
    kept_from_us: int


@dataclass(frozen=True)
class _InForce:
    """Names of the tables in force, and of those retired with the time of it."""

    tables: list[str] = field(default_factory=list)
    retired: dict[str, int] = field(default_factory=dict)


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
        raise OnlineCorruptError(
            "a checkpoint of the online store is damaged",
            where=f"table {table.name} of {table.use_case}",
            expected=f"the JSON of a {kind.__name__}",
            found=type(error).__name__,
            way_out="remove the table's keys and run `mlops features materialize`",
        ) from error


def checkpoint_text(checkpoint: Any) -> str:
    """Return a dataclass as the text that is stored."""
    return json.dumps(asdict(checkpoint))


def stored_tables(store: OnlineStore, use_case: str) -> list[str]:
    """Return the names of the tables in force, and of those retired."""
    listed = read_checkpoint(store, OnlineTable(use_case, IN_FORCE), _InForce) or _InForce()
    return [*listed.tables, *listed.retired]


def put_in_force(
    store: OnlineStore, use_case: str, tables: Iterable[OnlineTable], *, now_us: int
) -> None:
    """Say that these tables are complete; retire the others, drop those retired long ago."""
    place = OnlineTable(use_case, IN_FORCE)
    before = read_checkpoint(store, place, _InForce) or _InForce()
    names = [table.name for table in tables]
    retired = {
        name: before.retired.get(name, now_us)
        for name in (*before.tables, *before.retired)
        if name not in names
    }
    for name, since_us in list(retired.items()):
        if now_us - since_us >= RETIRED_US:
            store.drop(OnlineTable(use_case, name))
            del retired[name]
    after = _InForce(names, retired)
    if after != before:
        store.set_checkpoint(place, checkpoint_text(after))
