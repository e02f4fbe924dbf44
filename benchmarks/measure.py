"""Running a command in a process of its own and measuring its wall time and memory.

Belongs here: how a figure is taken. What is measured is in the benchmark's own file.
"""

import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlops_pipeline.lifecycle.provenance import LIBRARIES

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_SECONDS = 0.2
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
LAST_LINES = 15  # of a failed command's output, shown


class CommandFailedError(RuntimeError):
    """A measured command ended with an error; its last lines are the message."""


@dataclass(frozen=True)
class Measured:
    """One finished command.

    `cpu_seconds` is the processor time of the command and its children: less moved by what else
    runs on the machine than the wall time is.
    `peak_mb` is the largest process of the command (the kernel's ru_maxrss, its children
    included); `peak_tree_mb` the largest sum over all of its processes at one moment, sampled.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: int
    peak_tree_mb: int
    output: str


def run_measured(
    command: Sequence[str], *, extra: Mapping[str, str] | None = None, folder: Path = ROOT
) -> Measured:
    """Run a command and measure it.

    Parameters
    ----------
    extra : mapping of str to str, optional
        Environment variables beside those of this process.
    folder : Path
        Where it runs; default: the project's root.

    Raises
    ------
    CommandFailedError
        When the command ends with an error.
    """
    # LightGBM's threads wait asleep, in every command: spinning ones multiply the time on a
    # machine where anything else runs, and the ratios would measure that.
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", **(extra or {})}
    begun = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        watch = _TreeWatch(process.pid)
        watch.start()
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        watch.stop()
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        last = "\n".join(output.splitlines()[-LAST_LINES:])
        raise CommandFailedError(f"{' '.join(command[:6])} ended with {process.returncode}\n{last}")
    cpu = usage.ru_utime + usage.ru_stime
    return Measured(seconds, cpu, usage.ru_maxrss // 1024, watch.peak_bytes // 2**20, output)


def run_module(
    name: str,
    *arguments: str,
    extra: Mapping[str, str] | None = None,
    folder: Path = ROOT,
) -> Measured:
    """Run `python -m name` with this interpreter; see `run_measured`."""
    return run_measured([sys.executable, "-m", name, *arguments], extra=extra, folder=folder)


def machine() -> dict[str, Any]:
    """Return the kind of machine and how busy it is: no names, no paths."""
    memory = os.sysconf("SC_PHYS_PAGES") * PAGE_BYTES
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30),
        "machine": platform.machine(),
        "system": platform.system(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that shape the figures."""
    names = sorted({*LIBRARIES, "dagster", "mlflow", "duckdb", "deltalake", "ibis-framework"})
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


class _TreeWatch(threading.Thread):
    """Samples the resident memory of a process and all of its descendants (Linux)."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.root = root
        self.peak_bytes = 0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self.peak_bytes = max(self.peak_bytes, self._resident_bytes())

    def stop(self) -> None:
        self._done.set()
        self.join()

    def _resident_bytes(self) -> int:
        members, total = [self.root], 0
        while members:
            process = Path("/proc") / str(members.pop())
            try:
                total += int((process / "statm").read_text().split()[1]) * PAGE_BYTES
                for thread in (process / "task").iterdir():
                    members += [int(child) for child in (thread / "children").read_text().split()]
            except (OSError, IndexError, ValueError):
                continue  # it ended between two looks
        return total
