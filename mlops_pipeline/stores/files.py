"""Files and folders that appear whole or not at all, and scratch folders for a piece of work.

What is written stands beside its place, under a name that begins with a dot, and is renamed over
it at the end. One process at a time writes to a place.
"""

import hashlib
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlops_pipeline.errors import SourceError

SCRATCH = ".scratch-"


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield the path of a file that takes the place of `target` on success."""
    work = target.with_name(f".{target.name}.partial")
    try:
        yield work
        work.replace(target)
    finally:
        work.unlink(missing_ok=True)


@contextmanager
def first_file(target: Path) -> Iterator[Path]:
    """Yield the path of a file that becomes `target`, unless another process was first."""
    work = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        yield work
        with suppress(FileExistsError):
            os.link(work, target)
    finally:
        work.unlink(missing_ok=True)


def file_digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the sha256 of those of the files that are there, by name."""
    found = {}
    for name in names:
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def write_json(path: Path, document: Mapping[str, Any], *, is_sorted: bool = True) -> None:
    """Write JSON; canonical, with sorted keys, unless their order means something."""
    text = json.dumps(document, sort_keys=is_sorted, indent=1, allow_nan=False, default=str)
    with new_file(path) as work:
        work.write_text(text + "\n", encoding="utf-8")


@contextmanager
def new_folder(target: Path, keep: Sequence[str] = ()) -> Iterator[Path]:
    """Yield an empty folder that replaces `target` on success; its parts in `keep` move over."""
    restore_folder(target, keep)
    new, old = _beside(target)
    new.mkdir(parents=True)
    try:
        yield new
        if target.exists():
            target.rename(old)
        for part in keep:
            if (old / part).exists():
                (old / part).rename(new / part)
        new.rename(target)
    finally:
        restore_folder(target, keep)


def restore_folder(target: Path, keep: Sequence[str] = ()) -> None:
    """Undo what a killed process left half done beside a folder."""
    new, old = _beside(target)
    if old.exists() and not target.exists():
        for part in keep:
            if (new / part).exists() and not (old / part).exists():
                (new / part).rename(old / part)
        old.rename(target)
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)


def _beside(target: Path) -> tuple[Path, Path]:
    return target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")


@contextmanager
def scratch_folder(data_dir: Path) -> Iterator[Path]:
    """Yield an empty folder below the data folder, gone at the end; first drop killed ones'."""
    data_dir.mkdir(parents=True, exist_ok=True)
    mine = f"{SCRATCH}{socket.gethostname()}-"
    for left in data_dir.glob(f"{mine}*"):
        if is_gone(int(left.name.removeprefix(mine).split("-")[0])):
            shutil.rmtree(left, ignore_errors=True)  # another may be at it
    with tempfile.TemporaryDirectory(prefix=f"{mine}{os.getpid()}-", dir=data_dir) as folder:
        yield Path(folder)


def is_gone(pid: int) -> bool:
    """Whether a process of this host is known to be gone."""
    if os.name == "nt":  # there signal 0 is not harmless
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # alive, and somebody else's
    return False


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one writer at a time look into a folder and write: of all threads and processes here."""
    import fcntl  # which Windows lacks

    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def write_delivery(path: Path, table: Any) -> Path:
    """Write an Arrow table as a Parquet file that survives a cut of power; return its path."""
    import pyarrow.parquet as pq

    table = _zoned_alike(path.parent, table)
    try:
        with new_file(path) as work, work.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise SourceError(
            "the delivery cannot be written",
            where=str(path.parent),
            found=str(error),
            way_out="see that the folder is writable and has room",
        ) from error
    return path


def _zoned_alike(folder: Path, table: Any) -> Any:
    """Return the table with times in UTC written as a delivery before writes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for other in sorted(folder.glob("*.parquet"))[:1]:
        known = pq.read_schema(other)
        for place, field in enumerate(table.schema):
            if pa.types.is_timestamp(field.type) and field.name in known.names:
                before = known.field(field.name).type
                if pa.types.is_timestamp(before) and before.tz is None:
                    column = table.column(place).cast(pa.timestamp("us"))
                    table = table.set_column(place, field.name, column)
    return table
