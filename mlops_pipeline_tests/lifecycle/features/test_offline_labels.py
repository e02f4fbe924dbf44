from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.errors import DataError, NotFoundError
from mlops_pipeline.lifecycle.context import Context, Snapshot
from mlops_pipeline.lifecycle.features.offline import load_frame
from mlops_pipeline_tests.worlds import (
    VISITS,
    World,
    accept_all,
    advance,
    on,
    shop,
    utc,
    visit,
)


def labels_of(work: Context, as_of: datetime) -> list[tuple[Any, datetime, int]]:
    frame = load_frame(work, Snapshot(utc(as_of), accept_all(work)))
    moments = frame.as_of.astype("datetime64[us]").tolist()
    return list(zip(frame.entity.tolist(), moments, frame.label.tolist(), strict=True))


def test_event_labels_on_a_month_grid_look_from_as_of_to_the_horizon(tmp_path: Path) -> None:
    world = World(shop(), tmp_path)
    rows = [visit(on(1, 5), customer) for customer in (1, 2, 3)]
    rows += [visit(on(2, 1), 1), visit(on(3, 3), 2)]  # at as_of: inside; 30 days later: outside
    world.deliver("visits", rows)
    with world.open() as work:
        advance(work, utc(on(4)))
        found = labels_of(work, on(4))
    assert [item for item in found if item[1] == on(2)] == [
        (1, on(2), 1),
        (2, on(2), 0),
        (3, on(2), 0),
    ]


def test_event_labels_on_an_event_grid_look_from_each_event(tmp_path: Path) -> None:
    case = shop(grid={"every": "event"})
    world = World(case, tmp_path)
    times = [on(1, 5), on(1, 20), on(2, 25)]
    world.deliver("visits", [visit(at) for at in times])
    with world.open() as work:
        advance(work, utc(on(5)))
        found = labels_of(work, on(5))
    assert found == [(1, times[0], 1), (1, times[1], 0), (1, times[2], 0)]


def test_labels_of_events_wait_for_those_that_may_arrive_late(tmp_path: Path) -> None:
    label = {"kind": "event_absent", "source": "visits", "horizon_days": 28}
    world = World(shop(label=label), tmp_path)
    late = visit(on(2, 20), 1, known=on(4, 10))  # within the 60 days that the source allows
    world.deliver("visits", [visit(on(1, 5), 1), visit(on(1, 5), 2), late])
    with world.open() as work:
        advance(work, utc(on(6)))
        for as_of in (on(3), on(4)):
            with pytest.raises(DataError, match="no label is known yet"):
                labels_of(work, as_of)
        first = [item for item in labels_of(work, on(5)) if item[1] == on(2)]
        assert first == [(1, on(2), 0), (2, on(2), 1)]
        assert [item for item in labels_of(work, on(6)) if item[1] == on(2)] == first


def column_label_case() -> UseCase:
    source = {
        **VISITS,
        "key": ["units"],
        "columns": {**VISITS["columns"], "outcome": "string", "outcome_known": "timestamp"},
    }
    label = {"kind": "column", "source": "visits", "column": "outcome", "positive": "yes"}
    return shop(
        sources={"visits": source},
        grid={"every": "event"},
        label={**label, "negative": "no", "available_at": "outcome_known"},
    )


def test_column_label_of_a_revised_row_is_the_one_of_its_version_then(tmp_path: Path) -> None:
    world = World(column_label_case(), tmp_path)
    row = visit(on(1, 5), units=7, outcome="no", outcome_known=on(1, 20))
    revision = {**row, "known": on(3, 10), "outcome": "yes", "outcome_known": on(3, 10)}
    other = visit(on(1, 6), units=8, outcome="no", outcome_known=on(1, 20))
    world.deliver("visits", [row, revision, other])
    with world.open() as work:
        advance(work, utc(on(4)))
        assert [label for *_, label in labels_of(work, on(2))] == [0, 0]
        assert [label for *_, label in labels_of(work, on(4))] == [1, 0]


def test_column_label_of_a_late_row_is_known_when_the_row_arrived(tmp_path: Path) -> None:
    world = World(column_label_case(), tmp_path)
    first = visit(on(1, 5), units=1, outcome="no", outcome_known=on(1, 20))
    newest = visit(on(2, 5), units=2, outcome="yes", outcome_known=on(2, 20))
    world.deliver("visits", [first, newest])
    with world.open() as work:
        advance(work, utc(on(2, 10)), utc(on(2)))
        world.deliver("visits", [visit(on(2, 3), units=3, outcome="yes", outcome_known=on(2, 3))])
        advance(work, utc(on(2, 25)), utc(on(2)))
        advance(work, utc(on(3)))
        frame = load_frame(work, Snapshot(utc(on(3)), accept_all(work)))
    known = dict(zip(frame.as_of.tolist(), frame.known_at.tolist(), strict=True))
    assert known[on(2, 3)] == on(2, 25)


def test_loading_of_periods_never_built_says_which(tmp_path: Path) -> None:
    world = World(shop(), tmp_path)
    world.deliver("visits", [visit(on(1, 5))])
    with world.open() as work:
        advance(work, utc(on(3)))
        with pytest.raises(
            NotFoundError, match=r"features were not built\n  where: periods 2025-04"
        ):
            load_frame(work, Snapshot(utc(on(5)), accept_all(work)))
