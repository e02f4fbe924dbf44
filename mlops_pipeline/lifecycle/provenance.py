"""Where a run came from: code, environment, hardware, and the fingerprint that names the run."""

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_pipeline.config import config_hash
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import StateError
from mlops_pipeline.lifecycle.context import Snapshot
from mlops_pipeline.stores.settings import PACKAGE_PARENT, Settings

LIBRARIES = ("lightgbm", "scikit-learn", "numpy", "pandas", "duckdb", "mlflow", "dagster")
GIT_TIMEOUT_S = 10


@dataclass(frozen=True)
class GitState:
    """The commit of the checkout, and whether files differ from it."""

    commit: str
    is_dirty: bool


def git_state(settings: Settings) -> GitState:
    """Return the checkout's commit, or MLOPS_GIT_COMMIT where there is none."""
    if settings.git_commit:
        return GitState(settings.git_commit, is_dirty=False)
    commit = _git(settings.root, "rev-parse", "HEAD")
    if commit is None:
        raise StateError(
            "the commit of this code is not known",
            where=str(settings.root),
            way_out="run from a git checkout with a commit, or set MLOPS_GIT_COMMIT",
        )
    return GitState(commit, is_dirty=bool(_git(settings.root, "status", "--porcelain")))


def code_hash() -> str:
    """Return the sha256 of every source file of the package."""
    digest = hashlib.sha256()
    folder = PACKAGE_PARENT / "mlops_pipeline"
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run_fingerprint(use_case: UseCase, snapshot: Snapshot) -> str:
    """Return the hash of everything that determines a trained model, 16 hex digits."""
    document = {
        "data": {
            name: [item.content_hash, item.rows, item.quarantined]
            for name, item in sorted(snapshot.accepted.items())
        },
        "config": config_hash(use_case),
        "code": code_hash(),
        "seed": use_case.training.seed,
        "as_of": snapshot.as_of.isoformat(),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that shape a model."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def environment_lock(root: Path) -> str:
    """Return the lock file's text, or the installed distributions where there is no lock file."""
    lock = root / "requirements.lock"
    if lock.is_file():
        return lock.read_text(encoding="utf-8")
    installed = {
        f"{item.metadata['Name']}=={item.version}" for item in importlib.metadata.distributions()
    }
    return "\n".join(sorted(installed, key=str.lower)) + "\n"


def hardware(settings: Settings) -> dict[str, Any]:
    """Return the kind of machine, without its name or paths."""
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "threads": settings.threads,
    }


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 # fixed words, no shell
            ["git", "-C", str(root), *words],  # noqa: S607 # git is where the user has it
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
