"""Periods of the grid, labels, validation rules, the split."""
