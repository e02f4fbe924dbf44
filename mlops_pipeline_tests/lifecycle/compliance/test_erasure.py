"""Forgetting one customer in the lake: what is gone, what stays, what does not come back."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from mlops_pipeline.errors import DataError, LeaseError, NotFoundError, StateError
from mlops_pipeline.lifecycle.bookkeeping import get_pointer, set_pointer
from mlops_pipeline.lifecycle.compliance.erasure import find, forget, get_tombstone, person_of
from mlops_pipeline.lifecycle.compliance.erasure_lake import PersonRows
from mlops_pipeline.lifecycle.context import AcceptedSource, Context
from mlops_pipeline.lifecycle.features.leak_check import leak_check
from mlops_pipeline.lifecycle.features.offline import features_uri
from mlops_pipeline.lifecycle.ingest.accepted import (
    accepted_sources,
    register_accepted,
)
from mlops_pipeline.lifecycle.ingest.ingestion import EVERY, forgotten_pseudonyms
from mlops_pipeline.lifecycle.retrain import new_data_evidence
from mlops_pipeline.stores.files import write_json
from mlops_pipeline.stores.lake import tables
from mlops_pipeline.stores.ops import HeldLease, OpsDatabase
from mlops_pipeline_tests.lifecycle.compliance.erasure_world import (
    CUSTOMERS,
    GONE,
    NAME,
    case,
    content,
    deliver,
    erase,
    files_with,
    ingest_and_accept,
    lifecycle,
    visits,
)
from mlops_pipeline_tests.worlds import NOW, World, accept_all, on, stored_rows, utc


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A shop with three finished periods; tests work on copies."""
    world = World(case(), tmp_path_factory.mktemp("shop"))
    deliver(world, CUSTOMERS)
    lifecycle(world)
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return copied(made, tmp_path / "shop")


def copied(world: World, folder: Path) -> World:
    shutil.copytree(world.folder, folder)
    return replace(world, folder=folder, deliveries=dict(world.deliveries))


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The shop as it would be if the customer had never been there; tests only read it."""
    world = World(case(), tmp_path_factory.mktemp("without"))
    deliver(world, tuple(item for item in CUSTOMERS if item != GONE))
    lifecycle(world)
    return world


# what is gone, what stays


def test_forget_leaves_the_lake_of_a_world_without_the_person(world: World, without: World) -> None:
    (erased,) = erase(world)
    assert erased.found.rows == {
        "raw/plans": 2,
        "raw/visits": 4,
        "quarantine/visits": 1,
        f"features/{Path(_features(world)).name}": 3,
        "predictions": 3,
        "trial_predictions": 3,
    }
    assert content(world) == content(without)


def test_forget_leaves_no_byte_of_the_person_in_the_lake(world: World) -> None:
    assert _held_with_checkpoints(world) == 7  # the log holds no values of columns
    erase(world)
    assert files_with(world.folder / "lake", NAME) == []
    assert files_with(world.folder / "lake", "name of 3") != []


def test_forget_leaves_no_byte_of_the_person_in_tables_made_with_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = {key: value for key, value in tables.PROPERTIES.items() if key != tables.STATISTICS}
    world = World(case(), tmp_path / "shop")
    with monkeypatch.context() as before:
        before.setattr(tables, "PROPERTIES", earlier)
        deliver(world, CUSTOMERS)
        lifecycle(world)
    assert _held_with_checkpoints(world) > 8
    erase(world)
    assert files_with(world.folder / "lake", NAME) == []
    assert files_with(world.folder / "lake", "name of 3") != []
    lifecycle(world, as_of=utc(on(5)))
    assert files_with(world.folder / "lake", NAME) == []


def _held_with_checkpoints(world: World) -> int:
    """How many files hold the person, with checkpoints and a file of a writer that was killed."""
    for uri in (_features(world), f"{world.settings.lake_uri}/shop/raw/visits"):
        DeltaTable(uri).create_checkpoint()
    orphan = world.folder / "lake" / "shop" / "raw" / "visits" / "part-left.parquet#1"
    orphan.write_text(NAME)
    return len(files_with(world.folder / "lake", NAME))


def test_person_does_not_come_back_and_the_others_go_on(
    world: World, without: World, tmp_path: Path
) -> None:
    erase(world)
    without = copied(without, tmp_path / "without")
    for one, customers in ((world, CUSTOMERS), (without, (1, 3))):
        one.deliver("visits", visits(customers, (4,)))
        done = lifecycle(one, as_of=utc(on(5)))
        assert done["visits"].rows_added == 2
        assert done["plans"].rows_added == 0
    assert done["visits"].rows_erased == 0
    assert lifecycle(world, as_of=utc(on(5)))["visits"].rows_erased == 5
    assert content(world) == content(without)
    with world.open() as work:
        numbers = [row["_row_no"] for row in stored_rows(work, _raw(work, "visits"))]
        assert numbers == sorted(set(numbers))
        assert max(numbers) == 16  # 15 were given before; the person's stay free
        accepted = register_accepted(work, accept_all(work))
        assert accepted
        assert leak_check(work, accept_all(work)).passed


def test_next_validation_finds_the_quarantine_as_it_is(world: World) -> None:
    erase(world)
    with world.open() as work:
        before = work.lake.commit_metadata(work.lake.table_uri("shop", "quarantine", "visits"))
        item = accept_all(work)["visits"]
        after = work.lake.commit_metadata(work.lake.table_uri("shop", "quarantine", "visits"))
    assert (item.quarantined, item.removed, item.numbered) == (2, 4, 15)
    assert after == before


def test_files_that_are_ingested_anew_bring_only_the_others(world: World, without: World) -> None:
    erase(world)
    shutil.rmtree(world.folder / "lake")
    done = lifecycle(world)
    assert (done["visits"].rows_erased, done["plans"].rows_erased) == (4, 2)
    assert content(world) == content(without)


def test_forget_again_changes_nothing(world: World) -> None:
    erase(world)
    before = content(world)
    (erased,) = erase(world)
    assert (dict(erased.found.rows), erased.online) == ({}, 0)
    assert content(world) == before


def test_person_is_asked_for_with_leading_zeros(world: World) -> None:
    person = person_of(world.settings, [world.use_case], "002", EVERY)
    assert find(person, world.settings)[0].rows["raw/visits"] == 4
    for other in (NAME, "2.4"):
        with pytest.raises(DataError, match="not of the key's type") as caught:
            person_of(world.settings, [world.use_case], other, EVERY)
        assert other not in str(caught.value)


# versions


def test_accepted_version_behind_the_newest_is_kept_apart_from_it(world: World) -> None:
    with world.open() as work, OpsDatabase.open(world.settings.database_url) as ops:
        accepted = get_pointer(ops, "shop", "accepted")
        assert accepted is not None
        world.deliver("visits", visits((1, GONE), (4,)))
        ingest_and_accept(work, ops)
        set_pointer(ops, "shop", "accepted", accepted.value, run_id="refused", now=NOW)
    erase(world)
    with world.open() as work, OpsDatabase.open(world.settings.database_url) as ops:
        held = accepted_sources(ops, work.use_case)
        register_accepted(work, held)
        rows = work.engine.query(
            'SELECT max("at"), count(*), count(*) FILTER (customer = 2) FROM visits'
        )
        assert rows == [(on(3, 12), 9, 0)]
        assert len(stored_rows(work, _raw(work, "visits"))) == 12
        newest = accept_all(work)["visits"]
    assert (held["visits"].rows, held["visits"].quarantined, held["visits"].removed) == (9, 2, 4)
    assert (newest.rows, newest.quarantined, newest.removed) == (10, 2, 5)


def test_recorded_versions_that_held_the_person_are_named_and_gone(world: World) -> None:
    late = 9
    with world.open() as work, OpsDatabase.open(world.settings.database_url) as ops:
        first = accepted_sources(ops, work.use_case)
        _record(work, 1, first)
        world.deliver("visits", visits((late,), (4,)))
        ingest_and_accept(work, ops)
        second = accepted_sources(ops, work.use_case)
        _record(work, 2, second)
    (erased,) = erase(world, late)
    assert dict(erased.found.model_versions) == {2: [f"visits@{second['visits'].version}"]}
    assert erased.model_versions == (2,)
    with world.open() as work:
        uri = _raw(work, "visits")
        assert work.lake.state(uri, second["visits"].version) is None
        kept = work.lake.state(uri, first["visits"].version)
        assert kept is not None
        assert work.engine.query(f"SELECT count(*) FROM {work.engine.scan(kept)}") == [(15,)]
        with pytest.raises(NotFoundError, match="erased with a person"):
            register_accepted(work, second)


def test_versions_whose_data_went_with_somebody_else_are_named_too(world: World) -> None:
    with world.open() as work, OpsDatabase.open(world.settings.database_url) as ops:
        accepted = accepted_sources(ops, work.use_case)
        _record(work, 1, accepted)
    erase(world, 1)
    (erased,) = erase(world, 2)
    assert erased.model_versions == (1,)
    assert f"visits@{accepted['visits'].version} (gone)" in erased.found.model_versions[1]


@pytest.mark.parametrize(("by", "reason"), [("", "asked"), ("ada", "  ")])
def test_forget_without_a_name_or_a_reason_is_refused(world: World, by: str, reason: str) -> None:
    before = content(world)
    with pytest.raises(StateError, match="What a person decides needs"):
        erase(world, by=by, reason=reason)
    assert content(world) == before


def _record(work: Context, version: int, accepted: dict[str, AcceptedSource]) -> None:
    folder = work.lake.artifact_folder("shop", f"f{version}-release")
    folder.mkdir(parents=True)
    write_json(folder / "metadata.json", {"version": version})
    sources = {name: item.to_dict() for name, item in accepted.items()}
    write_json(folder / "data_snapshot.json", {"sources": sources})


# killed, refused, unknown


@pytest.mark.parametrize("step", ["erase_periods", "purge"])
def test_forget_that_was_killed_is_finished_by_the_next(
    world: World, without: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def killed(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PersonRows, step, killed)
        with pytest.raises(KeyboardInterrupt):
            erase(world)
    with world.open() as work, OpsDatabase.open(world.settings.database_url) as ops:
        ingest_and_accept(work, ops)  # a lifecycle in between reads what is there
        (pseudonym,) = forgotten_pseudonyms(ops, "shop", "customer")
        held = get_tombstone(ops, "customer", pseudonym, EVERY)
        assert held is not None
        assert held.finished_at is None
    erase(world)
    assert content(world) == content(without)
    assert files_with(world.folder / "lake", NAME) == []
    with OpsDatabase.open(world.settings.database_url) as ops:
        held = get_tombstone(ops, "customer", pseudonym, EVERY)
        assert held is not None
        assert held.finished_at == NOW
        (done,) = ops.audit_events(kind="forgotten")
        first, *_ = reversed(ops.audit_events(kind="forget"))
    assert done.detail["rows"] == first.detail["found"]["rows"] > 0


def test_forget_of_an_unknown_id_says_so_and_records_nothing(world: World) -> None:
    with pytest.raises(NotFoundError, match="nothing is known of a customer with this id"):
        erase(world, 99)
    with OpsDatabase.open(world.settings.database_url) as ops:
        assert forgotten_pseudonyms(ops, "shop", "customer") == frozenset()
        assert ops.audit_events(kind="forget") == []


def test_forget_waits_for_no_lifecycle(world: World) -> None:
    before = content(world)
    busy = HeldLease(
        world.settings.database_url,
        "lifecycle:shop",
        "run",
        clock=lambda: datetime.now(UTC),
        heartbeat_s=0.05,
    )
    with busy, pytest.raises(LeaseError):
        erase(world)
    assert content(world) == before
    with OpsDatabase.open(world.settings.database_url) as ops:
        assert forgotten_pseudonyms(ops, "shop", "customer") == frozenset()


def test_person_of_a_file_that_was_not_ingested_is_kept_out(world: World) -> None:
    world.deliver("visits", visits((77,), (4,)))
    (erased,) = erase(world, 77)
    assert (dict(erased.found.rows), erased.found.delivered["visits"]) == ({}, 1)
    assert lifecycle(world)["visits"].rows_erased == 1


def test_new_data_of_a_forgotten_person_are_no_new_data(world: World) -> None:
    world.deliver("visits", visits((GONE,), (5,)))
    settings = replace(world.settings, fixed_now=NOW)
    with OpsDatabase.open(settings.database_url) as ops:
        seen = [new_data_evidence(world.use_case, settings, ops, "new_data", now=NOW).has_new_data]
        erase(world)
        seen += [new_data_evidence(world.use_case, settings, ops, "new_data", now=NOW).has_new_data]
    assert seen == [True, False]


# other use cases


def test_only_the_named_use_case_forgets(world: World) -> None:
    other = replace(world, use_case=case("other"))
    lifecycle(other)
    before = {path: path.read_bytes() for path in _lake_files(world, "other")}
    erase(world, scope="shop")
    assert {path: path.read_bytes() for path in _lake_files(world, "other")} == before
    with OpsDatabase.open(world.settings.database_url) as ops:
        assert len(forgotten_pseudonyms(ops, "shop", "customer")) == 1
        assert forgotten_pseudonyms(ops, "other", "customer") == frozenset()


def test_every_use_case_of_the_entity_forgets(world: World) -> None:
    other = replace(world, use_case=case("other"))
    lifecycle(other)
    person = person_of(world.settings, [world.use_case, other.use_case], str(GONE), EVERY)
    with OpsDatabase.open(world.settings.database_url) as ops:
        done = forget(person, world.settings, ops, by="ada", reason="asked for it")
        assert forgotten_pseudonyms(ops, "one that is still to come", "customer") == {
            person.pseudonym
        }
        events = [ops.audit_events(kind=kind)[0] for kind in ("forgotten", "forget")]
    assert [item.found.use_case for item in done] == ["shop", "other"]
    assert files_with(world.folder / "lake", NAME) == []
    assert events[0].detail["rows"] == 32
    assert {event.detail["pseudonym"] for event in events} == {person.pseudonym}


def _features(world: World) -> str:
    with world.open() as work:
        return features_uri(work)


def _raw(work: Context, source: str) -> str:
    return work.lake.table_uri(work.use_case.name, "raw", source)


def _lake_files(world: World, use_case: str) -> list[Path]:
    folder = world.folder / "lake" / use_case
    return [path for path in folder.rglob("*") if path.is_file()]
