"""Whatever the owner of a database does to its chain is found and named."""

import multiprocessing
from collections.abc import Sequence

import pytest

from mlops_pipeline.core.audit.anchors import Anchor
from mlops_pipeline.core.audit.chain import MAX_PROBLEMS, ChainCheck, NewAuditEvent
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.ops.audit import stored_events
from mlops_pipeline_tests.sizes import size
from mlops_pipeline_tests.stores.ops.tampering import tamper
from mlops_pipeline_tests.stores.ops.timestamps import NOON, later

WRITERS, EVENTS_EACH, AT_ONCE = 8, size(625, 12_500), 125
FLIPS = {  # what a flipped byte makes of event 5
    "at": "at + 1",
    "use_case": "'chusn'",
    "kind": "'decisioo'",
    "actor": "'adb'",
    "detail": "'{\"number\":6}'",
    "recorded_at": "NULL",
    "previous_hash": "'z' || substr(previous_hash, 2)",
    "hash": "'z' || substr(hash, 2)",
}


def write(url: str, writer: int) -> None:
    with OpsDatabase.open(url) as own:
        for first in range(0, EVENTS_EACH, AT_ONCE):
            own.append(
                [
                    NewAuditEvent("read", {"number": number}, "churn", f"run {writer}", NOON)
                    for number in range(first, first + AT_ONCE)
                ]
            )


def fill(database: OpsDatabase, events: int = 10) -> list[str]:
    """Append events; return their hashes."""
    appended = database.append(
        [
            NewAuditEvent("decision", {"number": number}, "churn", "ada", later(number))
            for number in range(1, events + 1)
        ]
    )
    return [event.hash for event in appended]


def swap(left: int, right: int) -> tuple[str, str, str]:
    change = "UPDATE audit_event SET seq = {} WHERE seq = {}"
    return change.format(-1, left), change.format(left, right), change.format(right, -1)


def check(database: OpsDatabase, anchors: Sequence[Anchor] = ()) -> ChainCheck:
    found = ChainCheck(anchors)
    for event in stored_events(database):
        found.add(event)
    found.finish()
    return found


def problems(database: OpsDatabase, anchors: Sequence[Anchor] = ()) -> list[str]:
    return [str(problem) for problem in check(database, anchors).problems]


def anchor(count: int, head: str) -> Anchor:
    return Anchor(count, head, "file", "line 1 of the anchors file")


def at(number: int) -> str:
    return f"event {number} (decision, 2024-05-01T12:00:{number:02}.000000+00:00)"


ALTERED = "altered: its content does not give its hash"


def test_chain_that_nobody_touched_is_whole(database: OpsDatabase) -> None:
    hashes = fill(database)
    found = check(database, [anchor(4, hashes[3]), anchor(7, hashes[6])])
    assert (found.problems, found.count, found.head, found.anchored) == ([], 10, hashes[9], 7)


@pytest.mark.parametrize("column", FLIPS)
def test_flipped_byte_in_a_column_names_the_event(database: OpsDatabase, column: str) -> None:
    fill(database)
    tamper(database, f"UPDATE audit_event SET {column} = {FLIPS[column]} WHERE seq = 5")
    (found,) = check(database).problems
    assert found.event is not None
    assert (found.event.seq, found.what) == (5, ALTERED)


def test_flipped_byte_in_the_number_names_where_it_was(database: OpsDatabase) -> None:
    fill(database)
    tamper(database, "UPDATE audit_event SET seq = 13 WHERE seq = 5")
    assert problems(database) == [
        f"{at(6)}: event 5 is missing before it",
        "event 13 (decision, 2024-05-01T12:00:05.000000+00:00): "
        "events 11 to 12 are missing before it",
        "event 13 (decision, 2024-05-01T12:00:05.000000+00:00): "
        "out of place: it is what event 5 was",
    ]


def test_blank_in_a_detail_that_says_the_same_is_found(database: OpsDatabase) -> None:
    fill(database)
    tamper(database, "UPDATE audit_event SET detail = '{\"number\": 5}' WHERE seq = 5")
    assert problems(database) == [f"{at(5)}: {ALTERED}"]


@pytest.mark.parametrize(("column", "value"), [("at", 2**62), ("detail", "'nonsense'")])
def test_value_that_cannot_be_read_is_found(
    database: OpsDatabase, column: str, value: object
) -> None:
    fill(database)
    tamper(database, f"UPDATE audit_event SET {column} = {value} WHERE seq = 5")
    (found,) = check(database).problems
    assert found.event is not None
    assert (found.event.seq, found.what) == (5, ALTERED)


@pytest.mark.parametrize("value", ["CAST(x'616461ff' AS TEXT)", "x'616461'"])
def test_bytes_that_are_no_text_are_found(tmp_path: object, value: str) -> None:
    with OpsDatabase.open(f"sqlite:///{tmp_path}/ops.db") as database:
        fill(database)
        tamper(database, f"UPDATE audit_event SET actor = {value} WHERE seq = 5")
        assert problems(database) == [f"{at(5)}: {ALTERED}"]
        assert database.append_audit("x", {}, use_case=None, actor="é", now=later(0)).seq == 11


def test_deleted_rows_are_named(database: OpsDatabase) -> None:
    fill(database)
    tamper(database, "DELETE FROM audit_event WHERE seq IN (1, 5, 6)")
    assert problems(database) == [
        f"{at(2)}: event 1 is missing before it",
        f"{at(7)}: events 5 to 6 are missing before it",
    ]


@pytest.mark.parametrize(("left", "right"), [(5, 6), (3, 9), (1, 10)])
def test_swapped_rows_are_named(database: OpsDatabase, left: int, right: int) -> None:
    fill(database)
    tamper(database, *swap(left, right))
    found = {problem.event.seq: problem.what for problem in check(database).problems
             if problem.event}  # fmt: skip
    assert found == {
        left: f"out of place: it is what event {right} was",
        right: f"out of place: it is what event {left} was",
    }


def test_swapped_contents_under_hashes_that_stay_are_named(database: OpsDatabase) -> None:
    fill(database)
    change = "UPDATE audit_event SET at = {0}, detail = {1} WHERE seq = {2}"
    micros = [int(later(number).timestamp()) * 1_000_000 for number in (3, 9)]
    tamper(
        database,
        change.format(micros[1], "'{\"number\":9}'", 3),
        change.format(micros[0], "'{\"number\":3}'", 9),
    )
    assert {problem.what for problem in check(database).problems} == {
        "out of place: it is what event 9 was",
        "out of place: it is what event 3 was",
    }


def test_rewritten_event_with_a_right_hash_breaks_its_link(database: OpsDatabase) -> None:
    fill(database)
    *_, fifth = [event for event in stored_events(database) if event.seq <= 5]
    forged = '{"number":500}'
    tamper(database, f"UPDATE audit_event SET detail = '{forged}' WHERE seq = 5")
    *_, changed = [event for event in stored_events(database) if event.seq <= 5]
    new_hash = changed.hash_as(5, fifth.previous_hash)
    tamper(database, f"UPDATE audit_event SET hash = '{new_hash}' WHERE seq = 5")
    assert problems(database) == [f"{at(6)}: it does not follow event 5: one of them was rewritten"]


def test_tail_cut_behind_its_anchor_is_named(database: OpsDatabase) -> None:
    hashes = fill(database)
    tamper(database, "DELETE FROM audit_event WHERE seq > 6")
    assert problems(database) == []  # what remains is a chain
    anchors = [anchor(4, hashes[3]), anchor(9, hashes[8])]
    assert problems(database, anchors) == [
        "events 7 to 9 are gone, line 1 of the anchors file has them: the chain was cut"
    ]


@pytest.mark.parametrize("rewritten", [1, 5])
def test_chain_rewritten_from_an_event_on_is_named(database: OpsDatabase, rewritten: int) -> None:
    hashes = fill(database)
    tamper(database, f"DELETE FROM audit_event WHERE seq >= {rewritten}")
    database.append(
        [
            NewAuditEvent("decision", {"number": -number}, "churn", "ada", later(number))
            for number in range(rewritten, 11)
        ]
    )
    anchors = [anchor(count, hashes[count - 1]) for count in (3, 6, 8)]
    first, more = (1, 2) if rewritten == 1 else (4, 1)
    last = 3 if rewritten == 1 else 6
    assert problems(database) == []
    assert problems(database, anchors) == [
        f"events {first} to {last} are not what line 1 of the anchors file says, and {more} "
        f"later anchors differ: the chain was rewritten"
    ]
    assert check(database, anchors).anchored == (0 if rewritten == 1 else 3)


def test_everything_altered_is_counted_in_flat_memory(database: OpsDatabase) -> None:
    fill(database, 1_000)
    tamper(database, "UPDATE audit_event SET actor = 'eve'")
    found = check(database)
    assert (found.total, len(found.problems)) == (1_000, MAX_PROBLEMS)


@pytest.mark.sized
def test_events_of_eight_writers_and_every_tampering(
    database: OpsDatabase,
) -> None:
    database.close()  # nothing open is inherited
    forked = multiprocessing.get_context("fork")
    writers = [forked.Process(target=write, args=(database.url, n)) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=120)
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    count, head = database.audit_head()
    whole = check(database, [anchor(count, head)])
    every = WRITERS * EVENTS_EACH
    assert (whole.problems, whole.count, whole.anchored) == ([], every, every)
    altered, gone, one, other, last = (every * share // 100 for share in (4, 50, 78, 89, 99))
    tamper(
        database,
        "UPDATE audit_event SET detail = '{\"number\":-1}' || substr(detail, 99) "
        f"WHERE seq = {altered}",
        f"DELETE FROM audit_event WHERE seq = {gone}",
        *swap(one, other),
        f"DELETE FROM audit_event WHERE seq > {last}",
    )
    found = check(database, [anchor(count, head)])
    assert [(problem.event.seq if problem.event else None) for problem in found.problems] == [
        gone + 1, altered, one, other, None,
    ]  # fmt: skip
    assert str(found.problems[-1]) == (
        f"events {last + 1} to {every} are gone, line 1 of the anchors file has them: "
        "the chain was cut"
    )


def test_one_witness_that_differs_is_named_beside_one_that_agrees(database: OpsDatabase) -> None:
    hashes = fill(database)
    told = Anchor(6, "0" * 64, "MLflow", "MLflow's anchor of 6 events")
    anchors = [anchor(3, hashes[2]), anchor(6, hashes[5]), told, anchor(9, hashes[8])]
    assert problems(database, anchors) == [
        "events 4 to 6 are not what MLflow's anchor of 6 events says: the chain was rewritten"
    ]
    assert check(database, anchors).anchored == 9


def test_export_of_damaged_bytes_is_still_a_line(tmp_path: object) -> None:
    with OpsDatabase.open(f"sqlite:///{tmp_path}/ops.db") as database:
        fill(database, 1)
        tamper(database, "UPDATE audit_event SET actor = x'616461', detail = 'no', at = 'x'")
        (event,) = stored_events(database)
    assert event.document()["actor"] == "b'ada'"
    assert (event.document()["detail"], event.document()["at"]) == ("no", "x")


def test_newest_event_that_cannot_be_read_is_named_and_the_chain_goes_on(
    database: OpsDatabase,
) -> None:
    hashes = fill(database, 3)
    tamper(database, "UPDATE audit_event SET detail = 'no' WHERE seq = 3")
    assert database.audit_head() == (3, hashes[2])
    assert database.audit_hash(3) == hashes[2]
    database.append_audit("read", {"number": 4}, use_case="churn", actor="ada", now=NOON)
    (problem,) = check(database).problems
    assert problem.event is not None
    assert problem.event.seq == 3
