"""The trained world of the end-to-end tests."""

from mlops_pipeline_tests.orchestration.conftest import template, world

__all__ = ["template", "world"]
