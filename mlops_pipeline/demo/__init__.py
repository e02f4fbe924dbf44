"""Simulated worlds and public data sets: for the demo and the tests, imported by cli only."""
