"""Schemas, rules, periods, labels and splits: pure."""
