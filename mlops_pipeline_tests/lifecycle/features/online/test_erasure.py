"""Forgetting one customer in the online store: records, recent events, marks of a killed run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.lifecycle.compliance import erasure
from mlops_pipeline.lifecycle.features.online.materialize import materialize
from mlops_pipeline.lifecycle.ingest.accepted import accepted_sources
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.lifecycle.compliance.erasure_world import (
    CUSTOMERS,
    GONE,
    erase,
    ingest_and_accept,
    lifecycle,
    visits,
)
from mlops_pipeline_tests.lifecycle.features.online.worlds import STORES, opened
from mlops_pipeline_tests.worlds import NOW, VISITS, World, on, shop, utc


@pytest.fixture(params=STORES)
def online(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Any, Callable[..., World]]]:
    """A store of each kind, and a function that makes the shop under a name of its own."""
    import uuid

    name = f"test_{uuid.uuid4().hex}"
    with opened(request.param, tmp_path, name) as store:
        monkeypatch.setattr(erasure, "open_writer", lambda _settings: _Shared(store))

        def make(**sections: Any) -> World:
            found = World(shop(name=name, **sections), tmp_path / "online")
            found.deliver("visits", visits(CUSTOMERS, (1, 2, 3)))
            return found

        yield store, make


class _Shared:
    """The test's own store, that a `with` block does not close."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __enter__(self) -> Any:
        return self._store

    def __exit__(self, *_error: object) -> None:
        return None


def bring_online(world: World, store: Any, **options: Any) -> Any:
    with world.open() as work, OpsDatabase.open(world.settings.database_url) as ops:
        accepted = accepted_sources(ops, world.use_case)
        return materialize(work, accepted, store, through=NOW, now=NOW, **options)


def read(world: World, store: Any, names: list[str]) -> list[tuple[Any, ...]]:
    from mlops_pipeline.lifecycle.features.online.reader import OnlineReader

    reader = OnlineReader(world.use_case, store, now=lambda: utc(on(3, 20)))
    found = reader.read([str(item) for item in CUSTOMERS], names)
    return [tuple(item.values[name].value for name in names) for item in found]


def test_stored_records_are_forgotten_and_do_not_come_back(online: Any) -> None:
    store, make = online
    world = make()
    lifecycle(world)
    bring_online(world, store)
    before = read(world, store, ["visits", "spent"])
    (erased,) = erase(world)
    assert erased.online == 1
    assert bring_online(world, store).is_new is False
    assert read(world, store, ["visits", "spent"]) == [before[0], (None, None), before[2]]


def test_recent_events_are_forgotten_and_do_not_come_back(online: Any) -> None:
    store, make = online
    columns = {"visits_30d": {"aggregate": "count", "window_days": 30, "dtype": "int64"}}
    world = make(
        grid={"every": "event", "period": "month"},
        sources={"visits": {**VISITS, "key": ["customer", "at"]}},
        views={
            "recent": {"source": "visits", "online": True, "freshness_days": 60, "columns": columns}
        },
    )
    with world.open() as work, OpsDatabase.open(world.settings.database_url) as ops:
        ingest_and_accept(work, ops)
    bring_online(world, store)
    assert read(world, store, ["visits_30d"]) == [(1,), (1,), (1,)]
    (erased,) = erase(world)
    assert erased.online == 3
    world.deliver("visits", visits(CUSTOMERS, (4,)))
    with world.open() as work, OpsDatabase.open(world.settings.database_url) as ops:
        ingest_and_accept(work, ops)
    assert bring_online(world, store).events == 2
    assert read(world, store, ["visits_30d"]) == [(1,), (None,), (1,)]


def test_checkpoint_of_a_killed_materialization_does_not_name_the_person(online: Any) -> None:
    store, make = online
    world = make()
    lifecycle(world)
    table = _killed_at(world, store, GONE)
    assert f'"{GONE}"' in str(store.checkpoint(table))
    erase(world)
    assert f'"{GONE}"' not in str(store.checkpoint(table))
    assert bring_online(world, store).entities == 2


def _killed_at(world: World, store: Any, customer: int) -> Any:
    """Materialize record by record until the customer's is written; return the table."""
    from mlops_pipeline.lifecycle.features.online.layout import online_layout

    records = online_layout(world.use_case).records()
    assert records is not None
    write = store.write_records
    written: list[str] = []

    def write_some(table: Any, chunk: Any, **options: Any) -> int:
        if str(customer) in written:
            raise KeyboardInterrupt
        written.extend(item.entity for item in chunk)
        return int(write(table, chunk, **options))

    store.write_records = write_some
    with pytest.raises(KeyboardInterrupt):
        bring_online(world, store, chunk_rows=1)
    store.write_records = write
    return records[0]
