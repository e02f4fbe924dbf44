import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.core.features.frames import population
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.context import AcceptedSource, Context
from mlops_pipeline.lifecycle.features.offline import use_case_periods
from mlops_pipeline.lifecycle.ingest.accepted import register_accepted
from mlops_pipeline.lifecycle.ingest.validation import (
    SourceValidation,
    quarantine_examples,
    validate_source,
)
from mlops_pipeline_tests.worlds import (
    NOW,
    VISITS,
    Row,
    World,
    failed_rules,
    ingest_all,
    on,
    shop_with,
    stored_rows,
    utc,
    visit,
)

GOOD = [visit(on(1, day), day) for day in range(1, 9)]


def world_of(folder: Path, rules: list[dict[str, Any]], rows: list[Row], **source: Any) -> World:
    world = World(shop_with({"rules": rules, **source}), folder)
    world.deliver("visits", rows)
    return world


def judged(work: Context) -> SourceValidation:
    ingest_all(work)
    return validate_source(work, "visits", now=NOW)


def quarantine(work: Context) -> list[Row]:
    return stored_rows(work, work.lake.table_uri("shop", "quarantine", "visits"))


@pytest.mark.parametrize(
    ("rule", "bad", "name"),
    [
        ({"rule": "not_null", "columns": ["kind", "amount"]}, {"amount": None}, "not_null(amount)"),
        ({"rule": "range", "column": "units", "min": 0}, {"units": -1}, "range(units, 0..)"),
        ({"rule": "range", "column": "units", "max": 9}, {"units": 10}, "range(units, ..9)"),
        (
            {"rule": "range", "column": "amount", "min": 0, "max": 2.5},
            {"amount": 2.51},
            "range(amount, 0..2.5)",
        ),
        (
            {"rule": "in_set", "column": "kind", "values": ["shop"]},
            {"kind": "SHOP"},
            "in_set(kind)",
        ),
        ({"rule": "in_set", "column": "units", "values": [1, 2]}, {"units": 3}, "in_set(units)"),
        (
            {"rule": "check", "name": "cheap", "expression": "amount < units * 2"},
            {"amount": 2.0},
            "check(cheap)",
        ),
        ({"rule": "min_rows", "at_least": 1}, {"amount": float("inf")}, "finite(amount)"),
        ({"rule": "min_rows", "at_least": 1}, {"amount": float("nan")}, "finite(amount)"),
        ({"rule": "min_rows", "at_least": 1}, {"amount": 1.1e12}, "finite(amount)"),
        ({"rule": "min_rows", "at_least": 1}, {"known": None}, "time_present"),
        ({"rule": "min_rows", "at_least": 1}, {"at": None}, "time_present"),
        (
            {"rule": "min_rows", "at_least": 1},
            {"at": on(6) + timedelta(seconds=1)},
            "not_in_the_future",
        ),
    ],
)
def test_row_that_breaks_a_rule_goes_to_quarantine_with_it(
    tmp_path: Path, rule: dict[str, Any], bad: Row, name: str
) -> None:
    broken = visit(on(2), 99, **bad)
    with world_of(tmp_path, [rule], [*GOOD, broken]).open() as work:
        validation = judged(work)
        (row,) = quarantine(work)
        tables = register_accepted(work, {"visits": validation.accepted})
        left = tables["visits"].customer.execute().tolist()
    assert validation.passed
    assert validation.broken == {name: 1}
    assert row["_rules"] == [name]
    assert row["customer"] == 99
    assert list(row) == ["_row_no", "_rules", *VISITS["columns"]]
    assert sorted(left) == list(range(1, 9))
    assert (validation.accepted.rows, validation.accepted.quarantined) == (8, 1)


@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "range", "column": "amount", "min": 0, "max": 1},
        {"rule": "in_set", "column": "kind", "values": ["shop"]},
        {"rule": "check", "name": "cheap", "expression": "amount < 5"},
    ],
)
def test_missing_value_breaks_no_rule_but_not_null(tmp_path: Path, rule: dict[str, Any]) -> None:
    rows = [*GOOD, visit(on(2), amount=None, kind=None)]
    with world_of(tmp_path, [rule], rows).open() as work:
        assert judged(work).broken == {}


def test_row_exactly_at_the_clock_is_not_in_the_future(tmp_path: Path) -> None:
    with world_of(tmp_path, [], [visit(on(6))]).open() as work:
        assert judged(work).broken == {}


def test_row_that_breaks_several_rules_is_quarantined_once_with_all_of_them(tmp_path: Path) -> None:
    rules: list[dict[str, Any]] = [
        {"rule": "not_null", "columns": ["kind"]},
        {"rule": "range", "column": "units", "max": 5},
    ]
    row = visit(on(2), units=6, kind=None)
    with world_of(tmp_path, rules, [*GOOD, row, row], key=["customer", "at"]).open() as work:
        validation = judged(work)
        first, second = quarantine(work)
        again = validate_source(work, "visits", now=NOW)
    assert first["_rules"] == ["not_null(kind)", "range(units, ..5)"]
    assert sorted(second["_rules"]) == [*first["_rules"], "unique(customer, at)"]
    assert validation.accepted.quarantined == 2
    assert again.accepted.quarantine_version == validation.accepted.quarantine_version


def test_duplicate_keys_keep_the_first_row(tmp_path: Path) -> None:
    rows = [visit(on(1, 3), 1, amount=float(number)) for number in (1, 2, 3)]
    rows += [visit(on(1, 3), None), visit(on(1, 3), None, units=2)]  # no key: nothing is repeated
    with world_of(tmp_path, [], rows, key=["customer"]).open() as work:
        validation = judged(work)
        assert [row["amount"] for row in quarantine(work)] == [2.0, 3.0]
    assert validation.broken == {"unique(customer)": 2}


def test_duplicate_keys_stay_duplicates_after_a_revision(tmp_path: Path) -> None:
    rows = [visit(on(1, 3), 1, amount=1.0), visit(on(1, 3), 1, amount=2.0)]
    rows.append(visit(on(1, 9), 1, amount=3.0))
    with world_of(tmp_path, [], rows, key=["customer"]).open() as work:
        validation = judged(work)
        assert [row["amount"] for row in quarantine(work)] == [2.0]
        tables = register_accepted(work, {"visits": validation.accepted})
        kept = tables["visits"].order_by("amount").execute()
    assert kept["amount"].tolist() == [1.0, 3.0]
    assert kept["_superseded_at"].tolist()[0].to_pydatetime() == on(1, 9)


# rules about a table as a whole


def test_share_of_quarantined_rows_above_the_limit_refuses_the_source(tmp_path: Path) -> None:
    rows = [*GOOD, visit(on(2), units=-1), visit(on(2), units=-2)]
    rule = {"rule": "range", "column": "units", "min": 0}
    for limit, passes in ((0.2, True), (0.19, False)):
        folder = tmp_path / str(limit)
        with world_of(folder, [rule], rows, max_quarantined=limit).open() as work:
            validation = judged(work)
        assert validation.passed is passes
        if not passes:
            assert failed_rules(validation) == {
                "quarantined_share": "0.2 of the rows broke a rule (at most 0.19)"
            }


@pytest.mark.parametrize(("at_least", "passes"), [(0.75, True), (0.76, False)])
def test_completeness_below_its_share_refuses_the_source(
    tmp_path: Path, at_least: float, passes: bool
) -> None:
    rows = [visit(on(1, day), amount=None if day == 4 else 1.0) for day in range(1, 5)]
    rule = {"rule": "completeness", "column": "amount", "at_least": at_least}
    with world_of(tmp_path, [rule], rows).open() as work:
        validation = judged(work)
    assert validation.passed is passes
    verdict = next(v for v in validation.results if v.rule == "completeness(amount)")
    assert (verdict.value, verdict.threshold, verdict.rows) == (0.75, at_least, 4)
    assert validation.accepted.quarantined == 0


@pytest.mark.parametrize(("at_least", "passes"), [(8, True), (9, False)])
def test_fewer_rows_than_min_rows_refuse_the_source(
    tmp_path: Path, at_least: int, passes: bool
) -> None:
    rules: list[dict[str, Any]] = [
        {"rule": "min_rows", "at_least": at_least},
        {"rule": "range", "column": "units", "min": 0},
    ]
    with world_of(tmp_path, rules, [*GOOD, visit(on(2), units=-1)]).open() as work:
        validation = judged(work)
    assert validation.passed is passes
    if not passes:
        assert failed_rules(validation) == {"min_rows": "8 rows (at least 9)"}


@pytest.mark.parametrize(
    ("static", "days", "passes"), [(False, 144, True), (False, 143.9, False), (True, 1, True)]
)
def test_freshness_compares_with_the_clock_unless_the_source_is_static(
    tmp_path: Path, static: bool, days: float, passes: bool
) -> None:
    rule = {"rule": "freshness", "at_most_days": days}
    with world_of(tmp_path, [rule], GOOD, static=static).open() as work:
        validation = judged(work)  # 2025-01-08 to 2025-06-01
    assert validation.passed is passes
    if not passes:
        assert failed_rules(validation) == {
            "freshness": "144 days since the newest row became available (at most 143.9)"
        }


def test_freshness_is_not_restored_by_a_late_row(tmp_path: Path) -> None:
    rule = {"rule": "freshness", "at_most_days": 100}
    world = world_of(tmp_path, [rule], GOOD, static=False)
    with world.open() as work:
        judged(work)
        world.deliver("visits", [visit(on(1, 7))])
        assert failed_rules(judged(work)).keys() == {"freshness"}


@pytest.mark.parametrize(
    ("low", "high", "passes"), [(0.25, 0.25, True), (0.3, 1, False), (0, 0.2, False)]
)
def test_class_balance_outside_its_bounds_refuses_the_source(
    tmp_path: Path, low: float, high: float, passes: bool
) -> None:
    rows = [visit(on(1, day), kind="it's" if day == 1 else "shop") for day in range(1, 5)]
    balance = {"rule": "class_balance", "column": "kind"}
    rules = [
        {**balance, "positive": "it's", "min": low, "max": high},
        {**balance, "positive": "shop", "min": 0.75, "max": 0.75},
    ]
    with world_of(tmp_path, rules, rows).open() as work:
        validation = judged(work)
    assert validation.passed is passes
    if not passes:
        (reason,) = failed_rules(validation).values()
        assert reason == f"25.00% positive, allowed {low:.2%} to {high:.2%}"


# the accepted pointer


def test_accepted_source_survives_json_unchanged(tmp_path: Path) -> None:
    for rows in (GOOD, [*GOOD, visit(on(7))]):
        with world_of(tmp_path, [], rows).open() as work:
            accepted = judged(work).accepted
        document = json.loads(json.dumps(accepted.to_dict()))
        assert AcceptedSource.from_dict(document) == accepted
    empty = AcceptedSource(0, None, 0, 0, "0", None, False)
    assert AcceptedSource.from_dict(json.loads(json.dumps(empty.to_dict()))) == empty


def test_accepted_version_is_read_unchanged_after_newer_ingestions(tmp_path: Path) -> None:
    rule = {"rule": "range", "column": "units", "min": 0}
    world = world_of(tmp_path, [rule], [*GOOD, visit(on(2), 50, units=-1)])
    with world.open() as work:
        first = judged(work).accepted
        world.deliver("visits", [visit(on(3), 60), visit(on(3), 61, units=-1)])
        second = judged(work).accepted
        found = []
        for accepted in (first, second):
            table = register_accepted(work, {"visits": accepted})["visits"]
            found.append(sorted(table.customer.execute().tolist()))
    assert found == [list(range(1, 9)), [*range(1, 9), 60]]
    assert (first.rows, second.rows) == (8, 9)
    assert first.quarantine_version != second.quarantine_version


def test_quarantine_of_a_clean_table_is_none_and_hides_nothing(tmp_path: Path) -> None:
    world = world_of(tmp_path, [{"rule": "range", "column": "units", "min": 0}], GOOD)
    with world.open() as work:
        accepted = judged(work).accepted
        assert accepted.quarantine_version is None
        assert register_accepted(work, {"visits": accepted})["visits"].count().execute() == 8


def test_rows_stored_under_a_later_clock_are_kept_out_and_refuse_nothing(tmp_path: Path) -> None:
    rows = [*GOOD, *[visit(on(7), 50)] * 9]
    with world_of(tmp_path, [], rows, max_quarantined=0.0).open() as work:
        ingest_all(work, utc(on(8)))
        replayed = validate_source(work, "visits", now=NOW)
        later = validate_source(work, "visits", now=utc(on(8))).accepted
    assert (replayed.passed, replayed.broken) == (True, {"not_yet_known": 9})
    assert (replayed.accepted.rows, replayed.accepted.watermark) == (
        8,
        utc(max(r["known"] for r in GOOD)),
    )
    assert (later.rows, later.quarantine_version) == (17, None)


def test_quarantined_rows_are_not_in_the_population(tmp_path: Path) -> None:
    rule = {"rule": "range", "column": "units", "min": 0}
    with world_of(tmp_path, [rule], [*GOOD, visit(on(1, 3), 50, units=-1)]).open() as work:
        tables = register_accepted(work, {"visits": judged(work).accepted})
        (period,) = use_case_periods(work, utc(on(2)))
        members = population(work.use_case, tables, period).customer.execute().tolist()
    assert sorted(members) == list(range(1, 9))


def test_quarantine_examples_leave_personal_columns_out(tmp_path: Path) -> None:
    columns = {**VISITS["columns"], "customer": {"type": "int64", "personal": True}}
    rule = {"rule": "range", "column": "units", "min": 0}
    rows = [*GOOD, *(visit(on(2), 50, units=-1) for _ in range(30))]
    with world_of(tmp_path, [rule], rows, columns=columns).open() as work:
        validation = judged(work)
        examples = quarantine_examples(work, validation)
    assert len(examples) == 20
    assert examples[0]["rules"] == "range(units, 0..)"
    assert "customer" not in examples[0]
    assert examples[0]["units"] == -1


def test_judging_a_source_that_was_never_ingested_says_what_to_do(tmp_path: Path) -> None:
    with World(shop_with(), tmp_path).open() as work, pytest.raises(NotFoundError) as caught:
        validate_source(work, "visits", now=NOW)
    assert str(caught.value) == (
        "source visits was never ingested\n"
        "  where: shop\n"
        "  what to do: materialize shop/raw_data first"
    )
