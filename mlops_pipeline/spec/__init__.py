"""What a configuration can say: grammar and parameter models."""
