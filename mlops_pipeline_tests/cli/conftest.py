"""The trained world of the end-to-end tests, and the command in it."""

from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from mlops_pipeline.cli.app import app
from mlops_pipeline_tests.orchestration.conftest import template, world
from mlops_pipeline_tests.world import World

__all__ = ["template", "world"]

Mlops = Callable[..., Result]


@pytest.fixture
def in_world(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The trained world as the working directory and environment."""
    monkeypatch.chdir(world.root)
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    return world


@pytest.fixture
def mlops(in_world: World) -> Mlops:
    def invoke(*words: str) -> Result:
        return CliRunner().invoke(app, list(words), catch_exceptions=True)

    return invoke
