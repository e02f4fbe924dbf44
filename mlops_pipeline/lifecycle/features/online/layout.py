"""Where the features of a use case are online: stored, counted from events, or from the request.

On a month, week or day grid every online view is stored: one record of an entity holds them all.
On an event grid `daily` views are stored, `continuous` ones are counted from the recent events of
the entity, and `request_time` views come with the request. Derived features are computed from
these when they are read. Protected attributes never get here.

Belongs here: which feature is where, and the names of tables. A table's name holds a hash of what
determines its content, so that other definitions are another table; streams are events.py's.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from mlops_pipeline.config.features import FeatureView
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import OnlineDefinitionError
from mlops_pipeline.lifecycle.features.offline import definitions_hash
from mlops_pipeline.stores.online.codec import RecordSchema
from mlops_pipeline.stores.online.interface import OnlineTable

US = timedelta(microseconds=1)
DAY_US = timedelta(days=1) // US
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


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


def microseconds(moment: datetime) -> int:
    """Return an aware moment in microseconds since 1970 (UTC)."""
    return (moment - EPOCH) // US


def moment_of(time_us: int) -> datetime:
    """Return the aware moment (UTC) of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=time_us)


def never_filled(use_case: UseCase, table: OnlineTable) -> OnlineDefinitionError:
    """Return the error for a table that is not there, or not complete yet."""
    return OnlineDefinitionError(
        "the online store has no complete features of these definitions",
        where=f"{use_case.name}, table {table.name}",
        way_out=f"materialize {use_case.name}/online_features",
    )
