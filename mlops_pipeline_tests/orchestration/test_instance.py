"""Dagster's own state."""

import os
import stat
import subprocess
import sys
from pathlib import Path

from mlops_pipeline.stores.settings import PACKAGE_PARENT

OPEN = """
import dagster
with dagster.DagsterInstance.get() as instance, instance.from_ref(instance.get_ref()) as again:
    assert again.get_runs() == []
    log = instance.compute_log_manager.get_captured_local_path(["x"], "out")
    print(instance.storage_directory(), log)
"""


def test_state_of_dagster_lies_in_the_data_folder_and_is_private(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "MLOPS_DATA_DIR": str(tmp_path / "data"),
        "DAGSTER_HOME": str(PACKAGE_PARENT),
    }
    done = subprocess.run(
        ["/bin/sh", "-c", 'umask 022; exec "$@"', "sh", sys.executable, "-c", OPEN],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    state = tmp_path / "data" / "dagster"
    assert done.stdout.split() == [str(state / "storage"), str(state / "logs" / "x.out")]
    made = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
    assert state / "history" / "runs.db" in made
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in made} == {0}
