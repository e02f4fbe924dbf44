"""A model on its test part, and the gate."""
