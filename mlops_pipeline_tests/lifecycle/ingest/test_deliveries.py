"""Rows that are left out or held back, watermarks that jump, and what a person may allow."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.errors import NotFoundError, SourceError, StateError
from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.ingest.deliveries import Permits
from mlops_pipeline.lifecycle.ingest.ingestion import Ingested, ingest_sources
from mlops_pipeline_tests.lifecycle.ingest.test_ingestion import raw, take
from mlops_pipeline_tests.worlds import (
    DAY,
    NOW,
    World,
    assert_complete,
    in_run,
    on,
    shop_with,
    utc,
    visit,
)

BY, REASON = "A. Person", "April came after May"


def daily(first: datetime, days: int) -> list[dict[str, Any]]:
    return [visit(first + DAY * number) for number in range(days)]


def lively(tmp_path: Path, **source: Any) -> World:
    world = World(shop_with({"lateness_days": 3, "static": False, **source}), tmp_path)
    world.deliver("visits", daily(on(1), 10))
    return world


def ingested(work: Context, permits: Permits = Permits()) -> Ingested:  # noqa: B008 # frozen
    (found,) = ingest_sources(in_run(work), permits)
    return found


def test_row_after_the_clock_is_held_back_until_its_time_has_come(tmp_path: Path) -> None:
    world = lively(tmp_path)
    world.deliver("visits", [visit(on(1, 13))])
    with world.open() as work:
        before, after = take(work, on(1, 12)), take(work, on(1, 13))
        known = raw(work)[-1]["_available_at"]
    assert (before.rows, before.rows_held_back, before.watermark) == (10, 1, utc(on(1, 10)))
    assert (after.rows_added, after.rows_held_back, after.rows_late) == (1, 0, 0)
    assert known == on(1, 13)


@pytest.mark.parametrize("wrong", [[visit(on(4))], [*daily(on(1, 11), 3), visit(on(4))]])
def test_watermark_that_jumps_is_refused_and_nothing_is_ingested(
    tmp_path: Path, wrong: Sequence[dict[str, Any]]
) -> None:
    world = lively(tmp_path)
    with world.open() as work:
        take(work, on(1, 20))
        world.deliver("visits", wrong)
        with pytest.raises(SourceError, match="far ahead") as caught:
            take(work, on(5))
        assert len(raw(work)) == 10
    assert_complete(caught.value)
    assert "mlops run shop --accept-jump visits" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        ({"static": True}, [visit(on(4))]),
        ({"lateness_days": 100}, [visit(on(4))]),
        ({}, [visit(on(1, 13))]),  # three times the longest pause
        ({}, daily(on(1, 11), 90)),  # much at once, without a pause
    ],
    ids=["static", "nothing would be left out", "usual pause", "caught up"],
)
def test_watermark_that_moves_as_it_may_is_taken(
    tmp_path: Path, source: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    world = lively(tmp_path, **source)
    with world.open() as work:
        take(work, on(1, 20))
        world.deliver("visits", rows)
        assert take(work, on(5)).rows_added == len(rows)


def test_jump_is_accepted_once_with_a_reason_in_the_audit_chain(tmp_path: Path) -> None:
    world = lively(tmp_path)
    with world.open() as work:
        ingested(work)
        world.deliver("visits", [visit(on(4))])
        permits = Permits(accept_jump=("visits",), by=BY, reason=REASON)
        assert ingested(work, permits).watermark == utc(on(4))
        event = work.ops.events_after(0, kind="delivery_permitted")[-1]
    assert event.actor == BY
    assert event.detail["reason"] == REASON
    assert event.detail["accept_jump"] == ["visits"]


def test_rows_left_out_raise_an_alert_until_they_are_restated(tmp_path: Path) -> None:
    world = World(shop_with({"lateness_days": 3, "static": False}), tmp_path)
    world.deliver("visits", daily(on(5), 10))
    with world.open() as work:
        ingested(work)
        world.deliver("visits", daily(on(4), 19))
        assert ingested(work).rows_too_late == 19
        (alert,) = list_alerts(work.ops, "shop", open_only=True)
        restated = ingested(work, Permits(restate=("visits",), by=BY, reason=REASON))
        again = ingested(work)
        assert not list_alerts(work.ops, "shop", open_only=True)
        late = [row for row in raw(work) if row["at"] < on(5)]
    assert (alert.kind, "visits: 19" in alert.message) == ("rows_left_out", True)
    assert (restated.rows_added, restated.rows_late, restated.rows_too_late) == (19, 19, 0)
    assert (again.rows_added, again.rows_too_late) == (0, 0)
    assert {row["_available_at"] for row in late} == {NOW.replace(tzinfo=None)}


def test_permit_without_a_reason_or_of_an_unknown_source_is_refused(tmp_path: Path) -> None:
    with lively(tmp_path).open() as work:
        with pytest.raises(StateError, match="reason"):
            ingested(work, Permits(restate=("visits",), by="A. Person"))
        with pytest.raises(NotFoundError, match="visit"):
            ingested(work, Permits(restate=("visit",), by=BY, reason=REASON))
