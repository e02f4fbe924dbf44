"""Figures of a classifier, with intervals."""
