"""Candidates, calibration, evaluation and the gate: pure."""
