"""Delta tables, and the DuckDB engine that reads them."""
