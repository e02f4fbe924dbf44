"""What the online store answers is what the lake says of the moment that it states."""

import random
import shutil
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.core.data.periods import following
from mlops_pipeline.demo.datasets import fetch_dataset
from mlops_pipeline.demo.simulated import write_churn
from mlops_pipeline.lifecycle.context import Context, Snapshot
from mlops_pipeline.lifecycle.features.offline import build_features, features_uri
from mlops_pipeline.lifecycle.features.online.layout import LiveEvents, online_layout
from mlops_pipeline.lifecycle.features.online.materialize import materialize
from mlops_pipeline.lifecycle.features.online.reader import OnlineFeatures, OnlineReader
from mlops_pipeline_tests.demo.test_datasets import REAL, needs_real_files
from mlops_pipeline_tests.lifecycle.features.online.payments import EVERY, FIRST, Delivery, Payments
from mlops_pipeline_tests.lifecycle.features.online.worlds import (
    STORES,
    configured,
    differences,
    moments_between,
    offline,
    opened,
    publish,
)
from mlops_pipeline_tests.sizes import size
from mlops_pipeline_tests.worlds import DAY, HOUR, NOW, Row, World, accept_all, ingest_all

PAIRS = size(1_500, 10_000)
pytestmark = [pytest.mark.campaign, pytest.mark.sized]
AT_ONCE = 100  # entities of one read
ROUNDS = 5  # deliveries of payments
INGESTED_AFTER = timedelta(minutes=10)


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
    held: list[OnlineFeatures] = []
    with world.open() as work, opened(store_kind, folder, case.name) as store:
        shutil.rmtree(features_uri(work), ignore_errors=True)
        accepted = accept_all(work)
        keys = _entities(work, case)
        reader = OnlineReader(case, store, now=lambda: months[-1])
        members: set[str] = set()
        for number, as_of in enumerate(months, 1):
            build_features(work, Snapshot(as_of, accepted))
            assert materialize(
                work, accepted, store, through=as_of, now=as_of, chunk_rows=300
            ).is_new
            members |= _members(work, case, as_of)
            while len(held) < PAIRS * number / len(months):
                at = moments_between(draw, as_of, following(as_of, "month"))
                answers = reader.read(draw.choices(keys, k=AT_ONCE), reader.names, at=at)
                assert all(one.is_known == (one.entity in members) for one in answers)
                held += [answer for answer in answers if answer.is_known]
    assert len(held) >= PAIRS
    assert not members.issuperset(keys)  # some are unknown, too
    times = [answer.values[case.features[0]].feature_time for answer in held]
    assert set(months) <= set(times)
    pairs = [(answer.entity, time) for answer, time in zip(held, times, strict=True) if time]
    expected = offline(world.settings, case, pairs, case.features)
    assert set(case.features) == set(held[0].values)
    assert differences(held, expected) == []


def _members(work: Context, case: UseCase, as_of: datetime) -> set[str]:
    """The entities of a finished period."""
    state = work.lake.state(features_uri(work))
    assert state is not None
    rows = work.engine.query(
        f"SELECT {case.entity.key}::VARCHAR FROM {work.engine.scan(state)} "
        f"WHERE as_of = TIMESTAMP '{as_of:%Y-%m-%d}'"
    )
    return {row[0] for row in rows}


def _entities(work: Context, case: UseCase) -> list[str]:
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
    """Read after each push, and after each materialization; compare with the lake in the end.

    What is pushed is ingested later, and some of it late. A few reads come so long after the last
    push that the stream counts as silent.
    """
    payments, draw = Payments(tmp_path), random.Random(3)
    world = payments.world
    case = world.use_case
    live = LiveEvents(case, "transactions")
    asked: list[tuple[OnlineFeatures, Row]] = []
    late = 0
    with world.open() as work, opened(store_kind, tmp_path, case.name) as store:
        reader = OnlineReader(case, store, now=lambda: NOW)
        for number in range(ROUNDS):
            now = FIRST + number * EVERY
            delivery = payments.deliver(now)
            rows = delivery.pushed
            if number:
                for start in range(0, len(rows), 7):
                    late += live.push(store, rows[start : start + 7], now=now).late
                asked += _read(reader, payments, delivery, draw)
            then = now + INGESTED_AFTER
            ingest_all(work, then)
            accepted = accept_all(work, then)
            publish(world.settings, case, accepted)
            done = materialize(work, accepted, store, through=then, now=then, chunk_rows=500)
            assert done.feature_time is not None
            asked += _read(reader, payments, delivery, draw)
    assert late > ROUNDS
    assert len(asked) >= PAIRS
    assert _wrong(world, [answer for answer, _ in asked], [row for _, row in asked]) == []


def _read(
    reader: OnlineReader, payments: Payments, delivery: Delivery, draw: random.Random
) -> list[tuple[OnlineFeatures, Row]]:
    """Read all features of some customers at random moments of the last two days, and later."""
    found: list[tuple[OnlineFeatures, Row]] = []
    for number in range(PAIRS // (35 * (2 * ROUNDS - 1)) + 2):
        many = 80 if number % 4 == 1 else 20  # computed as columns, and row by row
        at = moments_between(draw, delivery.now - 2 * DAY, delivery.now)
        if number == 0:
            at = moments_between(draw, delivery.now + 2 * HOUR, delivery.now + 8 * HOUR)
        request = draw.choices(delivery.pushed, k=many)
        keys = draw.choices(payments.customers, k=many)
        answers = reader.read(keys, reader.names, request=request, at=at)
        found += zip(answers, request, strict=True)
    return found


def _wrong(world: World, answers: list[OnlineFeatures], requests: list[Row]) -> list[Any]:
    """Compare every value with the lake at the moment of which the reader said it is.

    Not a derived one that is stale for want of a common moment of its inputs.
    """
    case = world.use_case
    stored = set(online_layout(case).stored_names)
    columns = ("amount", "merchant_category", "merchant_risk", "channel", "is_foreign", "hour")
    questions: dict[tuple[str, datetime, int], tuple[OnlineFeatures, Row, list[str]]] = {}
    compared: Counter[str] = Counter()
    for place, (answer, row) in enumerate(zip(answers, requests, strict=True)):
        for name, item in answer.values.items():
            if item.feature_time is None or (name in case.derived and item.status == "stale"):
                continue
            key = (answer.entity, item.feature_time, -1 if name in stored else place)
            questions.setdefault(key, (answer, row, []))[2].append(name)
            compared[f"{item.status} {name}"] += 1
    expected = offline(
        world.settings,
        case,
        [(entity, moment) for entity, moment, _ in questions],
        case.features,
        [{name: row[name] for name in columns} for _, row, _ in questions.values()],
    )
    for name in case.features:
        assert compared[f"fresh {name}"] >= PAIRS / 4, name
    assert compared["stale velocity_last_day"] > 100
    assert any(row["velocity_last_day"] for row in expected)
    return [
        (*key[:2], name, answer.values[name], row[name])
        for (key, (answer, _, names)), row in zip(questions.items(), expected, strict=True)
        for name in names
        if answer.values[name].value != row[name]
    ]
