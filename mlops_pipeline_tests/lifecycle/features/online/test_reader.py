"""Reading online: status and time of each value, unknown entities, and a store that fails."""

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.errors import (
    DataError,
    NotFoundError,
    OnlineCorruptError,
    OnlineDefinitionError,
    OnlineUnavailableError,
)
from mlops_pipeline.lifecycle.bookkeeping import feature_uses
from mlops_pipeline.lifecycle.features.online.layout import online_layout
from mlops_pipeline.lifecycle.features.online.materialize import materialize, open_writer
from mlops_pipeline.lifecycle.features.online.plan import FeatureValue
from mlops_pipeline.lifecycle.features.online.reader import (
    OnlineFeatures,
    OnlineReader,
    open_reader,
)
from mlops_pipeline.stores.online.interface import OnlineStore
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline_tests.core.features.deliveries import PAYMENTS
from mlops_pipeline_tests.lifecycle.features.online.test_materialize import payment
from mlops_pipeline_tests.worlds import (
    DAY,
    HOUR,
    NOW,
    PLANS,
    TICK,
    World,
    accept_all,
    ingest_all,
    on,
    plan,
    shop,
    utc,
)

MIDNIGHT = utc(on(3, 10))  # of the stored values
READ_AT = utc(on(3, 10, 6))
COUNT = {"aggregate": "count", "window_days": 2, "dtype": "int64"}


def case_of(use_case: str) -> UseCase:
    """An event grid with views of every kind."""
    tier = {"aggregate": "last", "of": "tier", "dtype": "string"}
    home = {"aggregate": "min", "of": "tier", "dtype": "string"}
    views: dict[str, Any] = {
        "plan": {
            **{"source": "plans", "refresh": "daily", "freshness_days": 2},
            "columns": {"tier": tier},
        },
        "home": {
            **{"source": "plans", "refresh": "daily", "freshness_days": 1, "ttl_days": 3},
            "columns": {"home": home, "tenure": {"aggregate": "days_since_last"}},
        },
        "recent": {"source": "payments", "freshness_days": 4, "columns": {"count_2d": COUNT}},
        "asked": {
            "source": "payments",
            "request_time": True,
            "columns": {
                "size": {"of": "amount * units", "precision": 2},
                "how": {"of": "case when at is null then 'never' else kind end", "dtype": "string"},
            },
        },
        "hidden": {"source": "plans", "online": False, "columns": {"secret": tier}},
    }  # fmt: skip
    return shop(
        name=use_case,
        entity={"name": "buyer", "key": "customer"},
        grid={"every": "event"},
        population={"source": "payments"},
        sources={"payments": {**PAYMENTS, "lateness_days": 5}, "plans": PLANS},
        label={"kind": "event_present", "source": "payments", "horizon_days": 30},
        views={name: {"online": True, **view} for name, view in views.items()},
        derived={
            "size_by_count": {"expression": "size / nullif(count_2d, 0)"},
            "tenure_weeks": {"expression": "tenure / 7", "precision": 2},
            "is_basic": {"expression": "case when tier = 'basic' then 1 else 0 end"},
            "weeks_and_basic": {"expression": "tenure_weeks + is_basic"},
            "whispered": {"expression": "case when secret = 'x' then 1 else 0 end"},
        },
        protected={"region": {"source": "plans", "of": "region"}},
    )


@pytest.fixture
def world(use_case: str, tmp_path: Path) -> World:
    world = World(case_of(use_case), tmp_path)
    world.deliver("plans", [plan(on(3, 3)), plan(on(3, 8), 2, tier=None), plan(on(3, 10), 9)])
    rows = [payment(n, on(3, 8) + n * 4 * HOUR, customer=1) for n in range(12)]
    world.deliver("payments", [*rows, payment(99, on(3, 10, 5), customer=3)])
    return world


@pytest.fixture
def filled(world: World, store: OnlineStore) -> OnlineReader:
    fill(world, store)
    return OnlineReader(world.use_case, store, now=lambda: READ_AT)


def fill(world: World, store: OnlineStore) -> None:
    with world.open() as work:
        ingest_all(work, READ_AT)
        done = materialize(work, accept_all(work, READ_AT), store, through=READ_AT, now=READ_AT)
    assert done.feature_time == MIDNIGHT


def one(
    reader: OnlineReader, entity: int | str, *names: str, at: datetime | None = None, **options: Any
) -> OnlineFeatures:
    return reader.read([entity], names, at=at, **options)[0]


def test_names_are_online_views_and_what_needs_no_others(filled: OnlineReader) -> None:
    views = ("tier", "home", "tenure", "count_2d", "size", "how")
    derived = ("size_by_count", "tenure_weeks", "is_basic", "weeks_and_basic")
    assert filled.names == (*views, *derived)


def test_values_carry_status_and_time(filled: OnlineReader) -> None:
    request = {"amount": 3, "units": 2, "at": on(3, 10), "kind": "web"}
    found = filled.read([1], filled.names, request=[request])[0]
    assert (found.entity, found.read_at, found.is_known) == ("1", READ_AT, True)
    assert dict(found.values) == {
        "tier": FeatureValue("basic", "fresh", MIDNIGHT),
        "home": FeatureValue("basic", "fresh", MIDNIGHT),
        "tenure": FeatureValue(7.0, "fresh", MIDNIGHT),
        "count_2d": FeatureValue(10, "fresh", READ_AT),
        "size": FeatureValue(6.0, "fresh", READ_AT),
        "how": FeatureValue("web", "fresh", READ_AT),
        "size_by_count": FeatureValue(0.6, "fresh", READ_AT),
        "tenure_weeks": FeatureValue(1.0, "fresh", MIDNIGHT),
        "is_basic": FeatureValue(1.0, "fresh", MIDNIGHT),
        "weeks_and_basic": FeatureValue(2.0, "fresh", MIDNIGHT),
    }
    assert list(found.values) == list(filled.names)


def test_many_entities_read_at_once_have_the_values_of_each(filled: OnlineReader) -> None:
    entities = [1, 2, 3, 77] * 16
    requests = [
        {
            "amount": None if number % 5 == 0 else number * 0.7,
            "units": number % 3 or None,
            "at": on(3, 10) if number % 2 else None,
            "kind": "web",
        }
        for number in range(len(entities))
    ]
    at_once = filled.read(entities, filled.names, request=requests)
    each = [
        filled.read([entity], filled.names, request=[request])[0]
        for entity, request in zip(entities, requests, strict=True)
    ]
    assert list(map(repr, at_once)) == list(map(repr, each))


def test_order_and_prefix_of_names_are_those_asked(filled: OnlineReader) -> None:
    found = one(filled, "1", "count_2d", "buyer:tier")
    assert list(found.values) == ["count_2d", "tier"]


def test_views_grow_stale_and_are_dropped_each_at_its_age(filled: OnlineReader) -> None:
    names = ("tier", "home", "tenure_weeks", "is_basic", "weeks_and_basic")

    def statuses(age: timedelta) -> list[str]:
        found = one(filled, 1, *names, at=MIDNIGHT + age)
        return [found.values[name].status for name in names]

    assert statuses(DAY) == ["fresh"] * 5
    assert statuses(DAY + TICK) == ["fresh", "stale", "stale", "fresh", "stale"]
    assert statuses(2 * DAY + TICK) == ["stale"] * 5
    assert statuses(3 * DAY) == ["stale", "missing", "missing", "stale", "missing"]
    dropped = one(filled, 1, "tenure_weeks", "home", at=MIDNIGHT + 3 * DAY)
    assert set(dropped.values.values()) == {FeatureValue(None, "missing", None)}


def test_counts_of_a_silent_stream_are_stale_and_those_of_its_newest_event(
    filled: OnlineReader,
) -> None:
    newest = utc(on(3, 10, 5))  # event of another customer: what the stream knows
    fresh, stale = (
        one(filled, 1, "count_2d", at=newest + age) for age in (4 * DAY, 4 * DAY + TICK)
    )
    assert fresh.values["count_2d"] == (0, "fresh", newest + 4 * DAY)
    assert stale.values["count_2d"] == (10, "stale", newest)
    assert one(filled, 1, "count_2d", at=newest).values["count_2d"] == (10, "fresh", newest)


def test_value_that_is_null_is_not_missing(filled: OnlineReader) -> None:
    found = one(filled, 2, "tier", "is_basic")
    assert found.values["tier"] == (None, "fresh", MIDNIGHT)
    assert found.values["is_basic"] == (0.0, "fresh", MIDNIGHT)


def test_unknown_entity_has_only_what_the_request_brings(filled: OnlineReader) -> None:
    request = {"amount": 3.0, "units": 2, "at": None, "kind": None}
    found = filled.read([77], filled.names, request=[request])[0]
    assert not found.is_known
    present = {name for name, item in found.values.items() if item.status != "missing"}
    assert present == {"size", "how"}
    assert found.values["how"].value == "never"
    assert found.values["count_2d"] == (None, "missing", None)


def test_entity_with_events_only_is_known(
    world: World, filled: OnlineReader, store: OnlineStore
) -> None:
    table = online_layout(world.use_case).records()
    assert table is not None
    assert one(filled, 3, "count_2d").values["count_2d"].value == 1
    store.purge(table[0], now_us=0)
    assert one(filled, 3, "tier").is_known


def test_values_of_a_later_time_are_not_given_to_an_earlier_read(filled: OnlineReader) -> None:
    assert one(filled, 1, "tier", at=MIDNIGHT - TICK).values["tier"].status == "missing"


def test_moment_whose_events_are_gone_is_an_error(filled: OnlineReader) -> None:
    with pytest.raises(DataError, match="no longer held"):
        one(filled, 1, "count_2d", at=READ_AT - 6 * DAY)


def test_unknown_feature_names_the_nearest(filled: OnlineReader) -> None:
    with pytest.raises(NotFoundError, match="there is no feature 'teir'") as caught:
        one(filled, 1, "teir")
    assert caught.value.way_out == "did you mean 'tier'?"


@pytest.mark.parametrize("name", ["secret", "whispered"])
def test_feature_that_is_not_online_says_so(filled: OnlineReader, name: str) -> None:
    with pytest.raises(NotFoundError, match=f"the feature '{name}' is not online"):
        one(filled, 1, name)


def test_protected_attribute_is_not_online(filled: OnlineReader) -> None:
    with pytest.raises(NotFoundError):
        one(filled, 1, "region")


@pytest.mark.parametrize(
    ("request_rows", "found"),
    [
        (None, "the request lacks a column"),
        ([{"amount": 1.0}], "the request lacks a column"),
        ([{"amount": "1", "units": 1}], "not of its column's type"),
        ([{"amount": 1.0, "units": True}], "not of its column's type"),
        ([{"amount": 1.0, "units": 1.6}], "not of its column's type"),
        ([{"amount": 1.0, "units": 2**63}], "not of its column's type"),
        ([], "one mapping for each entity"),
    ],
)
def test_request_that_does_not_fit_is_an_error(
    filled: OnlineReader, request_rows: Any, found: str
) -> None:
    with pytest.raises(DataError, match=found):
        filled.read([1], ["size"], request=request_rows)


@pytest.mark.parametrize("key", ["somebody", "17.6", "1e3"])
def test_key_that_is_no_number_is_an_error_without_its_text(filled: OnlineReader, key: str) -> None:
    with pytest.raises(DataError, match="no whole number") as caught:
        one(filled, key, "tier")
    assert key not in str(caught.value)


def test_store_never_filled_is_an_error(world: World, store: OnlineStore) -> None:
    reader = OnlineReader(world.use_case, store, now=lambda: READ_AT)
    for name in ("tier", "count_2d"):
        with pytest.raises(OnlineDefinitionError, match="no complete features"):
            one(reader, 1, name)


# a store that fails: typed errors, or marked defaults


def files(world: World) -> Settings:
    settings = world.settings
    with open_writer(settings) as store:
        fill(world, store)
    return settings


def test_store_that_is_gone_is_an_error_or_a_default(world: World) -> None:
    settings = files(world)
    with open_reader(world.use_case, settings) as reader:
        assert one(reader, 1, "tier").is_known
        for path in world.folder.glob("online.db*"):
            path.unlink()
        with pytest.raises(OnlineUnavailableError):
            one(reader, 1, "tier")
        request = {"amount": 3.0, "units": 2, "at": None, "kind": None}
        found = one(reader, 1, *reader.names, request=[request], on_error="default")
    assert not found.is_known
    assert found.values["tier"] == found.values["count_2d"] == (None, "missing", None)
    assert found.values["size"] == (6.0, "fresh", NOW)


def test_damaged_record_is_an_error_or_a_default_of_its_entity(world: World) -> None:
    settings = files(world)
    with closing(sqlite3.connect(world.folder / "online.db")) as connection, connection:
        connection.execute("UPDATE records SET blob = substr(blob, 2) WHERE entity = '1'")
    with open_reader(world.use_case, settings) as reader:
        with pytest.raises(OnlineCorruptError):
            reader.read([1, 2], ["tier"], at=READ_AT)
        first, second = reader.read([1, 2], ["tier"], at=READ_AT, on_error="default")
    assert first.values["tier"].status == "missing"
    assert second.values["tier"].status == "fresh"


def test_damaged_event_is_an_error_or_a_default_of_the_counts(world: World) -> None:
    settings = files(world)
    with closing(sqlite3.connect(world.folder / "online.db")) as connection, connection:
        connection.execute("UPDATE events SET payload = substr(payload, 2) WHERE entity = '1'")
    with open_reader(world.use_case, settings) as reader:
        with pytest.raises(OnlineCorruptError):
            one(reader, 1, "count_2d", at=READ_AT)
        found = one(reader, 1, "count_2d", "tier", at=READ_AT, on_error="default")
    assert [item.status for item in found.values.values()] == ["missing", "fresh"]


@pytest.mark.parametrize("text", ["garbage", "", "[]", "{}", '{"rows": 1}'])
def test_damaged_checkpoint_is_an_error_or_a_default(world: World, text: str) -> None:
    settings = files(world)
    with closing(sqlite3.connect(world.folder / "online.db")) as connection, connection:
        connection.execute("UPDATE tables SET progress = ? WHERE name LIKE 'events%'", [text])
    with open_reader(world.use_case, settings) as reader:
        with pytest.raises(OnlineCorruptError, match="checkpoint"):
            one(reader, 1, "count_2d", at=READ_AT)
        found = one(reader, 1, "count_2d", "tier", at=READ_AT, on_error="default")
    assert [item.status for item in found.values.values()] == ["missing", "fresh"]


def test_reading_is_a_use_of_the_features(world: World) -> None:
    settings = files(world)
    with open_reader(world.use_case, settings) as reader:
        one(reader, 1, "tier", "count_2d", at=READ_AT)
    with OpsDatabase.open(settings.database_url) as ops:
        uses = feature_uses(ops, world.use_case.name)
    assert {use.feature for use in uses if use.reader == "online"} == {"tier", "count_2d"}
