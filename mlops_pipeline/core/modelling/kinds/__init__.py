"""Kinds: how each is fitted and explained; `Kind` in fitting.py says what a module here has."""
