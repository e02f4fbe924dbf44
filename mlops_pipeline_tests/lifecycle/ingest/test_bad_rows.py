"""Rows that are quarantined, and tables and sources that are refused for what their rows hold."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.errors import DataError
from mlops_pipeline.lifecycle.context import Snapshot
from mlops_pipeline.lifecycle.features.offline import build_features
from mlops_pipeline.lifecycle.ingest.validation import SourceValidation, validate_source
from mlops_pipeline_tests.lifecycle.ingest.good_visits import HEADER, ROWS, TYPES
from mlops_pipeline_tests.worlds import (
    NOW,
    VISITS,
    Row,
    World,
    accept_all,
    advance,
    arrow,
    assert_complete,
    failed_rules,
    ingest_all,
    on,
    shop,
    shop_with,
    utc,
    visit,
)


def judged(world: World, rows: list[Row]) -> SourceValidation:
    world.deliver("visits", rows)
    with world.open() as work:
        ingest_all(work)
        return validate_source(work, "visits", now=NOW)


def test_rows_after_the_clock_are_held_back_and_rows_known_before_they_happen_quarantined(
    world: World,
) -> None:
    later = [visit(on(1, year=2099)), visit(on(1), known=on(7)), visit(on(8), known=on(2))]
    validation = judged(world, [*ROWS, *later])
    assert validation.broken == {"not_in_the_future": 1}
    assert validation.accepted.rows == 8
    assert validation.accepted.watermark == utc(on(1, 8))


def test_duplicate_keys_are_quarantined_but_the_first(tmp_path: Path) -> None:
    world = World(shop_with({"key": ["customer"]}), tmp_path)
    validation = judged(world, [*ROWS, visit(on(1, 3), 3, amount=9.0)])
    assert validation.broken == {"unique(customer)": 1}


def test_infinities_are_quarantined(world: World) -> None:
    bad = [visit(on(2), amount=value) for value in (np.inf, -np.inf, np.nan)]
    assert judged(world, [*ROWS, *bad]).broken == {"finite(amount)": 3}


def outcome_case(**source: Any) -> UseCase:
    columns = {**TYPES, "outcome": "int64"}
    label = {"kind": "column", "source": "visits", "column": "outcome"}
    return shop_with({"columns": columns, **source}, grid={"every": "event"}, label=label)


def test_labels_outside_0_and_1_are_quarantined(tmp_path: Path) -> None:
    world = World(outcome_case(max_quarantined=0.2), tmp_path)
    values = [0, 1, 0, 1, 0, 1, 2, None]
    rows = [{**row, "outcome": value} for row, value in zip(ROWS, values, strict=True)]
    validation = judged(world, rows)
    assert validation.broken == {"label_values(outcome)": 2}
    assert failed_rules(validation) == {
        "quarantined_share": "0.25 of the rows broke a rule (at most 0.2)"
    }


def test_empty_table_is_refused(world: World) -> None:
    validation = judged(world, [])
    assert failed_rules(validation) == {"not_empty": "the table is empty"}
    assert validation.accepted.watermark is None


def test_empty_csv_table_is_refused(csv_world: World) -> None:
    csv_world.deliver_csv("visits", HEADER)
    with csv_world.open() as work:
        ingest_all(work)
        assert "not_empty" in failed_rules(validate_source(work, "visits", now=NOW))


def test_rows_after_an_empty_table_are_ingested(world: World) -> None:
    judged(world, [])
    assert judged(world, ROWS).accepted.rows == 8


def test_table_whose_rows_all_break_a_rule_is_refused(world: World) -> None:
    validation = judged(world, [visit(on(7), known=on(1))])
    assert failed_rules(validation) == {"not_empty": "every row broke a rule"}


@pytest.mark.parametrize("kind", [None, pa.null()])
def test_column_without_any_value_is_refused(world: World, kind: pa.DataType | None) -> None:
    table = arrow(TYPES, [{**row, "amount": None} for row in ROWS])
    if kind is not None:
        table = table.set_column(3, "amount", pa.nulls(8))
    world.deliver_table("visits", table)
    with world.open() as work:
        ingest_all(work)
        validation = validate_source(work, "visits", now=NOW)
    assert failed_rules(validation) == {
        "has_values(amount)": "column amount has no value in any row"
    }


# two sources


def two_sources(key_type: str) -> dict[str, Any]:
    other = {**VISITS, "uri": "calls", "columns": {**TYPES, "customer": key_type}}
    return {
        "sources": {"visits": VISITS, "calls": other},
        "views": {"calls": {"source": "calls", "columns": {"calls": {"aggregate": "count"}}}},
    }


def test_entity_keys_of_other_types_are_a_configuration_error() -> None:
    with pytest.raises(ValueError, match="the two cannot be joined") as caught:
        shop(**two_sources("string"))
    assert "sources.calls.columns.customer" in str(caught.value)
    assert "type string here and int64 in visits" in str(caught.value)


def test_sources_that_share_no_entity_are_named_with_their_keys(tmp_path: Path) -> None:
    world = World(shop(**two_sources("int64")), tmp_path)
    world.deliver("visits", ROWS)
    world.deliver("calls", [visit(on(1, 3), 1001)])
    with world.open() as work:
        ingest_all(work)
        with pytest.raises(DataError) as caught:
            build_features(work, Snapshot(utc(on(3)), accept_all(work)))
    error = caught.value
    assert error.what == "the sources visits and calls share no customer"
    assert error.where == "sources.calls"
    assert re.fullmatch(r"keys like 9 of visits", str(error.expected))
    assert error.found == "keys like 9999"
    assert error.way_out == "deliver both with the same identifiers"


def test_feature_too_large_for_exact_sums_names_the_period(tmp_path: Path) -> None:
    column = {"aggregate": "sum", "of": "amount * units", "precision": 6}
    views = {"history": {"source": "visits", "columns": {"spent": column}}}
    world = World(shop(views=views), tmp_path)
    world.deliver("visits", [visit(on(1, 3), amount=1e12, units=10**9)])
    with world.open() as work, pytest.raises(DataError) as caught:
        advance(work, utc(on(3)))
    assert_complete(caught.value)
    assert caught.value.where == "shop, period 2025-02-01"
