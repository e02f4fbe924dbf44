"""The order of the tests, and what begins with the session."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import settings

LAST = ("cli", "orchestration")  # they wait for a trained world, which is made meanwhile
LONGEST = ("test_triggers", "test_lifecycle", "test_mitigation", "test_kill", "test_reproduce")

settings.register_profile("unit", deadline=None, derandomize=True)
settings.load_profile("unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what needs whole lifecycles at the end, the longest files of it first."""
    items.sort(key=lambda item: _place(item.path))


def _place(path: Path) -> tuple[bool, int]:
    is_last = path.parent.name in LAST
    rank = LONGEST.index(path.stem) if path.stem in LONGEST else len(LONGEST)
    return is_last, rank if is_last else 0


@pytest.fixture(scope="session", autouse=True)
def _begin_the_trained_world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Make it while other tests run, so that none has to wait for it."""
    names = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0" and "template" in names:
        from mlops_pipeline_tests.world import shared_folder, template

        arguments = (shared_folder(tmp_path_factory),)
        threading.Thread(target=template, args=arguments, daemon=True).start()
