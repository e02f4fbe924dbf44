"""Model kinds: fitting, calibration, scoring, explanation; the choice among candidates."""
