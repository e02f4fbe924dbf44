"""The code location: `dagster -m mlops_pipeline.definitions`."""

from mlops_pipeline.orchestration.build import build_definitions

defs = build_definitions()
