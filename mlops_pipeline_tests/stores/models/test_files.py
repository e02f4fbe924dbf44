from pathlib import Path

import pytest

from mlops_pipeline.errors import ModelFilesError
from mlops_pipeline.stores.models.files import (
    pinned_digests,
    read_checked,
    read_pinned,
    texts,
    write_files,
)

FILES = {"model.json": '{"kind": "dummy"}\n', "model.txt": "tree\n\nünï"}


def test_files_read_are_those_written(tmp_path: Path) -> None:
    recorded = write_files(tmp_path / "model", FILES)
    assert read_checked(tmp_path / "model", recorded) == FILES
    assert [len(value) for value in recorded.values()] == [64, 64]


@pytest.mark.parametrize("change", ["edited", "removed", "added", "folder gone", "never recorded"])
def test_files_that_are_not_those_recorded_are_refused(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "model"
    recorded = write_files(folder, FILES)
    if change == "edited":
        (folder / "model.txt").write_text("another tree")
    elif change == "removed":
        (folder / "model.txt").unlink()
    elif change == "added":
        (folder / "more.txt").write_text("")
    elif change == "folder gone":
        folder.rename(tmp_path / "elsewhere")
    else:
        recorded = {}
    with pytest.raises(ModelFilesError, match="are not those that were released") as caught:
        read_checked(folder, recorded)
    assert str(folder) in str(caught.value)
    assert "restore the folder from a backup" in str(caught.value)


def test_pinned_files_are_read_by_path_beside_others_that_were_not_recorded(tmp_path: Path) -> None:
    write_files(tmp_path / "model", FILES)
    recorded = pinned_digests(tmp_path)
    (tmp_path / "report.html").write_text("later")
    found = read_pinned(tmp_path, recorded, way_out="again")
    assert texts(found, "model/") == FILES


@pytest.mark.parametrize("change", ["edited", "removed", "never recorded"])
def test_pinned_files_that_changed_are_refused_with_the_way_out(
    tmp_path: Path, change: str
) -> None:
    write_files(tmp_path / "model", FILES)
    recorded = {} if change == "never recorded" else pinned_digests(tmp_path)
    if change == "edited":
        (tmp_path / "model" / "model.txt").write_text("another tree")
    elif change == "removed":
        (tmp_path / "model" / "model.txt").unlink()
    with pytest.raises(ModelFilesError, match="are not those that were recorded") as caught:
        read_pinned(tmp_path, recorded, way_out="materialize trained_model again")
    assert "materialize trained_model again" in str(caught.value)
