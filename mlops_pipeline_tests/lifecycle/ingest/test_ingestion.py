from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.config import load_use_case
from mlops_pipeline.demo.datasets import fetch_dataset
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.ingest.ingestion import Ingested, ingest
from mlops_pipeline.stores.lake.engine import Engine
from mlops_pipeline.stores.settings import PACKAGE_PARENT
from mlops_pipeline_tests.worlds import (
    TICK,
    VISITS,
    Row,
    World,
    accept_all,
    advance,
    on,
    shop,
    shop_with,
    stored_rows,
    utc,
    visit,
)

SHARED = Path(__file__).parents[3].parent / "shared" / "data"


def take(
    work: Context, now: datetime, finished: datetime | None = None, source: str = "visits"
) -> Ingested:
    return ingest(work, source, now=utc(now), finished_through=utc(finished) if finished else None)


def raw(work: Context, source: str = "visits") -> list[Row]:
    return stored_rows(work, work.lake.table_uri(work.use_case.name, "raw", source))


def test_second_run_on_the_same_files_adds_nothing(world: World) -> None:
    world.deliver("visits", [visit(on(1, day)) for day in (1, 2, 3)])
    with world.open() as work:
        first = take(work, on(2))
        second = take(work, on(2, 2))
    assert (first.rows, first.rows_added) == (3, 3)
    assert (second.rows, second.rows_added) == (3, 0)
    assert (second.version, second.content_hash) == (first.version, first.content_hash)
    assert second.watermark == utc(on(1, 3))


def test_new_rows_of_a_grown_file_add_only_themselves(world: World) -> None:
    world.deliver("visits", [visit(on(1, 1))])
    with world.open() as work:
        first = take(work, on(2))
        world.withdraw("visits")
        world.deliver("visits", [visit(on(1, 1)), visit(on(2, 3)), visit(on(2, 4))])
        second = take(work, on(3))
        assert [row["at"] for row in raw(work)] == [on(1, 1), on(2, 3), on(2, 4)]
        assert [row["_row_no"] for row in raw(work)] == [0, 1, 2]
    assert (second.rows, second.rows_added, second.rows_late) == (3, 2, 0)
    assert second.content_hash != first.content_hash
    assert second.version == first.version + 1


def test_files_with_new_rows_only_leave_the_old_ones_stored(world: World) -> None:
    world.deliver("visits", [visit(on(1, 1))])
    with world.open() as work:
        take(work, on(2))
        world.withdraw("visits")
        world.deliver("visits", [visit(on(2, 3))])
        assert take(work, on(3)).rows == 2


def test_true_duplicates_stay_with_their_occurrence(world: World) -> None:
    world.deliver("visits", [visit(on(1, 1))] * 2 + [visit(on(1, 2))])
    with world.open() as work:
        assert take(work, on(2)).rows_added == 3
        assert take(work, on(2)).rows_added == 0
        world.withdraw("visits")
        world.deliver("visits", [visit(on(1, 1))] * 3 + [visit(on(1, 2))])
        third = take(work, on(2))
    assert (third.rows_added, third.rows) == (1, 4)


def test_missing_values_are_equal_to_themselves(world: World) -> None:
    world.deliver("visits", [visit(on(1, 1), None, amount=None, kind=None)])
    with world.open() as work:
        take(work, on(2))
        assert take(work, on(2)).rows_added == 0


def test_same_rows_in_other_files_and_order_have_the_same_content_hash(tmp_path: Path) -> None:
    rows = [visit(on(1, day), amount=day / 3) for day in range(1, 9)]
    hashes = []
    for name, parts in (("a", [rows]), ("b", [rows[5:], rows[4::-1]])):
        world = World(shop(), tmp_path / name)
        for part in parts:
            world.deliver("visits", part)
        with world.open() as work:
            hashes.append((take(work, on(2)).content_hash, raw(work)))
    assert hashes[0] == hashes[1]


def test_wide_csv_is_read_a_few_times_and_not_once_a_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"c{number}" for number in range(150)]
    columns = {**VISITS["columns"], **dict.fromkeys(names, "int64")}
    world = World(shop_with({"columns": columns, "format": "csv"}), tmp_path)
    row = visit(on(1, 2)) | dict.fromkeys(names, 1)
    world.deliver_csv("visits", ",".join(row) + "\n" + ",".join(map(str, row.values())))
    asked: list[str] = []
    query = Engine.query

    def counted(self: Engine, statement: str, *rest: Any) -> Any:
        asked.append(statement)
        return query(self, statement, *rest)

    monkeypatch.setattr(Engine, "query", counted)
    with world.open() as work:
        assert take(work, on(2)).rows_added == 1
    assert len(asked) < 15


# lateness and the watermark


def test_late_row_counts_as_known_when_it_was_ingested(world: World) -> None:
    world.deliver("visits", [visit(on(2, 10))])
    with world.open() as work:
        take(work, on(2, 11))
        world.deliver("visits", [visit(on(2, 5)), visit(on(2, 10, 1))])
        found = take(work, on(2, 20))
        known = {row["at"]: row["_available_at"] for row in raw(work)}
    assert (found.rows_added, found.rows_late) == (2, 1)
    assert known == {on(2, 10): on(2, 10), on(2, 5): on(2, 20), on(2, 10, 1): on(2, 10, 1)}
    assert found.watermark == utc(on(2, 10, 1))


def test_row_known_before_the_finished_periods_counts_from_now(world: World) -> None:
    world.deliver("visits", [visit(on(1, 10))])
    with world.open() as work:
        take(work, on(1, 11))
        world.deliver("visits", [visit(on(1, 20)), visit(on(2, 3))])
        found = take(work, on(2, 10), finished=on(2))
        known = {row["at"]: row["_available_at"] for row in raw(work)}
    assert found.rows_late == 1
    assert known[on(1, 20)] == on(2, 10)
    assert known[on(2, 3)] == on(2, 3)


def test_first_ingestion_has_no_late_rows(world: World) -> None:
    world.deliver("visits", [visit(on(1, 10)), visit(on(3, 10))])
    with world.open() as work:
        assert take(work, on(4), finished=on(4)).rows_late == 0


@pytest.mark.parametrize("cumulative", [True, False])
def test_rows_beyond_lateness_days_are_counted_and_left_out(
    tmp_path: Path, cumulative: bool
) -> None:
    world = World(shop_with({"lateness_days": 10}), tmp_path)
    world.deliver("visits", [visit(on(1, 1), 7), visit(on(1, 2), 8), visit(on(3, 1))])
    with world.open() as work:
        assert take(work, on(3, 2)).rows_too_late == 0
        if not cumulative:
            world.withdraw("visits")
        edge = on(2, 19)  # the watermark less lateness_days
        world.deliver("visits", [visit(edge - TICK), visit(edge)])
        found = take(work, on(3, 2))
        again = take(work, on(3, 2))
    assert (found.rows_added, found.rows_too_late) == (1, 1)
    assert (again.rows_added, again.rows_too_late) == (0, 1)


def test_changed_row_beyond_lateness_days_is_counted(tmp_path: Path) -> None:
    world = World(shop_with({"lateness_days": 10}), tmp_path)
    world.deliver("visits", [visit(on(1, 1)), visit(on(3, 1))])
    with world.open() as work:
        take(work, on(3, 2))
        world.withdraw("visits")
        world.deliver("visits", [visit(on(1, 1), amount=9.0), visit(on(3, 1))])
        found = take(work, on(3, 2))
    assert (found.rows_added, found.rows_too_late) == (0, 1)


def test_watermark_is_not_moved_by_rows_from_the_future(world: World) -> None:
    world.deliver("visits", [visit(on(2, 1)), visit(on(2, 1, year=2099))])
    with world.open() as work:
        assert take(work, on(3)).watermark == utc(on(2, 1))
        world.deliver("visits", [visit(on(2, 20))])
        found = take(work, on(3))
        known = {row["at"]: row["_available_at"] for row in raw(work)}
        assert accept_all(work, utc(on(3)))["visits"].watermark == utc(on(2, 20))
    assert (found.rows_added, found.rows_late) == (1, 0)
    assert found.watermark == utc(on(2, 20))
    assert known[on(2, 20)] == on(2, 20)


def test_watermark_of_what_was_accepted_is_not_moved_by_late_rows(world: World) -> None:
    world.deliver("visits", [visit(on(3, 20))])
    with world.open() as work:
        take(work, on(3, 21))
        world.deliver("visits", [visit(on(3, 10))])
        assert take(work, on(4, 5)).rows_late == 1
        assert accept_all(work, utc(on(4, 5)))["visits"].watermark == utc(on(3, 20))


def test_facts_of_an_older_version_are_its_own(world: World) -> None:
    with world.open() as work:
        for day in range(1, 5):
            world.deliver("visits", [visit(on(1, day))])
            found = take(work, on(2))
        for version in range(4):
            state = work.lake.state(found.uri, version)
            assert state is not None
            assert (state.version, state.facts["rows"]) == (version, version + 1)
        commits = work.lake.commit_metadata(found.uri)
    assert [facts["version"] for facts in commits] == [0, 1, 2, 3]


# all or nothing


class BrokenError(Exception):
    """What a full disk raises."""


def test_ingestion_whose_writer_fails_leaves_the_table_as_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.deliver("visits", [visit(on(1, 1))])
    with world.open() as work:
        before = take(work, on(2))
        world.deliver("visits", [visit(on(1, 5), number) for number in range(300_000)])
        batches = work.engine.batches

        def failing(statement: str) -> Any:
            import pyarrow as pa

            def some() -> Any:
                yield next(reader)
                raise BrokenError

            reader = batches(statement)
            return pa.RecordBatchReader.from_batches(reader.schema, some())

        monkeypatch.setattr(work.engine, "batches", failing)
        with pytest.raises(Exception, match="BrokenError"):
            take(work, on(2))
        monkeypatch.undo()
        assert [row["at"] for row in raw(work)] == [on(1, 1)]
        state = work.lake.state(before.uri)
        assert state is not None
        assert (state.version, state.facts["rows"]) == (before.version, 1)
        after = take(work, on(2))
        assert (after.rows_added, after.rows) == (300_000, 300_001)


def test_first_ingestion_whose_writer_fails_leaves_no_table(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.deliver("visits", [visit(on(1, 1))])

    def failing(*_: object, **__: object) -> None:
        raise BrokenError

    with world.open() as work:
        monkeypatch.setattr("deltalake.write_deltalake", failing)
        with pytest.raises(BrokenError):
            take(work, on(2))
        monkeypatch.undo()
        assert work.lake.state(work.lake.table_uri("shop", "raw", "visits")) is None
        assert take(work, on(2)).rows_added == 1


def test_sources_with_names_of_internal_tables_are_ordinary_sources(tmp_path: Path) -> None:
    names = ["delivery", "staged", "increment", "broken", "period_frame", "label_events"]
    case = shop(
        sources=dict.fromkeys(names, VISITS),
        population={"source": "broken"},
        label={"kind": "event_present", "source": "label_events", "horizon_days": 30},
        views={
            name: {"source": name, "columns": {f"{name}_count": {"aggregate": "count"}}}
            for name in names
        },
    )
    world = World(case, tmp_path)
    world.deliver(names[0], [visit(on(1, day)) for day in (2, 3)])
    with world.open() as work:
        for _ in range(2):
            built = advance(work, utc(on(3)))
        rows = stored_rows(work, built.uri, "as_of")
    assert [row["broken_count"] for row in rows] == [2, 2]
    assert [row["label_events_count"] for row in rows] == [2, 2]


def test_online_retail_keeps_every_row_and_its_true_duplicates(tmp_path: Path) -> None:
    invoices = SHARED / "online_retail.parquet"
    if not invoices.is_file():
        pytest.skip(f"{invoices} is not there")
    case = load_use_case(PACKAGE_PARENT / "configs" / "online_retail.yaml")
    world = World(case, tmp_path, threads=2)
    fetch_dataset("online_retail", world.settings.data_dir, from_folder=SHARED)
    now = utc(on(1, year=2026))
    with world.open() as work:
        first = ingest(work, "invoices", now=now, finished_through=None)
        second = ingest(work, "invoices", now=now, finished_through=None)
        state = work.lake.state(first.uri)
        assert state is not None
        columns = ", ".join(case.sources["invoices"].columns)
        distinct = work.engine.query(
            f"SELECT count(*) FROM (SELECT DISTINCT {columns} FROM {work.engine.scan(state)})"
        )[0][0]
    assert (first.rows, first.rows_added) == (1_044_847, 1_044_847)
    assert first.rows - distinct == 11_812
    assert (second.rows_added, second.version) == (0, first.version)
    assert second.content_hash == first.content_hash
