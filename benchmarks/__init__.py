"""Benchmarks: what the lifecycle costs beside the least that the same result could cost.

Belongs here: measuring and reporting. Nothing here asserts a time, and nothing in the package
imports from here. `python -m benchmarks.run` runs them all.
"""
