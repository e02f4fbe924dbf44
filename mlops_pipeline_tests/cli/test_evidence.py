"""What a version was approved on, attacked outside of the ledger: every file, and MLflow's links.

Each attack is found by `mlops audit verify`, and no attack on a file makes another model decide.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mlops_pipeline.errors import MlopsError
from mlops_pipeline.lifecycle.champions import champion_rollout, released_model
from mlops_pipeline.lifecycle.compliance.anchors import NOTE_OF_LOADING, verify_audit
from mlops_pipeline.lifecycle.compliance.erasure import forget, person_of
from mlops_pipeline.stores.ops import Pointer
from mlops_pipeline_tests.world import FIRST_ID, World

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
FOLDERS = ("*-release", "[0-9a-f]*[0-9a-f]", "mlflow", "features/*", "raw/accounts")
TAGS = ("approval_state", "as_of", "complete", "dagster_run_id", "metadata_uri", "mlflow_run_id",
        "run_fingerprint")  # fmt: skip
LINKS = {
    "an alias elsewhere": "UPDATE registered_model_aliases SET version = 9",
    "an alias gone": "DELETE FROM registered_model_aliases",
    "an alias more": "INSERT INTO registered_model_aliases (alias, version, name) "
    "VALUES ('challenger', 1, 'churn')",
    "another run": "UPDATE model_versions SET run_id = 'x'",
    "another source": "UPDATE model_versions SET source = '{elsewhere}'",
    "another location": "UPDATE model_versions SET storage_location = '{elsewhere}'",
    "another location of the model": "UPDATE logged_models SET artifact_location = '{elsewhere}'",
    "another name": "UPDATE model_versions SET version = 7",
    "another version": "INSERT INTO model_versions (name, version, source, run_id, "
    "storage_location, current_stage, status, workspace) SELECT name, 8, source, run_id, "
    "'{elsewhere}', current_stage, status, workspace FROM model_versions; "
    "INSERT INTO model_version_tags (key, value, name, version, workspace) "
    "SELECT key, value, name, 8, workspace FROM model_version_tags",
    "a version gone": "UPDATE model_versions SET current_stage = 'Deleted_Internal'",
    **{
        f"{tag}, changed": f"UPDATE model_version_tags SET value = 'x' WHERE key = '{tag}'"
        for tag in TAGS
    },
    **{f"{tag}, gone": f"DELETE FROM model_version_tags WHERE key = '{tag}'" for tag in TAGS},
}


@pytest.fixture(scope="module")
def attacked(template: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    return template.copy_to(tmp_path_factory.mktemp("attacked") / "world")


def problems(world: World) -> list[str]:
    return [str(problem) for problem in verify_audit(world.settings)[0].problems]


def decides_as(world: World) -> dict[str, str] | None:
    """The files of the model that decides; None if none may."""
    with world.ops() as ops:
        try:
            champion = champion_rollout(ops, world.use_case, now=world.settings.now())
            model = released_model(ops, world.settings, world.use_case, champion.fingerprint)
        except MlopsError:
            return None
    return dict(model.files)


def folder(world: World, place: str) -> Path:
    if "/" in place:
        (table,) = (world.data / "lake" / "churn").glob(place)
        return table
    if place != "mlflow":
        found = sorted(path for path in world.artifacts.glob(place) if path.is_dir())
        return next(path for path in found if path.name not in ("data_docs", "fairness_audit"))
    rows = world.mlflow("SELECT COALESCE(storage_location, source) FROM model_versions")
    return Path(str(rows[0][0]).removeprefix("file://"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def exchange(path: Path) -> None:
    other = next(item for item in sorted(path.parent.iterdir()) if item.is_file() and item != path)
    path.write_bytes(other.read_bytes())


def files(world: World, place: str) -> Iterator[Path]:
    found = sorted(path for path in folder(world, place).rglob("*") if path.is_file())
    yield from (path for path in found if path.name != NOTE_OF_LOADING)


def test_evidence_that_nobody_touched_is_no_problem(attacked: World) -> None:
    assert problems(attacked) == []
    assert decides_as(attacked)
    tags = attacked.mlflow("SELECT key FROM model_version_tags ORDER BY key")
    assert tuple(tag for (tag,) in tags) == TAGS  # each is attacked below


def test_evidence_without_a_person_who_was_forgotten_is_no_problem(
    template: World, tmp_path: Path
) -> None:
    world = template.copy_to(tmp_path / "world")
    person = person_of(world.settings, [world.use_case], str(FIRST_ID + 7), "*")
    with world.ops() as ops:
        before = ops.find(Pointer, name="tables")
        forget(person, world.settings, ops, by="Ann", reason="asked")
        after = ops.find(Pointer, name="tables")
    assert before is not None
    assert after is not None
    assert before.value.keys() == after.value.keys()
    changed = {name for name in before.value if before.value[name] != after.value[name]}
    assert {"raw/accounts"} < changed
    assert problems(world) == []


@pytest.mark.parametrize("attack", [flip, cut, exchange, Path.unlink])
@pytest.mark.parametrize("place", FOLDERS)
def test_file_of_a_version_that_was_touched_is_named(
    attacked: World, tmp_path: Path, place: str, attack: Callable[[Path], None]
) -> None:
    before, kept = decides_as(attacked), tmp_path / "kept"
    for path in files(attacked, place):
        siblings = [item for item in path.parent.iterdir() if item.is_file()]
        if path.stat().st_size == 0 or (attack is exchange and len(siblings) < 2):
            continue
        shutil.copy(path, kept)
        attack(path)
        found, now = problems(attacked), decides_as(attacked)
        shutil.copy(kept, path)
        assert any(path.name in problem for problem in found), (path, found)
        assert now in (None, before)


@pytest.mark.parametrize("place", ["*-release", "mlflow"])
def test_file_that_was_put_beside_those_of_a_version_is_named(attacked: World, place: str) -> None:
    added = folder(attacked, place) / "added.py"
    added.write_text("print('hello')")
    found = problems(attacked)
    added.unlink()
    assert [problem for problem in found if "added.py is put there" in problem]


@pytest.mark.parametrize("link", LINKS)
def test_link_of_mlflow_that_was_bent_is_named(attacked: World, tmp_path: Path, link: str) -> None:
    elsewhere, before = tmp_path / "elsewhere", decides_as(attacked)
    shutil.copytree(folder(attacked, "mlflow"), elsewhere)
    flip(elsewhere / "artifacts" / "model" / "model.json")
    path = attacked.data / "mlflow" / "mlflow.db"
    with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(tmp_path / "db")) as kept:
        live.backup(kept)
        live.executescript(LINKS[link].format(elsewhere=elsewhere))
        live.commit()
        found, now = problems(attacked), decides_as(attacked)
        kept.backup(live)
    assert found, link
    assert now == before
