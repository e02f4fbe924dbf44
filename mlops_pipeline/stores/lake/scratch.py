"""Folders for the time of a piece of work: gone at its end, or, after a kill, with the next one.

They lie below the data folder, where there is room, and carry host and process in their name.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".scratch-"


@contextmanager
def scratch_folder(data_dir: Path) -> Iterator[Path]:
    """Yield an empty folder; those of this host's killed processes are removed first."""
    data_dir.mkdir(parents=True, exist_ok=True)
    mine = f"{PREFIX}{socket.gethostname()}-"
    for left in data_dir.glob(f"{mine}*"):
        if is_gone(int(left.name.removeprefix(mine).split("-")[0])):
            shutil.rmtree(left, ignore_errors=True)  # another may be at it
    with tempfile.TemporaryDirectory(prefix=f"{mine}{os.getpid()}-", dir=data_dir) as folder:
        yield Path(folder)


def is_gone(pid: int) -> bool:
    """Whether a process of this host no longer exists.

    On Windows signal 0 is not harmless, so there the answer is always "not known to be gone".
    """
    if os.name == "nt":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # alive, and somebody else's
    return False
