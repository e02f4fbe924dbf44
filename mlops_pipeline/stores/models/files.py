"""A model's files in a folder: text and JSON, written and read whole, compared by digest."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from mlops_pipeline.errors import ModelFilesError
from mlops_pipeline.stores.files import file_digests


def write_files(folder: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Write a model's files into a new folder; return their digests."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())
    return digests(files)


def read_checked(folder: Path, recorded: Mapping[str, str]) -> dict[str, str]:
    """Return what a released model's files hold, when they are all that were recorded."""
    way_out = "restore the folder from a backup of the lake; do not score with these files"
    held = {  # each file is read once: what is compared is what is used
        path.name: path.read_bytes() if path.is_file() else None
        for path in sorted(folder.glob("*"))
    }
    return texts(_checked(folder, held, recorded, "were released", way_out))


def read_pinned(folder: Path, recorded: Mapping[str, str], *, way_out: str) -> dict[str, bytes]:
    """Return what a pointer's files hold, by path in the folder; others are not looked at."""
    held = {
        name: path.read_bytes() if (path := folder / name).is_file() else None for name in recorded
    }
    return _checked(folder, held, recorded, "were recorded", way_out)


def texts(files: Mapping[str, bytes], within: str = "") -> dict[str, str]:
    """Return the text of the files whose path begins with `within`, by the rest of it."""
    return {
        name.removeprefix(within): data.decode()
        for name, data in files.items()
        if name.startswith(within)
    }


def pinned_digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder, by path."""
    return file_digests(
        folder, [str(path.relative_to(folder)) for path in sorted(folder.rglob("*"))]
    )


def _checked(
    folder: Path,
    held: Mapping[str, bytes | None],
    recorded: Mapping[str, str],
    known_as: str,
    way_out: str,
) -> dict[str, bytes]:
    found = {name: _digest(data) for name, data in held.items()}
    names = sorted({*recorded, *found})
    different = [name for name in names if recorded.get(name) != found.get(name)]
    if different or not recorded:
        raise ModelFilesError(
            f"the files of the model are not those that {known_as}",
            where=f"{folder}: {', '.join(different) or 'no file'}",
            expected=", ".join(str(recorded.get(name)) for name in different) or "recorded digests",
            found=", ".join(found.get(name, "(no file)") for name in different) or "none",
            way_out=way_out,
        )
    return {name: data for name, data in held.items() if data is not None}


def digests(files: Mapping[str, str]) -> dict[str, str]:
    """Return the sha256 of every file."""
    return {name: _digest(text.encode()) for name, text in files.items()}


def _digest(data: bytes | None) -> str:
    return "(no file)" if data is None else hashlib.sha256(data).hexdigest()
