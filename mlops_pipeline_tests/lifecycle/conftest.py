"""The shop before anything is delivered (Parquet or CSV), and ops databases of both kinds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline_tests.stores.ops.conftest import (
    database,
    postgres_schema_url,
    sqlite_template,
    url,
)
from mlops_pipeline_tests.worlds import World, shop, shop_with

__all__ = ["database", "postgres_schema_url", "sqlite_template", "url"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment({"MLOPS_DATA_DIR": str(tmp_path)})


@pytest.fixture
def ops(settings: Settings) -> Iterator[OpsDatabase]:
    with OpsDatabase.open(settings.database_url) as opened:
        yield opened


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(shop(), tmp_path)


@pytest.fixture
def csv_world(tmp_path: Path) -> World:
    return World(shop_with({"format": "csv"}), tmp_path)
