"""One YAML file per use case, as one frozen, typed UseCase."""

from mlops_pipeline.config.load import (
    config_hash,
    json_schema,
    load_use_case,
    load_use_cases,
    parse_use_case,
)
from mlops_pipeline.config.use_case import UseCase

__all__ = [
    "UseCase",
    "config_hash",
    "json_schema",
    "load_use_case",
    "load_use_cases",
    "parse_use_case",
]
