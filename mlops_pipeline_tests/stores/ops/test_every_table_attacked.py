"""Every table of the ledger under attack, as its declaration has it: a new one from its first day.

Whoever owns a SQLite file can set, change, take, put and swap rows, whatever triggers and checks
say. Each such attack is found, or the table says why not and docs/security.md lists it.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.core.audit.anchors import Anchor
from mlops_pipeline.core.audit.chain import AuditEvent, ChainCheck
from mlops_pipeline.core.rollout.approvals import Signed
from mlops_pipeline.lifecycle.alerts import NewAlert, raise_alert, resolve_alert
from mlops_pipeline.lifecycle.api_keys import create_key, revoke_key
from mlops_pipeline.lifecycle.bookkeeping import (
    NewDecision,
    finish_lifecycle,
    record_decision,
    record_feature_use,
    record_step_seconds,
    set_pointer,
    start_lifecycle,
)
from mlops_pipeline.lifecycle.compliance.anchors import verify_rows
from mlops_pipeline.lifecycle.compliance.erasure import finish_tombstone, set_tombstone
from mlops_pipeline.lifecycle.exceptions import grant_exception, revoke_exception
from mlops_pipeline.stores.ops import HeldLease, OpsDatabase, Projection, RolloutWindow
from mlops_pipeline.stores.ops.declarations import Declared, JsonText, metadata
from mlops_pipeline.stores.ops.tables import DECLARED
from mlops_pipeline.stores.settings import PACKAGE_PARENT
from mlops_pipeline_tests.lifecycle.rollout_steps import approve, open_version
from mlops_pipeline_tests.stores.ops.timestamps import NOON, later

TABLES = {item.table.name: item for item in DECLARED}
CHAIN = next(item.table.name for item in DECLARED if item.record is AuditEvent)
HOW = ("null", "change", "delete", "insert", "swap")
Statement = tuple[str, list[Any]]


def fill(database: OpsDatabase) -> None:
    """Two rows in every table."""
    for number in (1, 2):
        open_version(database, number, state="awaiting_approval", now=later(number))
        end = NOON + timedelta(days=30)
        approve(database, "churn", number, by="ada", reason="better", expires_at=end, now=later(9))
        given: dict[str, Any] = {
            "by": "bo",
            "reason": f"r{number}",
            "expires_at": end,
            "now": later(10 + number),
        }
        held = grant_exception(database, "churn", "demographic_parity", "region", **given)
        record_decision(
            database, "churn", NewDecision("retraining", "wait", f"{number}", {}), now=NOON
        )
        alert = NewAlert("drift", "error", f"it moved {number}", "look", dedupe_key=f"{number}")
        raised = raise_alert(database, "churn", alert, now=NOON)
        raise_alert(database, "churn", alert, now=later(1))
        run = f"run-{number}"
        start_lifecycle(
            database, "churn", run, as_of=NOON, trigger="manual", triggered_by="ada", now=NOON
        )
        set_pointer(database, "churn", f"name-{number}", {"of": number}, run_id=run, now=NOON)
        set_pointer(database, "churn", f"name-{number}", {"at": number}, run_id=run, now=later(1))
        record_step_seconds(database, "churn", run, "features", number)
        record_feature_use(database, "churn", [f"f{number}"], "training", now=NOON)
        named: dict[str, Any] = {"use_case": "churn", "model_versions": {"churn": [number]}}
        said = Signed("cy", "asked", NOON)
        grave = set_tombstone(
            database, "customer", f"{number:016}", **named, found={"rows": 2}, said=said
        )
        until = {"expires_at": end, "now": NOON}
        create_key(database, f"key-{number}", ["predict"], by="ada", **until)
        database.put(Projection("churn", f"target-{number}", number))
        database.put(
            RolloutWindow("churn", number, "here", 1, 1, 9, 8, 7, 6, 5, 4, 3, 2, number, NOON)
        )
        with HeldLease(database, f"lifecycle:{number}", run, clock=lambda: NOON):
            pass
    revoke_exception(database, "churn", held.id, by="cy", reason="mended", now=later(50))
    revoke_key(database, "key-2", by="cy", now=later(51))
    resolve_alert(database, "churn", raised, by="cy", reason="mended", now=later(51))
    finish_tombstone(database, grave, {"rows": 3}, by="cy", now=later(52))
    finish_lifecycle(
        database, "churn", run, verdict="champion", fingerprint="f", summary={}, now=later(60)
    )


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "ops.db"
    with OpsDatabase.open(f"sqlite:///{path}") as database:
        fill(database)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def problems(path: Path, anchor: Anchor) -> list[str]:
    with OpsDatabase.open(f"sqlite:///{path}") as database:
        check = ChainCheck([anchor])
        verify_rows(database, check)
        return [*map(str, check.problems)]


def anchored(path: Path) -> Anchor:
    with OpsDatabase.open(f"sqlite:///{path}") as database:
        return Anchor(*database.audit_head(), "file", "line 1 of the anchors file")


def attacks(path: Path, declared: Declared, how: str) -> Iterator[tuple[str, list[Statement]]]:
    """Yield what is done to a table in one way, and the statements that do it."""
    name = declared.table.name
    with closing(sqlite3.connect(path)) as opened:
        opened.row_factory = sqlite3.Row
        rows = [dict(row) for row in opened.execute(f"SELECT rowid AS _row, * FROM {name}")]
    assert len(rows) >= 2, f"{name} has nothing to attack"
    if how == "swap":
        yield "two rows", _swapped(declared, rows[0], rows[-1])
    elif how == "insert":
        new = {key: _other(rows[-1][key]) for key in (*declared.key, *declared.unique)}
        yield "a row", [_put(declared, {**rows[-1], **new})]
    for row in (rows[0], rows[len(rows) // 2], rows[-1]):
        where = f"WHERE rowid = {row['_row']}"
        if how == "delete":
            yield str(row), [(f"DELETE FROM {name} {where}", [])]
        for column in declared.table.columns if how in ("null", "change") else ():
            changed = "[7]" if isinstance(column.type, JsonText) else _other(row[column.name])
            value = None if how == "null" else changed
            if value != row[column.name]:
                change = f'UPDATE {name} SET "{column.name}" = ? {where}'
                yield f"{column.name} of {row}", [(change, [value])]


def _other(value: Any) -> Any:
    return f"{value} " if isinstance(value, str) else (value or 0) + 100


def _swapped(declared: Declared, *pair: dict[str, Any]) -> list[Statement]:
    """Each of two rows under the other's key."""
    taken = f"DELETE FROM {declared.table.name} WHERE rowid IN (?, ?)"
    keys = [{name: row[name] for name in declared.key} for row in pair]
    return [
        (taken, [row["_row"] for row in pair]),
        *(_put(declared, {**row, **key}) for row, key in zip(pair, reversed(keys), strict=True)),
    ]


def _put(declared: Declared, row: dict[str, Any]) -> Statement:
    columns = [column.name for column in declared.table.columns]
    names, marks = ", ".join(f'"{name}"' for name in columns), ", ".join("?" * len(columns))
    put = f"INSERT INTO {declared.table.name} ({names}) VALUES ({marks})"
    return put, [row[name] for name in columns]


def done(path: Path, statements: list[Statement]) -> bool:
    """Do it past every guard, which is there again afterwards; false where no row can be so."""
    query = "SELECT type, name, sql FROM sqlite_master WHERE type IN ('trigger', 'index') "
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute("PRAGMA ignore_check_constraints = ON")
        guards = opened.execute(f"{query} AND sql IS NOT NULL").fetchall()
        for kind, name, _ in guards:
            opened.execute(f"DROP {kind} {name}")
        try:
            for statement, values in statements:
                opened.execute(statement, values)
            for *_, again in guards:
                opened.execute(again)
        except sqlite3.IntegrityError:
            return False
    return True


def test_row_that_nobody_touched_is_no_problem(filled: Path) -> None:
    assert problems(filled, anchored(filled)) == []


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("table", TABLES)
def test_attack_on_a_table_is_found_or_is_said_not_to_be(
    filled: Path, tmp_path: Path, table: str, how: str
) -> None:
    anchor, declared, path = anchored(filled), TABLES[table], tmp_path / "ops.db"
    is_found = not declared.uncovered or table == CHAIN
    for what, statements in attacks(filled, declared, how):
        shutil.copy(filled, path)
        if done(path, statements):
            found = problems(path, anchor)
            assert bool(found) == is_found, f"{how} {what}: {found}"


def test_every_guard_that_is_dropped_is_named(filled: Path, tmp_path: Path) -> None:
    anchor, path = anchored(filled), tmp_path / "ops.db"
    query = "SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL AND type <> 'table'"
    with closing(sqlite3.connect(filled)) as opened:
        guards = opened.execute(query).fetchall()
    assert len(guards) > 3 * sum(item.append_only for item in DECLARED)
    for kind, name in guards:
        shutil.copy(filled, path)
        with closing(sqlite3.connect(path)) as opened:
            opened.execute(f"DROP {kind} {name}")
        assert problems(path, anchor) == [f"{kind} {name} of the database is gone"]


@pytest.mark.parametrize("table", [name for name, item in TABLES.items() if item.uncovered])
def test_table_that_is_not_covered_is_named_in_the_docs_with_its_reason(table: str) -> None:
    said = " ".join((PACKAGE_PARENT / "docs" / "security.md").read_text().split())
    assert f"`{table}` ({TABLES[table].uncovered})" in said


def test_table_that_is_neither_covered_nor_said_not_to_be_is_refused() -> None:
    with pytest.raises(TypeError, match="covered by events, or `uncovered`"):
        Declared(Projection, "another", key=("use_case", "target"))
    metadata.remove(metadata.tables["another"])
