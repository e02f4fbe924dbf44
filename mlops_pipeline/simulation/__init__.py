"""Worlds that make demo data with known drift, bias and label delay."""
