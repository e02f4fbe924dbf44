"""The shops, made once for each file of tests; a test that changes them copies the folder."""

import shutil
from pathlib import Path

import pytest

from mlops_pipeline_tests.serving.shops import materialize_shops, write_shops


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shops") / "project"
    write_shops(root)
    materialize_shops(root)
    return root


@pytest.fixture
def changed(shops: Path, tmp_path: Path) -> Path:
    """A copy of the shops for a test that damages it."""
    return Path(shutil.copytree(shops, tmp_path / "project"))
