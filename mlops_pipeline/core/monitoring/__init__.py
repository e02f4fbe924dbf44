"""Decisions about a deployed model, and its cost."""
