"""Markers of tables as JSON, and which tables of a use case are in force.

A table that the present definitions no longer use is retired: it stays for a day, so that services
that still have the earlier configuration go on reading, and is dropped by the next run after that.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from mlops_pipeline.errors import OnlineCorruptError
from mlops_pipeline.lifecycle.features.online.layout import DAY_US
from mlops_pipeline.stores.online.interface import OnlineStore, OnlineTable

RETIRED_US = DAY_US  # time enough to bring a new configuration to every service
IN_FORCE = "in_force"  # the name under which the list of tables is kept
Marker = TypeVar("Marker")


@dataclass(frozen=True)
class RecordsMarker:
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
class StreamMarker:
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


def read_marker(store: OnlineStore, table: OnlineTable, kind: type[Marker]) -> Marker | None:
    """Return a table's marker as the dataclass that was written; None where there is none.

    Raises
    ------
    OnlineCorruptError
        When it is not one.
    """
    text = store.checkpoint(table)
    if text is None:
        return None
    try:
        return kind(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise OnlineCorruptError(
            "a marker of the online store is damaged",
            where=f"table {table.name} of {table.use_case}",
            expected=f"the JSON of a {kind.__name__}",
            found=type(error).__name__,
            way_out="remove the table's keys and run `mlops features materialize`",
        ) from error


def written(marker: Any) -> str:
    """Return a dataclass as the text of a marker."""
    return json.dumps(asdict(marker))


def tables_held(store: OnlineStore, use_case: str) -> list[str]:
    """Return the names of the tables in force, and of those retired."""
    held = read_marker(store, OnlineTable(use_case, IN_FORCE), _InForce) or _InForce()
    return [*held.tables, *held.retired]


def put_in_force(
    store: OnlineStore, use_case: str, tables: Iterable[OnlineTable], *, now_us: int
) -> None:
    """Say that these tables are complete; retire the others, drop those retired long ago."""
    listed = OnlineTable(use_case, IN_FORCE)
    held = read_marker(store, listed, _InForce) or _InForce()
    names = [table.name for table in tables]
    retired = {
        name: held.retired.get(name, now_us)
        for name in (*held.tables, *held.retired)
        if name not in names
    }
    for name, since_us in list(retired.items()):
        if now_us - since_us >= RETIRED_US:
            store.drop(OnlineTable(use_case, name))
            del retired[name]
    found = _InForce(names, retired)
    if found != held:
        store.set_checkpoint(listed, written(found))
