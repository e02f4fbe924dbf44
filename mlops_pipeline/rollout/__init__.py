"""Staged deployment: pure."""
