"""What the online store answers is what the lake says of the moment that it states."""

import random
import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.data.periods import following
from mlops_pipeline.stores.datasets import fetch_dataset
from mlops_pipeline.stores.offline import build_features, features_uri
from mlops_pipeline.stores.online.layout import online_layout
from mlops_pipeline.stores.online.live_events import LiveEvents
from mlops_pipeline.stores.online.materialize import materialize
from mlops_pipeline.stores.online.reader import OnlineFeatures, OnlineReader
from mlops_pipeline.stores.simulated import write_churn
from mlops_pipeline.stores.workspace import Workspace
from mlops_pipeline_tests.stores.online.payments import EVERY, FIRST, Delivery, Payments
from mlops_pipeline_tests.stores.online.worlds import (
    STORES,
    configured,
    differences,
    moments_between,
    offline,
    opened,
    publish,
)
from mlops_pipeline_tests.stores.test_datasets import REAL, needs_real_files
from mlops_pipeline_tests.worlds import DAY, NOW, Row, World, accept_all, ingest_all

PAIRS = 10_000
AT_ONCE = 100  # entities of one read
ROUNDS = 5  # deliveries of payments


@pytest.fixture(scope="module")
def churn(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("churn")
    write_churn(folder / "sources" / "churn", customers=800, months=14, seed=7)
    return _ingested(World(configured("churn", start=date(2023, 11, 1)), folder))


@pytest.fixture(scope="module")
def retail(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("retail")
    fetch_dataset("online_retail", folder, from_folder=REAL)
    return _ingested(World(configured("online_retail", start=date(2011, 11, 1)), folder))


def _ingested(world: World) -> World:
    with world.open() as work:
        ingest_all(work)
        publish(world.settings, world.use_case, accept_all(work))
    return world


def assert_equal_by_month(
    world: World, store_kind: str, folder: Path, months: list[datetime]
) -> None:
    """Month by month: build, materialize, read random entities at random moments, compare."""
    case, draw = world.use_case, random.Random(11)
    answers: list[OnlineFeatures] = []
    with world.open() as work, opened(store_kind, folder, case.name) as store:
        shutil.rmtree(features_uri(work), ignore_errors=True)
        accepted = accept_all(work)
        keys = _entities(work, case)
        reader = OnlineReader(case, store, now=lambda: months[-1])
        for as_of in months:
            build_features(work, accepted, as_of)
            assert materialize(
                work, accepted, store, through=as_of, now=as_of, chunk_rows=300
            ).is_new
            for _ in range(0, PAIRS // len(months) + AT_ONCE, AT_ONCE):
                at = moments_between(draw, as_of, following(as_of, "month"))
                answers += reader.read(draw.choices(keys, k=AT_ONCE), reader.names, at=at)
    held = [answer for answer in answers if answer.is_known]
    assert len(answers) >= PAIRS
    assert len(held) > PAIRS / 3
    times = [answer.values[case.features[0]].feature_time for answer in held]
    assert set(months) <= set(times)
    pairs = [(answer.entity, time) for answer, time in zip(held, times, strict=True) if time]
    expected = offline(world.settings, case, pairs, case.features)
    assert set(case.features) == set(held[0].values)
    assert differences(held, expected) == []


def _entities(work: Workspace, case: UseCase) -> list[str]:
    name, key = case.population.source, case.entity.key
    rows = work.engine.query(
        f"SELECT DISTINCT {key}::VARCHAR FROM _raw_{name} WHERE {key} > 0 ORDER BY 1"
    )
    return [row[0] for row in rows]


@pytest.mark.parametrize("store_kind", STORES)
def test_churn_online_equals_offline(churn: World, store_kind: str, tmp_path: Path) -> None:
    months = [datetime(2023, 11, 1, tzinfo=UTC), datetime(2023, 12, 1, tzinfo=UTC)]
    months += [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)]
    assert_equal_by_month(churn, store_kind, tmp_path, months)


@needs_real_files
@pytest.mark.parametrize("store_kind", STORES)
def test_online_retail_online_equals_offline(
    retail: World, store_kind: str, tmp_path: Path
) -> None:
    months = [datetime(2011, month, 1, tzinfo=UTC) for month in (11, 12)]
    assert_equal_by_month(retail, store_kind, tmp_path, months)


@pytest.mark.parametrize("store_kind", STORES)
def test_fraud_online_equals_offline(store_kind: str, tmp_path: Path) -> None:
    """Read after each push, and after each materialization; compare with the lake in the end."""
    payments, draw = Payments(tmp_path), random.Random(3)
    world = payments.world
    case = world.use_case
    live = LiveEvents(case, "transactions")
    asked: list[tuple[OnlineFeatures, Row]] = []
    with world.open() as work, opened(store_kind, tmp_path, case.name) as store:
        reader = OnlineReader(case, store, now=lambda: NOW)
        for number in range(ROUNDS):
            now = FIRST + number * EVERY
            delivery = payments.deliver(now)
            rows = delivery.pushed
            if number:
                for start in range(0, len(rows), 7):
                    live.push(store, rows[start : start + 7], now=now)
                asked += _read(reader, payments, delivery, draw)
            ingest_all(work, now)
            accepted = accept_all(work, now)
            publish(world.settings, case, accepted)
            done = materialize(work, accepted, store, through=now, now=now, chunk_rows=500)
            assert done.feature_time is not None
            asked += _read(reader, payments, delivery, draw)
    assert len(asked) >= PAIRS
    assert _wrong(world, [answer for answer, _ in asked], [row for _, row in asked]) == []


def _read(
    reader: OnlineReader, payments: Payments, delivery: Delivery, draw: random.Random
) -> list[tuple[OnlineFeatures, Row]]:
    """Read all features of some customers at random moments of the last two days."""
    found: list[tuple[OnlineFeatures, Row]] = []
    for _ in range(PAIRS // (20 * (2 * ROUNDS - 1)) + 1):
        at = moments_between(draw, delivery.now - 2 * DAY, delivery.now)
        request = draw.choices(delivery.pushed, k=20)
        keys = draw.choices(payments.customers, k=20)
        answers = reader.read(keys, reader.names, request=request, at=at)
        found += zip(answers, request, strict=True)
    return found


def _wrong(world: World, answers: list[OnlineFeatures], requests: list[Row]) -> list[Any]:
    """Compare each value with the lake at the moment of which the reader said it is."""
    case = world.use_case
    stored = online_layout(case).stored_names
    streamed = list(case.views["velocity"].columns)
    columns = ("amount", "merchant_category", "merchant_risk", "channel", "is_foreign", "hour")
    given = [{name: row[name] for name in columns} for row in requests]
    pairs = [(answer.entity, answer.read_at) for answer in answers]
    at_once = offline(world.settings, case, pairs, case.features, given)
    times = [answer.values[stored[0]].feature_time for answer in answers]
    dated = [(answer, time) for answer, time in zip(answers, times, strict=True) if time]
    as_stated = offline(
        world.settings, case, [(answer.entity, time) for answer, time in dated], stored
    )
    assert len(dated) > PAIRS / 4
    assert any(row["velocity_last_day"] for row in at_once)
    wrong = differences([answer for answer, _ in dated], as_stated)
    for answer, row, time in zip(answers, at_once, times, strict=True):
        is_same_day = time is not None and time <= answer.read_at < time + DAY
        names = case.features if is_same_day else [*streamed, *columns]
        wrong += differences([answer], [{name: row[name] for name in names}])
    return wrong
