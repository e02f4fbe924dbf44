"""A grid of one period: tables without time, and what is delivered again."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.core.data.frame import split_frame
from mlops_pipeline.errors import DataError
from mlops_pipeline.lifecycle.context import Context, Snapshot
from mlops_pipeline.lifecycle.features.leak_check import leak_check
from mlops_pipeline.lifecycle.features.offline import features_uri, load_frame
from mlops_pipeline.lifecycle.ingest.accepted import take_snapshot
from mlops_pipeline_tests.worlds import (
    NOW,
    SHOP,
    Row,
    World,
    accept_all,
    advance,
    ingest_all,
    on,
    shop,
    stored_rows,
    utc,
    visit,
)

PEOPLE: dict[str, Any] = {
    "uri": "people",
    "columns": {"customer": "int64", "tier": "string", "spent": "float64", "left": "boolean"},
    "key": ["customer"],
}


def snapshot_case(**sections: Any) -> UseCase:
    columns = {
        "tier": {"aggregate": "last", "of": "tier", "dtype": "string"},
        "spent": {"aggregate": "last", "of": "spent", "precision": 2},
    }
    made: dict[str, Any] = {
        "grid": {"every": "once"},
        "population": {"source": "people"},
        "sources": {"people": PEOPLE},
        "label": {
            "kind": "column",
            "source": "people",
            "column": "left",
            "positive": True,
            "negative": False,
        },
        "views": {"history": {"source": "people", "columns": columns}},
        "split": {"method": "random"},
    }
    return shop(**{**made, **sections})


def person(number: int, **values: Any) -> Row:
    row: Row = {"customer": number, "tier": "basic", "spent": 1.5 * number, "left": number % 3 == 0}
    return {**row, **values}


def frame_rows(work: Context) -> list[Row]:
    return stored_rows(work, features_uri(work), order="as_of, customer")


def test_snapshot_has_one_row_and_one_label_of_each(tmp_path: Path) -> None:
    world = World(snapshot_case(), tmp_path)
    world.deliver("people", [person(number) for number in range(40)])
    with world.open() as work:
        ingest_all(work)
        accepted = accept_all(work)
        snapshot = take_snapshot(work.use_case, accepted, None, now=NOW + timedelta(hours=9))
        assert snapshot.as_of == NOW
        advance(work, NOW)
        frame = load_frame(work, snapshot)
        parts = split_frame(work.use_case, frame)
        assert leak_check(work, accepted).passed
    assert frame.entity.tolist() == list(range(40))
    assert frame.columns["spent"].tolist() == [1.5 * number for number in range(40)]
    assert frame.label.tolist() == [int(number % 3 == 0) for number in range(40)]
    assert sum(parts.rows().values()) == 40


def test_same_file_again_adds_nothing_and_a_change_counts_from_its_ingestion(
    tmp_path: Path,
) -> None:
    world = World(snapshot_case(), tmp_path)
    world.deliver("people", [person(1), person(2)])
    later = NOW + timedelta(days=9)
    with world.open() as work:
        advance(work, NOW)
        assert ingest_all(work, later)["people"].rows_added == 0
        world.withdraw("people")
        world.deliver("people", [person(1, tier="gold", left=True), person(2), person(3)])
        changed = ingest_all(work, later)["people"]
        assert (changed.rows_added, changed.rows_revised) == (2, 1)
        advance(work, later, NOW)
        assert [row["tier"] for row in frame_rows(work)] == ["basic", "basic"]
        as_of = later + timedelta(days=1)
        advance(work, as_of)
        assert [row["tier"] for row in frame_rows(work)[2:]] == ["gold", "basic", "basic"]
        frame = load_frame(work, Snapshot(as_of, accept_all(work, as_of)))
        assert frame.label.tolist() == [1, 0, 1]


def test_label_of_events_looks_from_the_start_of_the_grid(tmp_path: Path) -> None:
    case = snapshot_case(
        grid={"every": "once", "start": "2025-03-01"},
        sources={"people": PEOPLE, "visits": shop().sources["visits"].model_dump()},
        label=SHOP["label"],
    )
    world = World(case, tmp_path)
    world.deliver("people", [person(1), person(2)])
    world.deliver("visits", [visit(on(2, 1), 1), visit(on(3, 4), 2), visit(on(5, 20), 1)])
    with world.open() as work:
        advance(work, NOW, utc(on(5)))
        frame = load_frame(work, Snapshot(utc(on(5)), accept_all(work)))
        assert frame.as_of.astype(str).tolist() == ["2025-03-01T00:00:00.000000"] * 2
        assert frame.label.tolist() == [0, 1]
        with pytest.raises(DataError, match="no period"):
            advance(work, NOW, utc(on(2)))
