"""Imports what a lifecycle imports; a fork server that loaded this starts runs at once."""

import importlib
import os
import warnings

from mlops_pipeline.stores.models.mlflow import QUIET

HEAVY = (
    "dagster._cli",
    "dagster_mlflow",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "evidently",
    "fairlearn.metrics",
    "great_expectations",
    "lightgbm",
    "matplotlib.pyplot",
    "sklearn.linear_model",
    "ibis.backends.duckdb",
    "deltalake",
    "mlops_pipeline.orchestration.build",
    "mlops_pipeline.lifecycle.evaluate",
    "mlops_pipeline.stores.pages",
    "mlops_pipeline.lifecycle.release",
    "mlops_pipeline.lifecycle.train",
    "mlops_pipeline.lifecycle.ingest.validation",
)

os.environ.update(QUIET, DAGSTER_DISABLE_TELEMETRY="true", MPLBACKEND="agg")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name in HEAVY:
        importlib.import_module(name)
