"""The trained world, and a copy of it for each test that changes it."""

from pathlib import Path

import pytest

from mlops_pipeline_tests.world import World, shared_folder
from mlops_pipeline_tests.world import template as make_template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The world with a champion; tests only read it."""
    return make_template(shared_folder(tmp_path_factory))


@pytest.fixture
def world(template: World, tmp_path: Path) -> World:
    """A copy of the trained world."""
    return template.copy_to(tmp_path / "world")
