"""Fairness, model card, registry metadata: pure."""
