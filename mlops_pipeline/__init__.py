"""A governed machine-learning lifecycle for tabular binary classification, on Dagster."""

__version__ = "0.1.0"
