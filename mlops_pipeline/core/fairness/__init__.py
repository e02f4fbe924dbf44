"""The audit of decisions by group."""
