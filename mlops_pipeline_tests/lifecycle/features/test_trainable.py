"""What dates alone refuse, before a period is built."""

from pathlib import Path

import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.errors import DataError, SplitError
from mlops_pipeline.lifecycle.context import Snapshot
from mlops_pipeline.lifecycle.features.offline import finished_periods
from mlops_pipeline.lifecycle.train import refuse_untrainable
from mlops_pipeline_tests.worlds import SHOP, World, accept_all, ingest_all, on, shop, utc, visit


def refused(case: UseCase, folder: Path, month: int) -> str:
    world = World(case, folder)
    world.deliver("visits", [visit(on(1, day), day, known=on(1, day)) for day in range(1, 9)])
    with world.open() as work:
        ingest_all(work)
        with pytest.raises((DataError, SplitError)) as caught:
            refuse_untrainable(work, Snapshot(utc(on(month)), accept_all(work)))
        assert finished_periods(work) == {}
    return str(caught.value)


def test_no_label_yet_says_from_which_date_there_is_one(tmp_path: Path) -> None:
    text = refused(shop(label={**SHOP["label"], "horizon_days": 50}), tmp_path, month=3)
    assert "an as_of from 2025-04-01 on" in text


def test_no_label_column_yet_says_from_which_date_there_is_one(tmp_path: Path) -> None:
    label = {"kind": "column", "source": "visits", "column": "units", "delay_days": 100}
    text = refused(shop(grid={"every": "event"}, label=label), tmp_path, month=3)
    assert "an as_of from 2025-05-01 on" in text


def test_split_that_cannot_work_is_refused_before_a_period_is_built(tmp_path: Path) -> None:
    assert "too few labelled periods" in refused(shop(), tmp_path / "few", month=4)
    label = {**SHOP["label"], "horizon_days": 50}
    assert "part is empty after purging" in refused(shop(label=label), tmp_path / "purged", month=6)


def test_split_that_works_is_not_refused(tmp_path: Path) -> None:
    world = World(shop(), tmp_path)
    world.deliver("visits", [visit(on(1, day), day) for day in range(1, 9)])
    with world.open() as work:
        ingest_all(work)
        refuse_untrainable(work, Snapshot(utc(on(6)), accept_all(work)))
