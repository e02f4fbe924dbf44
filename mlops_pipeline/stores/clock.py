"""The Clock: product time, the same in every process of a data folder.

Product time (as_of, due dates, cooldowns, retention, ages of features) is the system's time unless
MLOPS_NOW fixes it, or a file in the data folder moves it: in steps, or so many times as fast.
Machine time (timeouts, leases, rates, the end of keys, when an audit event was written) is always
real. The file is read again when it has changed; moving it is lifecycle/clock.py's.
"""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from mlops_pipeline.stores.files import new_file

FILE = "clock.json"


@dataclass(frozen=True)
class MovingClock:
    """Product time was `product` at machine time `machine`, and goes on `rate` times as fast.

    At rate 0 it stands until somebody steps it. It does not go beyond `until`, nor is it stepped
    beyond it by itself; None: nobody steps it by itself, and it runs on.
    """

    product: datetime
    machine: datetime
    rate: float
    until: datetime | None = None

    def at(self, machine: datetime) -> datetime:
        """Return the product time at a machine time."""
        time = self.product + (machine - self.machine) * self.rate
        return time if self.until is None else min(time, max(self.until, self.product))


def machine_now() -> datetime:
    """Return machine time (UTC, aware)."""
    return datetime.now(UTC)


def read_clock(data_dir: Path) -> MovingClock | None:
    """Return the Clock of a data folder; None where it is the system's."""
    path = f"{data_dir}/{FILE}"  # text: a prediction asks, and a Path would take most of the time
    try:
        found = os.stat(path)  # noqa: PTH116 - see above
    except FileNotFoundError:
        return None
    return _read(path, found.st_mtime_ns, found.st_ino)


def write_clock(data_dir: Path, clock: MovingClock | None) -> None:
    """Set the Clock of a data folder for every process; None: the system's from now on."""
    path = data_dir / FILE
    if clock is None:
        path.unlink(missing_ok=True)
        return
    data_dir.mkdir(parents=True, exist_ok=True)  # the ledger may be elsewhere
    with new_file(path) as work:
        work.write_text(json.dumps(vars(clock), default=datetime.isoformat), encoding="utf-8")


@lru_cache(maxsize=8)
def _read(path: str, mtime_ns: int, inode: int) -> MovingClock:  # noqa: ARG001 - tell a new file
    given = json.loads(Path(path).read_text(encoding="utf-8"))
    times = {
        name: None if given[name] is None else datetime.fromisoformat(given[name])
        for name in ("product", "machine", "until")
    }
    return MovingClock(**{**given, **times})
