"""The stores of the contract tests, for what publishes to and reads from them."""

from mlops_pipeline_tests.stores.online.conftest import redis_url, store, table, url, use_case

__all__ = ["redis_url", "store", "table", "url", "use_case"]
