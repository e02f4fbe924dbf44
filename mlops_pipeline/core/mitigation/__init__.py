"""Methods that make a variant of a model that holds a parity limit."""
