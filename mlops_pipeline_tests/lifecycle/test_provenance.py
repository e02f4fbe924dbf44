"""The commit of the code that a model is made with: the checkout's, the environment's, or none."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mlops_pipeline.errors import StateError
from mlops_pipeline.lifecycle.provenance import GitState, git_state
from mlops_pipeline.lifecycle.train import train_model
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline_tests.worlds import World, in_run, shop


def settings_in(root: Path, commit: str | None = None) -> Settings:
    found = Settings.from_environment({"MLOPS_DATA_DIR": str(root / "data")})
    return replace(found, root=root, git_commit=commit)


def git(root: Path, *words: str) -> str:
    author = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    done = subprocess.run(
        ["git", "-C", str(root), *author, *words],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_git_state_is_the_commit_and_whether_files_differ(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_state(settings_in(tmp_path)) == GitState(commit, is_dirty=False)
    (tmp_path / "file").write_text("two")
    assert git_state(settings_in(tmp_path)) == GitState(commit, is_dirty=True)


def test_git_state_of_the_environment_comes_first(tmp_path: Path) -> None:
    assert git_state(settings_in(tmp_path, "0123abc")) == GitState("0123abc", is_dirty=False)


def test_git_state_of_no_checkout_names_the_folder_and_the_variable(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="commit of this code is not known") as caught:
        git_state(settings_in(tmp_path))
    assert caught.value.where == str(tmp_path)
    assert "MLOPS_GIT_COMMIT" in str(caught.value.way_out)


def test_training_without_a_known_commit_fails_before_it_reads_or_trains(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with World(shop(), tmp_path).open() as opened:
        run = in_run(replace(opened, settings=settings_in(tmp_path)))
        with pytest.raises(StateError, match="commit of this code is not known"):
            train_model(run, start_mlflow_run=lambda: "run")
    assert [item.message for item in caplog.records if item.name == "run"] == []
