"""Bad labels, splits and model inputs: the message says what, where and the way out."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.core.data.frame import LabelledFrame, split_rows
from mlops_pipeline.core.modelling.fitting import encode_rows, learn_inputs
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.core.modelling.train import train
from mlops_pipeline.errors import DataError, SplitError
from mlops_pipeline.lifecycle.context import Context, Snapshot
from mlops_pipeline.lifecycle.features.offline import load_frame
from mlops_pipeline_tests.worlds import (
    VISITS,
    World,
    accept_all,
    advance,
    assert_complete,
    on,
    shop,
    utc,
    visit,
)

ROWS = [visit(on(1, day), day) for day in range(1, 9)]


def labelled(work: Context, as_of: datetime) -> LabelledFrame:
    advance(work, utc(as_of))
    return load_frame(work, Snapshot(utc(as_of), accept_all(work)))


def split_of(case: UseCase, frame: LabelledFrame) -> None:
    split_rows(
        case.split,
        case.grid,
        frame,
        1,
    )


def test_single_class_names_the_part_and_its_periods(tmp_path: Path) -> None:
    case = shop(
        label={"kind": "event_present", "source": "visits", "horizon_days": 20, "delay_days": 0}
    )
    world = World(case, tmp_path)
    world.deliver("visits", ROWS)
    with world.open() as work:
        frame = labelled(work, on(6))
    with pytest.raises(SplitError) as caught:
        split_of(case, frame)
    error = caught.value
    assert error.what == "the train part has a single class"
    assert error.where == "periods 2025-02-01, 2025-03-01"
    assert error.found == "only 0 in 16 rows"
    assert_complete(error)


def test_empty_part_of_the_split_names_its_dates(tmp_path: Path) -> None:
    case = shop(
        label={"kind": "event_present", "source": "visits", "horizon_days": 50, "delay_days": 0}
    )
    world = World(case, tmp_path)
    world.deliver("visits", ROWS)
    with world.open() as work:
        frame = labelled(work, on(6))
    with pytest.raises(SplitError) as caught:
        split_of(case, frame)
    error = caught.value
    assert error.what.startswith("the train part is empty after purging")
    assert "train before 2025-03-01, validation 2025-03-01 to 2025-04-01" in str(error.where)
    assert_complete(error)


def test_no_known_label_says_how_late_as_of_has_to_be(tmp_path: Path) -> None:
    world = World(shop(), tmp_path)
    world.deliver("visits", ROWS)
    with world.open() as work, pytest.raises(DataError) as caught:
        labelled(work, on(2))
    assert caught.value.what == "no label is known yet"
    assert caught.value.expected == ("an as_of from 2025-04-01 on, when the first label is known")
    assert caught.value.found == "2025-02-01"
    assert caught.value.way_out


# features as model inputs

FEW = np.arange(8)


def numbers(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=np.float32)


def texts(*values: str | None) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=object)


def test_constant_and_missing_features_are_dropped_with_their_reason() -> None:
    columns = {
        "varies": numbers(*range(8)),
        "constant": numbers(*[3.0] * 8),
        "nothing": numbers(*[np.nan] * 8),
        "one_text": texts(*["a"] * 8),
        "no_text": texts(*[None] * 8),
        "partly": numbers(3, np.nan, *[3] * 6),
    }
    inputs = learn_inputs(columns, list(columns), FEW)
    assert [item["name"] for item in inputs.items] == ["varies", "partly"]
    assert inputs.dropped == {
        "constant": "constant",
        "nothing": "all missing",
        "one_text": "constant",
        "no_text": "all missing",
    }


def test_features_of_which_none_varies_are_refused() -> None:
    with pytest.raises(DataError, match="no feature varies") as caught:
        learn_inputs({"constant": numbers(*[3.0] * 8)}, ["constant"], FEW)
    assert caught.value.found == "constant: constant"


def test_unseen_category_scores_as_a_missing_one() -> None:
    case = shop(
        views={
            "history": {
                "source": "visits",
                "columns": {
                    "kind": {"aggregate": "last", "of": "kind", "dtype": "string"},
                    "spent": {"aggregate": "sum", "of": "amount"},
                },
            }
        },
        training={
            "candidates": {"logistic": {"kind": "logistic"}},
            "calibration": "none",
            "min_positives": 1,
        },
    )
    rows = 400
    dice = np.random.default_rng(1)
    kinds = np.array(["shop", "web", None], dtype=object)[np.arange(rows) % 3]
    label = ((kinds == "web") ^ (dice.random(rows) < 0.1)).astype(np.int8)
    month = np.repeat(np.arange("2024-01", "2024-11", dtype="datetime64[M]"), rows // 10)
    frame = LabelledFrame(
        columns={"kind": kinds, "spent": dice.random(rows).astype(np.float32)},
        protected={},
        entity=np.arange(rows),
        as_of=month.astype("datetime64[us]"),
        known_at=month.astype("datetime64[us]"),
        label=label,
    )
    parts = split_rows(
        case.split,
        case.grid,
        frame,
        1,
    )
    model: ScoringModel = train(case, frame, parts, threads=1, stopwatch=lambda: 0.0).chosen.model
    scored = model.predict({"kind": texts("new", None, "web"), "spent": numbers(0.5, 0.5, 0.5)})
    assert scored[0] == scored[1] != scored[2]
    matrix = model.encode({"kind": texts("new"), "spent": numbers(0.5)})
    assert np.isnan(matrix[0, 0])


def test_million_distinct_texts_are_refused_quickly(tmp_path: Path) -> None:
    column = {"aggregate": "last", "of": "kind", "dtype": "string"}
    views = {"history": {"source": "visits", "columns": {"favourite": column}}}
    world = World(shop(views=views, sources={"visits": VISITS}), tmp_path, threads=2)
    count = 1_000_000
    numbers_ = np.arange(count)
    when = np.full(count, np.datetime64("2025-01-05", "us"))
    world.deliver_table(
        "visits",
        pa.table(
            {
                "customer": numbers_,
                "at": when,
                "known": when,
                "amount": numbers_ / 8,
                "units": numbers_,
                "kind": pa.array(numbers_).cast(pa.string()),
            }
        ),
    )
    begun = time.monotonic()
    with world.open() as work:
        frame = labelled(work, on(3, 4))
    with pytest.raises(DataError) as caught:
        learn_inputs(frame.columns, ["favourite"], np.arange(len(frame)))
    assert time.monotonic() - begun < 30
    error = caught.value
    assert error.what == "a text feature has too many distinct values"
    assert error.where == "feature favourite"
    assert (error.expected, error.found) == ("at most 1,000", "1,000,000")
    assert "case expression" in str(error.way_out)


def test_encoding_of_no_rows_is_an_empty_matrix() -> None:
    inputs = learn_inputs({"varies": numbers(*range(8))}, ["varies"], FEW)
    assert encode_rows(inputs, {"varies": numbers()}, np.arange(0)).shape == (0, 1)
