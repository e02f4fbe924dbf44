"""Runs migrations in the transaction that schema.py opened; Alembic executes this file."""

from alembic import context

from mlops_pipeline.stores.ops.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
