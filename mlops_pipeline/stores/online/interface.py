"""What an online store can do, what is stored, and opening one by its address.

How a record looks inside is codec.py's; what is written and read is decided by lifecycle. A further
store is a file that keeps this interface, and a line in STORES.

Promises, the same for every store:

- Waiting for a lock, or for the answer of a server, ends at the time limit with an
  `OnlineStoreError`; nothing is tried again. A read of some hundred entities waits once.
- A record is replaced whole, and never by one of an older feature time: writing again changes
  nothing, and two writers may overlap.
- What a call with a `checkpoint` wrote is stored when the checkpoint is.
- Times are passed in, in microseconds since 1970 (UTC); `now_us` may be a past day.
- One object may be shared by threads; a child process opens its own.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, Protocol, Self

from mlops_pipeline.errors import ConfigError


class OnlineTable(NamedTuple):
    """Names a table of records, or a stream of events, of one use case."""

    use_case: str
    name: str


class StoredRecord(NamedTuple):
    """The values of one entity."""

    entity: str  # its key; a whole number as its decimal digits
    feature_time_us: int  # when the values were true
    expires_at_us: int | None  # from when on it is no longer read; None: never
    blob: bytes  # from `RecordSchema.encode_batch`


class StoredEvent(NamedTuple):
    """A version of an event, `identity` its own among the entity's; known from a time on."""

    entity: str
    identity: str
    event_time_us: int
    available_at_us: int
    payload: bytes


Records = Sequence[StoredRecord]
Events = Sequence[StoredEvent]


class OnlineStore(Protocol):
    """Newest records and recent events, by entity.

    Every method may raise one of the `OnlineStoreError`: unavailable, timeout, full, corrupt.
    """

    is_local: bool  # a read is answered by this machine alone, in less time than a thread costs

    def write_records(
        self, table: OnlineTable, records: Records, *, now_us: int, checkpoint: str | None = None
    ) -> int:
        """Write one chunk, then the checkpoint; return how many were not older than the stored."""
        ...

    def read_records(
        self, table: OnlineTable, entities: Sequence[str], *, now_us: int
    ) -> list[bytes | None]:
        """Return the blob of each entity; None where there is none, or it has expired."""
        ...

    def purge(self, table: OnlineTable, *, now_us: int) -> int:
        """Remove the records that have expired; return how many there were."""
        ...

    def checkpoint(self, table: OnlineTable) -> str | None:
        """Return the table's checkpoint: where a killed run goes on."""
        ...

    def set_checkpoint(self, table: OnlineTable, checkpoint: str | None) -> None:
        """Set the table's checkpoint, or remove it."""
        ...

    def append_events(
        self, table: OnlineTable, events: Events, keep_after_us: int, checkpoint: str | None = None
    ) -> int:
        """Add events, then set the checkpoint; return how many were new.

        Of the same entity, identity and availability the first stays. What happened before
        `keep_after_us` is removed, at the latest when its entity has another event.
        """
        ...

    def read_events(
        self, stream: OnlineTable, entities: Sequence[str], *, since_us: int
    ) -> list[list[StoredEvent]]:
        """Return what happened to each entity since a time, ordered by time and identity."""
        ...

    def forget(self, use_case: str, entity: str) -> int:
        """Remove every record and event of an entity; return how many there were."""
        ...

    def drop(self, table: OnlineTable) -> None:
        """Remove a table or stream with its checkpoint."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *raised: object) -> None: ...


class StoreKind(NamedTuple):
    """Where a kind of store is implemented, how it is addressed, and the extra that it needs."""

    module: str
    cls: str
    address: str
    extra: str | None = None


_PACKAGE = "mlops_pipeline.stores.online"
STORES: dict[str, StoreKind] = {  # by the scheme of the address
    "sqlite": StoreKind(f"{_PACKAGE}.sqlite", "SqliteOnlineStore", "sqlite:///path/to/online.db"),
    "redis": StoreKind(f"{_PACKAGE}.redis", "RedisOnlineStore", "redis://host:port/db", "redis"),
    "rediss": StoreKind(f"{_PACKAGE}.redis", "RedisOnlineStore", "rediss://host:port/db", "redis"),
}


def open_online_store(url: str, *, timeout_ms: int) -> OnlineStore:
    """Open the store at an address; a SQLite file is made, a server is not spoken to yet."""
    if timeout_ms < 1:
        raise ConfigError(
            "The time limit of the online store is not a positive number of milliseconds.",
            where="MLOPS_ONLINE_TIMEOUT_MS",
            found=str(timeout_ms),
        )
    kind = STORES.get(url.partition("://")[0])
    if kind is None:
        raise wrong_address()
    try:
        module = import_module(kind.module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The client of the online store is not installed: {error.name}.",
            where="MLOPS_ONLINE_URL",
            way_out=f"pip install 'mlops-pipeline[{kind.extra}]'",
        ) from error
    store: OnlineStore = getattr(module, kind.cls).at(url, timeout_ms=timeout_ms)
    return store


def wrong_address() -> ConfigError:
    """Return the error for an address that is none; it may hold a password: it is not shown."""
    return ConfigError(
        "The address of the online store cannot be read.",
        where="MLOPS_ONLINE_URL",
        expected=" or ".join(kind.address for kind in STORES.values()),
    )
