"""Registered models: files, and MLflow as their projection."""
