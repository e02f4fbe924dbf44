"""Online features: publishing and reading the newest values."""
