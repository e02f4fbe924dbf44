"""The application: one module for each step or answer.

A step reads all, calls core, and writes once. It holds expressions, Arrow tables and records, and
hands them to stores; it knows no Dagster, MLflow, web framework or database driver.
"""
