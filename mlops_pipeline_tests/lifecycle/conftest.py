"""The shop before anything is delivered (Parquet or CSV), and ops databases of both kinds."""

from pathlib import Path

import pytest

from mlops_pipeline_tests.stores.ops.conftest import (
    database,
    postgres_schema_url,
    sqlite_template,
    url,
)
from mlops_pipeline_tests.worlds import World, shop, shop_with

__all__ = ["database", "postgres_schema_url", "sqlite_template", "url"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(shop(), tmp_path)


@pytest.fixture
def csv_world(tmp_path: Path) -> World:
    return World(shop_with({"format": "csv"}), tmp_path)
