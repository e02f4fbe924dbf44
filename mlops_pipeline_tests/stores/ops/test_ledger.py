"""The generic ways of the ledger: compare-and-set, nested transactions, following, declarations."""

import pytest

from mlops_pipeline.errors import StateError
from mlops_pipeline.lifecycle.alerts import NewAlert, raise_alert
from mlops_pipeline.stores.ops import Alert, OpsDatabase, Pointer
from mlops_pipeline.stores.ops.tables import DECLARED
from mlops_pipeline.stores.settings import PACKAGE_PARENT
from mlops_pipeline_tests.stores.ops.timestamps import NOON, later

PEOPLE = ("by", "actor", "pseudonym", "triggered_by", "resolved_by")


def alert_of(database: OpsDatabase) -> Alert:
    raise_alert(database, "churn", NewAlert("drift", "warning", "PSI 0.2", "look"), now=NOON)
    (found,) = database.all(Alert)
    return found


def test_change_of_a_row_that_another_writer_changed_is_refused(database: OpsDatabase) -> None:
    seen = alert_of(database)
    with database.write("churn") as tx:
        assert tx.change(seen, times_raised=2).times_raised == 2
    refusal = pytest.raises(StateError, match=f"alert {seen.id} was changed by another")
    with refusal, database.write("churn") as tx:
        tx.change(seen, times_raised=5)
    assert database.all(Alert)[0].times_raised == 2


def test_transaction_that_was_handed_in_is_whole_with_what_it_is_handed_to(
    database: OpsDatabase,
) -> None:
    with pytest.raises(StateError, match="power cut"), database.write("churn") as tx:  # noqa: PT012 # it fails at its end
        raise_alert(tx, "churn", NewAlert("drift", "warning", "PSI 0.2", "look"), now=NOON)
        tx.append_audit("x", {}, use_case="churn", actor="ada", now=NOON)
        raise StateError("power cut")
    assert (database.all(Alert), database.audit_head()[0]) == ([], 0)


def test_scope_after_an_audit_event_is_refused_for_two_could_wait_for_each_other(
    database: OpsDatabase,
) -> None:
    with database.write("churn") as tx:
        tx.append_audit("x", {}, use_case="churn", actor="ada", now=NOON)
        with pytest.raises(StateError, match="before it writes an audit event"):
            tx.put(Pointer("fraud", "accepted", {}, "run", NOON))


def test_reader_follows_by_the_number_of_the_newest_event_it_saw(database: OpsDatabase) -> None:
    for number in range(4):
        kind = "rollout" if number % 2 else "approval"
        database.append_audit(kind, {}, use_case="churn", actor="ada", now=later(number))
    assert [event.seq for event in database.events_after(1)] == [2, 3, 4]
    assert [event.seq for event in database.events_after(1, kind=("rollout",))] == [2, 4]
    assert database.events_after(4) == []


def test_rows_are_ordered_limited_and_found_by_any_of_several_values(database: OpsDatabase) -> None:
    for name in ("b", "a", "c"):
        database.put(Pointer("churn", name, {}, "run", NOON))
    assert [row.name for row in database.all(Pointer)] == ["a", "b", "c"]
    assert [row.name for row in database.all(Pointer, order=("-name",), limit=2)] == ["c", "b"]
    assert [row.name for row in database.all(Pointer, name=("a", "c"))] == ["a", "c"]


def test_columns_that_name_people_are_declared_and_documented() -> None:
    declared = {f"{item.table.name}.{name}" for item in DECLARED for name in item.people}
    named = {f"{item.table.name}.{column.name}" for item in DECLARED for column in item.table.c
             if column.name in PEOPLE}  # fmt: skip
    assert declared == named
    page = (PACKAGE_PARENT / "docs" / "security.md").read_text(encoding="utf-8")
    assert [name for name in sorted(declared) if f"`{name}`" not in page] == []
