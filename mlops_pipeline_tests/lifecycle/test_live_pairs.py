"""Answers of a rollout side by side: who said what, labels that are complete, attributes."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert

from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.core.rollout.assignment import is_canary
from mlops_pipeline.core.rollout.machine import Event
from mlops_pipeline.core.rollout.records import Rollout
from mlops_pipeline.lifecycle.batch_log import CALLER
from mlops_pipeline.lifecycle.bookkeeping import set_pointer
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.features.online.layout import to_us
from mlops_pipeline.lifecycle.labels import deliver_labels
from mlops_pipeline.lifecycle.live_pairs import LivePairs, read_pairs
from mlops_pipeline.lifecycle.rollouts import get_rollout, open_rollout, send
from mlops_pipeline.stores.predictions import SHADOW, LoggedPrediction, PredictionLog
from mlops_pipeline_tests.lifecycle.features.test_label_sources import SENT
from mlops_pipeline_tests.worlds import (
    DAY,
    HOUR,
    NOW,
    PLANS,
    VISITS,
    World,
    accept_all,
    advance,
    on,
    plan,
    shop,
    utc,
    visit,
)

CUSTOMERS = range(40)
REGIONS = ("north", "south")
OPENED = utc(on(3, 1))
POLICY = RolloutPolicy.model_validate(
    {"stages": ["shadow", {"share": 0.5}, "full"], "test_entities": ["39"]}
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Everybody came in January; on the tenth of March every fourth comes again."""
    case = shop(
        sources={"visits": VISITS, "plans": PLANS},
        protected={"region": {"source": "plans", "of": "region"}},
    )
    made = World(case, tmp_path)
    made.deliver("plans", [plan(on(1), who, region=REGIONS[who % 2]) for who in CUSTOMERS])
    made.deliver("visits", [visit(on(1, 5), who) for who in CUSTOMERS]
                 + [visit(on(3, 10), who) for who in CUSTOMERS if who % 4 == 0])  # fmt: skip
    deliver_until(made, on(3, 20))
    return made


def deliver_until(world: World, until: datetime) -> None:
    """A visit and a plan of a stranger: the sources have delivered up to this time."""
    world.deliver("visits", [visit(until, 999)])
    world.deliver("plans", [plan(until, 999)])


@pytest.fixture
def work(world: World) -> Iterator[Context]:
    with world.open() as opened:
        advance(opened, NOW, utc(on(3)))
        yield opened


def open_trial(work: Context) -> Rollout:
    for version, state in ((1, "champion"), (2, "running")):
        open_rollout(
            work.ops, "shop", version, mlflow_run_id="m", dagster_run_id="d",
            fingerprint=f"f{version}", policy=POLICY, state=state,  # type: ignore[arg-type]
            reason="passed", waiting_for=None, now=OPENED,
        )  # fmt: skip
    return get_rollout(work.ops, "shop", 2)


def answer(who: int, at: datetime, **values: Any) -> LoggedPrediction:
    given: dict[str, Any] = {
        "id": f"{to_us(at):014x}{who:04d}", "use_case": "shop", "entity": str(who),
        "at_us": to_us(at), "caller": "test", "request_id": f"{at}/{who}", "place": 0,
        "request_digest": "", "model_version": 1, "role": "champion", "probability": 0.3,
        "decision": False, "threshold": 0.5, "needs_review": False, "reasons": (), "features": {},
        "feature_time_us": None, "latency_us": 900,
    }  # fmt: skip
    return LoggedPrediction(**{**given, **values})


def shadow(made: LoggedPrediction, **values: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "prediction_id": made.id, "use_case": "shop", "entity": made.entity, "version": 2,
        "probability": 0.4, "decision": False, "threshold": 0.5, "is_default": False,
        "failure": None, "latency_us": 700, "at_us": made.at_us,
    }  # fmt: skip
    return {**given, **values}


def log(work: Context, *pairs: tuple[LoggedPrediction, dict[str, Any] | None]) -> None:
    with PredictionLog(work.settings.predictions_url) as opened:
        for made, _ in pairs:
            opened.append([made]).result()
        beside = [row for _, row in pairs if row is not None]
        with opened.transaction(writes=True) as connection:
            connection.execute(insert(SHADOW), beside)


def read(work: Context, rollout: Rollout, learned: datetime = OPENED - DAY) -> LivePairs:
    accepted = {name: item.to_dict() for name, item in accept_all(work).items()}
    set_pointer(work.ops, "shop", "accepted", accepted, run_id="run", now=NOW)
    return read_pairs(work, rollout, (1, 2), learned, until=NOW)


def both(who: int, at: datetime) -> tuple[LoggedPrediction, dict[str, Any]]:
    made = answer(who, at)
    return made, shadow(made)


def test_label_is_complete_when_its_horizon_is_over_and_was_delivered(
    world: World, work: Context
) -> None:
    rollout = open_trial(work)
    log(work, *(both(who, utc(on(3, 2))) for who in range(8)))
    before = read(work, rollout)
    assert len(before.pairs) == 8
    assert before.through == utc(on(3, 20))
    assert not before.pairs.is_complete.any()  # the positives are known, and do not count
    deliver_until(world, on(4, 2))
    advance(work, NOW, utc(on(4)))
    after = read(work, rollout)
    assert after.pairs.is_complete.all()
    assert after.pairs.label.tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
    earlier = after.until(utc(on(3, 31)), [(OPENED, 0.0)])
    assert len(earlier.pairs) == 8
    assert not earlier.pairs.is_complete.any()
    assert len(after.until(utc(on(3, 1, 12)), []).pairs) == 0


def test_label_before_or_after_the_horizon_is_none_of_the_answer(
    world: World, work: Context
) -> None:
    rollout = open_trial(work)
    times = [utc(on(3, 10)) - 30 * DAY, utc(on(3, 10)), utc(on(3, 10)) + HOUR]
    log(work, both(4, OPENED), both(4, times[1]), both(4, times[2]))
    deliver_until(world, on(4, 12))
    advance(work, NOW, utc(on(4)))
    assert read(work, rollout).pairs.label.tolist() == [1, 1, 0]


def test_label_that_a_version_may_have_learned_from_does_not_count(
    world: World, work: Context
) -> None:
    rollout = open_trial(work)
    log(work, both(4, utc(on(3, 2))))
    deliver_until(world, on(4, 12))
    advance(work, NOW, utc(on(4)))
    assert not read(work, rollout, learned=utc(on(4, 2))).pairs.is_complete.any()


def test_each_side_is_what_that_version_said_whoever_answered(work: Context) -> None:
    rollout = open_trial(work)
    send(work.ops, rollout, Event("pass", "mlops", "good", utc(on(3, 3))))
    rollout = get_rollout(work.ops, "shop", 2)
    at = utc(on(3, 4))
    new = next(who for who in CUSTOMERS if is_canary("f2", str(who), 0.5))
    old = next(who for who in CUSTOMERS if not is_canary("f2", str(who), 0.5))
    canary = answer(new, at, model_version=2, role="canary", probability=0.8, decision=True)
    lost = answer(old, at + HOUR, model_version=None, role="default", probability=None)
    failed = answer(new, at + 2 * HOUR)
    nobody = answer(new, at + 4 * HOUR, model_version=None, role="default", probability=None)
    log(
        work,
        (canary, shadow(canary, version=1, probability=0.2)),
        (lost, shadow(lost, probability=0.6, decision=True)),
        (failed, shadow(failed, probability=None, failure="ValueError")),
        (answer(old, at + 3 * HOUR), None),
        (nobody, shadow(nobody, probability=None, is_default=True)),
    )
    found = read(work, rollout)
    pairs = found.pairs
    assert found.unpaired == 1
    assert pairs.is_canary.tolist() == [True, False, True, True]
    assert pairs.share.tolist() == [0.5] * 4
    np.testing.assert_array_equal(pairs.champion.probability, [0.2, np.nan, 0.3, np.nan])
    np.testing.assert_array_equal(pairs.challenger.probability, [0.8, 0.6, np.nan, np.nan])
    assert pairs.champion.is_default.tolist() == [False, True, False, True]
    assert pairs.challenger.is_default.tolist() == [False, False, False, True]
    assert pairs.challenger.is_error.tolist() == [False, False, True, False]
    assert pairs.challenger.decision.tolist() == [True, True, False, False]
    assert pairs.champion.latency_us.tolist() == [700, 900, 900, 900]
    assert pairs.challenger.latency_us.tolist() == [900, 700, 700, 700]


def test_test_entities_batches_and_answers_before_are_no_evidence(work: Context) -> None:
    rollout = open_trial(work)
    at = utc(on(3, 4))
    batch = answer(1, at, caller=CALLER)
    log(work, both(39, at), (batch, shadow(batch)), both(2, OPENED - timedelta(minutes=1)),
        both(3, at))  # fmt: skip
    found = read(work, rollout)
    assert found.pairs.entity.tolist() == ["3"]
    assert found.unpaired == 0


def test_attributes_are_joined_and_unknown_for_a_stranger(work: Context) -> None:
    rollout = open_trial(work)
    log(work, *(both(who, utc(on(3, 4))) for who in (1, 2, 77)))
    assert read(work, rollout).pairs.protected["region"].tolist() == ["south", "north", None]


def test_nothing_logged_is_nothing_paired(work: Context) -> None:
    found = read(work, open_trial(work))
    assert (len(found.pairs), found.unpaired) == (0, 0)
    assert found.pairs.protected["region"].tolist() == []


def test_event_that_was_scored_is_no_outcome_of_itself(tmp_path: Path) -> None:
    world = World(shop(grid={"every": "event", "start": "2025-01-01"}), tmp_path)
    at = on(3, 10)
    world.deliver("visits", [visit(on(1, 5), 4), visit(at, 4), visit(on(4, 12), 999)])
    with world.open() as work:
        advance(work, NOW, utc(on(4)))
        rollout = open_trial(work)
        log(work, both(4, utc(at) - HOUR), both(4, utc(at)))
        found = read(work, rollout).pairs
    assert found.is_complete.all()
    assert found.label.tolist() == [1, 0]


def test_label_of_a_column_counts_once_it_is_known(tmp_path: Path) -> None:
    people = {
        "uri": "people",
        "columns": {"customer": "int64", "tier": "string", "left": "boolean"},
        "key": ["customer"],
    }
    told = {**SENT, "key": ["customer"], "columns": {**SENT["columns"], "left": "boolean"}}
    label = {"kind": "column", "source": "people", "column": "left", "also": ["sent"]}
    last = {"aggregate": "last", "of": "tier", "dtype": "string"}
    case = shop(
        grid={"every": "once"},
        population={"source": "people"},
        sources={"people": people, "sent": told},
        label={**label, "positive": True, "negative": False},
        views={"history": {"source": "people", "columns": {"tier": last}}},
        split={"method": "random"},
    )
    world = World(case, tmp_path)
    left = (None, None, False)  # the last was known when both versions were trained
    world.deliver(
        "people",
        [{"customer": n, "tier": "basic", "left": value} for n, value in enumerate(left)],
    )
    world.deliver("sent", [])
    rows = [{"customer": n, "at": "2025-05-01", "left": n == 1} for n in range(2)]
    deliver_labels(case, world.settings, "sent", rows, now=utc(on(5, 2)))
    with world.open() as work:
        advance(work, utc(on(6)))
        rollout = open_trial(work)
        log(work, *(both(who, utc(on(3, 4))) for who in range(3)))
        found = read(work, rollout).pairs
    assert found.entity.tolist() == ["0", "1", "2"]
    assert found.is_complete.tolist() == [True, True, False]
    assert found.label[:2].tolist() == [0, 1]
