"""The feature store: building, history, catalogue, export."""
