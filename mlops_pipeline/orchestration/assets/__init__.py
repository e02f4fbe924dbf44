"""The assets of the lifecycle, one file per stage."""
