"""What an online store can do, and opening one by its address.

Belongs here: the interface that both stores keep, and what is stored. How a record looks inside is
codec.py's; what is written into it, and read out of it, is decided by the modules above.

Promises, the same for every store:

- Waiting for a lock, or for the answer of a server, ends at the time limit with an
  `OnlineStoreError`; nothing is tried again. A read of some hundred entities waits once.
- A record is replaced whole, and never by one of an older feature time: writing again changes
  nothing, and two writers may overlap.
- What a call with a `progress` marker wrote is stored when the marker is.
- Times are passed in, in microseconds since 1970 (UTC); `now_us` may be a past day.
- One object may be shared by threads; a child process opens its own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, Self
from urllib.parse import parse_qs, urlsplit

from mlops_pipeline.errors import ConfigError

TLS_FILES = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})  # options of rediss://
EXPECTED_URL = "sqlite:///path/to/online.db, redis://host:port/db or rediss://host:port/db"


class OnlineTable(NamedTuple):
    """Names a table of records, or a stream of events, of one use case.

    The names are those of the configuration: letters, digits and underscores.
    """

    use_case: str
    name: str


class StoredRecord(NamedTuple):
    """The values of one entity.

    Attributes
    ----------
    entity : str
        Its key; a whole number as its decimal digits.
    feature_time_us : int
        When the values were true.
    expires_at_us : int or None
        From when on it is no longer read; None: never.
    blob : bytes
        From `RecordSchema.encode_batch`.
    """

    entity: str
    feature_time_us: int
    expires_at_us: int | None
    blob: bytes


class StoredEvent(NamedTuple):
    """One version of an event of an entity.

    Attributes
    ----------
    entity, identity : str
        The entity's key, and the event's own among all of the entity.
    event_time_us, available_at_us : int
        When it happened, and from when on this version was known.
    payload : bytes
        Its values.
    """

    entity: str
    identity: str
    event_time_us: int
    available_at_us: int
    payload: bytes


class OnlineStore(Protocol):
    """Newest records and recent events, by entity.

    Every method may raise one of the `OnlineStoreError`: unavailable, timeout, full, corrupt.
    """

    def write_records(
        self,
        table: OnlineTable,
        records: Sequence[StoredRecord],
        *,
        now_us: int,
        progress: str | None = None,
    ) -> int:
        """Write one chunk; return how many were not older than what is held.

        Parameters
        ----------
        progress : str, optional
            Set as the table's marker once all of them are stored.
        """
        ...

    def read_records(
        self, table: OnlineTable, entities: Sequence[str], *, now_us: int
    ) -> list[bytes | None]:
        """Return the blob of each entity; None where there is none, or it has expired.

        Where it is damaged, `RecordSchema.decode` refuses what comes back.
        """
        ...

    def purge(self, table: OnlineTable, *, now_us: int) -> int:
        """Remove the records that have expired; return how many were held."""
        ...

    def progress(self, table: OnlineTable) -> str | None:
        """Return the table's marker: where a killed run goes on."""
        ...

    def set_progress(self, table: OnlineTable, marker: str | None) -> None:
        """Set the table's marker, or remove it."""
        ...

    def append_events(
        self,
        stream: OnlineTable,
        events: Sequence[StoredEvent],
        *,
        keep_after_us: int,
        progress: str | None = None,
    ) -> int:
        """Add events; return how many were new.

        Of the same entity, identity and availability the first stays. What happened before
        `keep_after_us` is removed, at the latest when its entity has another event.
        """
        ...

    def read_events(
        self, stream: OnlineTable, entities: Sequence[str], *, since_us: int
    ) -> list[list[StoredEvent]]:
        """Return what happened to each entity at or after a moment.

        Ordered by event time, availability and identity.
        """
        ...

    def forget(self, use_case: str, entity: str) -> int:
        """Remove every record and event of an entity; return how many there were."""
        ...

    def drop(self, table: OnlineTable) -> None:
        """Remove a table or stream with its marker."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *raised: object) -> None: ...


def open_online_store(url: str, *, timeout_ms: int) -> OnlineStore:
    """Open the store at an address.

    A SQLite file is made where there is none; a server is first spoken to by the first call.

    Parameters
    ----------
    url : str
        ``sqlite:///path/to/online.db`` or ``redis://user:password@host:port/db``.
    timeout_ms : int
        The time limit. Who writes chunks opens the store with a longer one than who reads.

    Raises
    ------
    ConfigError
        When the address or the limit is wrong, or the client for Redis is not installed.
    OnlineStoreError
        When a SQLite file cannot be made.
    """
    if timeout_ms < 1:
        raise ConfigError(
            "The time limit of the online store is not a positive number of milliseconds.",
            where="MLOPS_ONLINE_TIMEOUT_MS",
            found=str(timeout_ms),
        )
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and len(rest) > 1 and rest.startswith("/"):
        from mlops_pipeline.stores.online.sqlite import SqliteOnlineStore

        return SqliteOnlineStore(Path(rest[1:]), timeout_ms=timeout_ms)
    if scheme in ("redis", "rediss") and _has_host(url):
        try:
            from mlops_pipeline.stores.online.redis_store import RedisOnlineStore
        except ModuleNotFoundError as error:
            raise ConfigError(
                "The client for Redis is not installed.",
                where="MLOPS_ONLINE_URL",
                way_out="pip install 'mlops-pipeline[redis]'",
            ) from error
        return RedisOnlineStore(url, timeout_ms=timeout_ms)
    raise ConfigError(  # the text may hold a password, so it is not repeated
        "The address of the online store cannot be read.",
        where="MLOPS_ONLINE_URL",
        expected=EXPECTED_URL,
    )


def _has_host(url: str) -> bool:
    """Check an address such as redis://host:port/db, with a number as its database."""
    try:
        parts = urlsplit(url)
        known = parts.hostname is not None and (parts.port is None or parts.port > 0)
        options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        return False
    database = parts.path.removeprefix("/")
    allowed = TLS_FILES if parts.scheme == "rediss" else frozenset()
    return known and (not database or database.isdecimal()) and options.keys() <= allowed
