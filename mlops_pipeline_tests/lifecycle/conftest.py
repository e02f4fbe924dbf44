"""The shop before anything is delivered; its files are Parquet or CSV."""

from pathlib import Path

import pytest

from mlops_pipeline_tests.worlds import World, shop, shop_with


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(shop(), tmp_path)


@pytest.fixture
def csv_world(tmp_path: Path) -> World:
    return World(shop_with({"format": "csv"}), tmp_path)
