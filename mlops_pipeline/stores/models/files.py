"""A model's files in a folder: text and JSON, written and read whole, compared by digest."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from mlops_pipeline.errors import ModelFilesError


def write_files(folder: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Write a model's files into a new folder; return their digests."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())
    return digests(files)


def read_files(folder: Path) -> dict[str, str]:
    """Return what the files of a folder hold, by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())}


def read_checked(folder: Path, recorded: Mapping[str, str]) -> dict[str, str]:
    """Return what a model's files hold, when they are those that were recorded by digest."""
    held = _held(folder)
    found = {name: _digest(data) for name, data in held.items()}
    names = sorted({*recorded, *found})
    different = [name for name in names if recorded.get(name) != found.get(name)]
    if different or not recorded:
        raise ModelFilesError(
            "the files of the model are not those that were released",
            where=f"{folder}: {', '.join(different) or 'no file'}",
            expected=", ".join(str(recorded.get(name)) for name in different) or "recorded digests",
            found=", ".join(found.get(name, "(no file)") for name in different) or "none",
            way_out="restore the folder from a backup of the lake; do not score with these files",
        )
    return {name: data.decode() for name, data in held.items() if data is not None}


def folder_digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of what lies in a folder, by name."""
    return {name: _digest(data) for name, data in _held(folder).items()}


def digests(files: Mapping[str, str]) -> dict[str, str]:
    """Return the sha256 of every file."""
    return {name: _digest(text.encode()) for name, text in files.items()}


def _held(folder: Path) -> dict[str, bytes | None]:
    # each file is read once: what is compared is what is used
    return {
        path.name: path.read_bytes() if path.is_file() else None
        for path in sorted(folder.glob("*"))
    }


def _digest(data: bytes | None) -> str:
    return "(no file)" if data is None else hashlib.sha256(data).hexdigest()
