"""Scratch folders: gone after the work, and after a kill with the next piece of work."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_pipeline.stores.files import SCRATCH, scratch_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from mlops_pipeline.stores.files import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "rows").write_text("of people")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_scratch_folder_is_gone_at_the_end_and_after_an_error(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with scratch_folder(data) as folder:
        (folder / "file").touch()
        assert names(data) == {folder.name}
    with pytest.raises(ValueError, match="broken"), scratch_folder(data):
        raise ValueError("broken")
    assert names(data) == set()


def test_scratch_folder_of_a_killed_process_goes_with_the_next(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    assert (left / "rows").is_file()
    with scratch_folder(tmp_path) as folder:
        assert names(tmp_path) == {folder.name}


def test_scratch_folders_of_others_at_work_are_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / f"{SCRATCH}another-host-1-abc"
    elsewhere.mkdir()
    parent = tmp_path / f"{SCRATCH}{socket.gethostname()}-{os.getppid()}-abc"
    parent.mkdir()
    with scratch_folder(tmp_path) as first, scratch_folder(tmp_path) as second:
        assert names(tmp_path) == {elsewhere.name, parent.name, first.name, second.name}
    assert names(tmp_path) == {elsewhere.name, parent.name}
