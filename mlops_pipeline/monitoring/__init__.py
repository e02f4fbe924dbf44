"""Drift, performance and the retraining decision: pure."""
