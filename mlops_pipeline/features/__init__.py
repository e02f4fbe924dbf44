"""Feature definitions compiled to point-in-time frames."""
