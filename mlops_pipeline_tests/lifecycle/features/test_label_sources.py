"""Labels of several sources: precedence, each with its own availability, conflicts counted."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.errors import DataError
from mlops_pipeline.lifecycle import retrain
from mlops_pipeline.lifecycle.context import Context, Snapshot
from mlops_pipeline.lifecycle.features.offline import load_frame
from mlops_pipeline.lifecycle.ingest.validation import count_label_conflicts
from mlops_pipeline.lifecycle.labels import deliver_labels
from mlops_pipeline.lifecycle.train import refuse_untrainable
from mlops_pipeline.orchestration.assets.data import data_assets
from mlops_pipeline.orchestration.resources import Platform
from mlops_pipeline_tests.worlds import (
    VISITS,
    Row,
    World,
    accept_all,
    advance,
    materialize_in_process,
    on,
    shop,
    utc,
    visit,
)

SENT: dict[str, Any] = {
    "uri": "sent",
    "columns": {"customer": "int64", "at": "timestamp", "arrived": "timestamp"},
    "event_time": "at",
    "available_at": "arrived",
    "lateness_days": 60,
    "sparse": True,
    "static": True,
}


def sent(at: datetime, arrived: datetime, customer: int = 1, **values: Any) -> Row:
    return {"customer": customer, "at": at, "arrived": arrived, **values}


def event_case(**label: Any) -> UseCase:
    rule = {"kind": "event_present", "source": "visits", "horizon_days": 30, "delay_days": 0}
    return shop(sources={"visits": VISITS, "sent": SENT}, label={**rule, "also": ["sent"], **label})


def column_case(key: list[str], sent_key: list[str]) -> UseCase:
    outcome = {"outcome": "string"}
    visits = {
        **VISITS,
        "key": key,
        "columns": {**VISITS["columns"], **outcome, "outcome_known": "timestamp"},
    }
    other = {
        **SENT,
        "key": sent_key,
        "columns": {**SENT["columns"], **outcome, **({"units": "int64"} if key else {})},
    }
    label = {"kind": "column", "source": "visits", "column": "outcome", "also": ["sent"]}
    return shop(
        sources={"visits": visits, "sent": other},
        grid={"every": "event"},
        label={
            **label, "positive": "yes", "negative": "no", "available_at": "outcome_known",
        },
    )  # fmt: skip


def labels_at(work: Context, as_of: datetime) -> list[tuple[int, int, datetime]]:
    """(entity, label, known at), in the order of the events."""
    frame = load_frame(work, Snapshot(utc(as_of), accept_all(work)))
    known = frame.known_at.astype("datetime64[us]").tolist()
    return list(zip(frame.entity.tolist(), frame.label.tolist(), known, strict=True))


def conflicts_at(work: Context, now: datetime) -> int | None:
    return count_label_conflicts(work, accept_all(work), now=utc(now))


def test_event_counts_whichever_source_tells_of_it(tmp_path: Path) -> None:
    world = World(event_case(), tmp_path)
    world.deliver("visits", [visit(on(1, 5), customer) for customer in (1, 2, 3, 4)])
    world.deliver("visits", [visit(on(2, 10), 1)])
    told = [sent(on(2, 10), on(2, 12), 1), sent(on(2, 11), on(2, 12), 2)]  # the first one twice
    unseen = sent(on(2, 20), on(5, 1), 3)  # not known strictly before as_of
    world.deliver("sent", [*told, unseen])
    with world.open() as work:
        advance(work, utc(on(5)))
        frame = load_frame(work, Snapshot(utc(on(5)), accept_all(work)), only=["2025-02-01"])
        assert frame.entity.tolist() == [1, 2, 3, 4]
        assert frame.label.tolist() == [1, 1, 0, 0]
        assert conflicts_at(work, on(5)) is None


def test_row_of_the_population_is_no_outcome_of_itself_though_sent_again(tmp_path: Path) -> None:
    case = event_case().model_dump(exclude_unset=True)
    world = World(shop(**{**case, "grid": {"every": "event"}}), tmp_path)
    world.deliver("visits", [visit(on(1, 5)), visit(on(1, 20))])
    world.deliver("sent", [sent(on(1, 5), on(1, 6)), sent(on(1, 20), on(1, 21))])
    with world.open() as work:
        advance(work, utc(on(4)))
        assert [label for _, label, _ in labels_at(work, on(4))] == [1, 0]


def test_labels_wait_for_the_latest_of_their_sources() -> None:
    sources = {"visits": VISITS, "sent": {**SENT, "lateness_days": 90}}
    label = {"kind": "event_absent", "source": "visits", "horizon_days": 30, "also": ["sent"]}
    assert shop(sources=sources, label=label).label_horizon_days == 30 + 90


@pytest.mark.parametrize(
    ("key", "sent_key"), [([], ["customer", "at"]), (["units"], ["units"])]
)  # fmt: skip
def test_first_source_that_knows_a_label_by_then_counts(
    tmp_path: Path, key: list[str], sent_key: list[str]
) -> None:
    world = World(column_case(key, sent_key), tmp_path)
    days = [on(1, 5), on(1, 6), on(1, 7), on(1, 8)]
    own = [("no", on(3, 10)), (None, None), ("yes", on(1, 20)), ("no", on(1, 20))]
    world.deliver(
        "visits",
        [
            visit(day, number, units=number, outcome=outcome, outcome_known=known)
            for number, (day, (outcome, known)) in enumerate(zip(days, own, strict=True))
        ],
    )
    told = [("yes", on(2, 5)), ("yes", on(2, 6)), ("yes", on(2, 7))]  # nothing of the last
    rows = [
        sent(day, arrived, number, units=number, outcome=outcome)
        for number, (day, (outcome, arrived)) in enumerate(zip(days, told, strict=False))
    ]
    nobody = sent(on(1, 9), on(2, 8), 9, units=9, outcome="no")
    world.deliver("sent", [*rows, nobody])
    own_only = [(2, 1, on(1, 20)), (3, 0, on(1, 20))]
    with world.open() as work:
        advance(work, utc(on(4)))
        assert labels_at(work, on(2)) == own_only
        assert conflicts_at(work, on(2)) == 0
        early = [(0, 1, on(2, 5)), (1, 1, on(2, 6)), *own_only]
        assert labels_at(work, on(3)) == early
        assert conflicts_at(work, on(3)) == 0
        assert labels_at(work, on(4)) == [(0, 0, on(3, 10)), *early[1:]]
        assert conflicts_at(work, on(4)) == 1


def test_rows_of_one_entity_and_time_keep_their_own_labels(tmp_path: Path) -> None:
    world = World(column_case([], ["customer", "at"]), tmp_path)
    own = [("no", on(1, 20)), ("yes", on(1, 21))]
    world.deliver(
        "visits", [visit(on(1, 5), outcome=said, outcome_known=known) for said, known in own]
    )
    world.deliver("sent", [sent(on(1, 6), on(1, 7), outcome="yes")])
    with world.open() as work:
        advance(work, utc(on(3)))
        assert sorted(labels_at(work, on(3))) == [(1, 0, on(1, 20)), (1, 1, on(1, 21))]
        assert conflicts_at(work, on(3)) == 0


def test_training_starts_when_any_source_knows_a_label(tmp_path: Path) -> None:
    world = World(column_case([], ["customer", "at"]), tmp_path)
    world.deliver("visits", [visit(on(1, 5), outcome="no", outcome_known=on(3, 10))])
    world.deliver("sent", [sent(on(1, 5), on(1, 25), outcome="yes")])
    with world.open() as work:
        advance(work, utc(on(2)))
        assert labels_at(work, on(2)) == [(1, 1, on(1, 25))]
        with pytest.raises(DataError, match="too few labelled periods"):  # and not: no label
            refuse_untrainable(work, Snapshot(utc(on(2)), accept_all(work)))


def test_label_of_each_on_a_grid_once_that_a_client_sends(tmp_path: Path) -> None:
    people = {
        "uri": "people",
        "columns": {"customer": "int64", "tier": "string", "left": "boolean"},
        "key": ["customer"],
    }
    told = {**SENT, "key": ["customer"], "columns": {**SENT["columns"], "left": "boolean"}}
    last = {"aggregate": "last", "of": "tier", "dtype": "string"}
    label = {"kind": "column", "source": "people", "column": "left", "also": ["sent"]}
    case = shop(
        grid={"every": "once"},
        population={"source": "people"},
        sources={"people": people, "sent": told},
        label={**label, "positive": True, "negative": False},
        views={"history": {"source": "people", "columns": {"tier": last}}},
        split={"method": "random"},
    )
    world = World(case, tmp_path)
    left = (True, None, False)
    world.deliver(
        "people",
        [{"customer": n, "tier": "basic", "left": value} for n, value in enumerate(left)],
    )
    world.deliver("sent", [])
    sent_now = [(0, False), (1, True), (2, False)]
    deliver_labels(
        case,
        world.settings,
        "sent",
        [{"customer": n, "at": "2025-05-01", "left": value} for n, value in sent_now],
        now=utc(on(5, 2)),
    )
    with world.open() as work:
        advance(work, utc(on(6)))
        frame = load_frame(work, Snapshot(utc(on(6)), accept_all(work)))
        assert frame.label.tolist() == [1, 1, 0]
        assert conflicts_at(work, on(6)) == 1


def test_new_labels_count_a_row_once(tmp_path: Path) -> None:
    world = World(column_case([], ["customer", "at"]), tmp_path)
    rows = [(1, "no", on(2, 20)), (2, "no", on(2, 20)), (3, None, None)]
    world.deliver(
        "visits",
        [visit(on(1, 5), n, outcome=said, outcome_known=known) for n, said, known in rows],
    )
    told = [(1, on(1, 20)), (2, on(2, 10)), (3, on(2, 11))]
    world.deliver("sent", [sent(on(1, 5), known, n, outcome="yes") for n, known in told])
    since, until = utc(on(2)), utc(on(3))
    with world.open() as work:
        assert set(retrain._watermarks(work, until, [])) == {"visits", "sent"}
        assert retrain._new_labels(work, since, until) == 2  # the first was known before
        assert retrain._new_labels(work, since - timedelta(days=30), until) == 3


@pytest.mark.filterwarnings("ignore:AssetExecutionContext.run_id is deprecated:DeprecationWarning")
def test_validated_data_shows_conflicts(tmp_path: Path) -> None:
    case = column_case([], ["customer", "at"])
    world = World(case, tmp_path)
    world.deliver("visits", [visit(on(1, 5), outcome="no", outcome_known=on(1, 20))])
    world.deliver("sent", [sent(on(1, 5), on(1, 20), outcome="yes")])
    environment = {"MLOPS_DATA_DIR": str(tmp_path), "MLOPS_THREADS": "1"}
    done = materialize_in_process(
        data_assets(case),
        selection=[dg.AssetKey(["shop", name]) for name in ("raw_data", "validated_data")],
        resources={"platform": Platform(environment=environment)},
    )
    (shown,) = done.asset_materializations_for_node("shop__validated_data")
    assert shown.metadata["label_conflicts"].value == 1
