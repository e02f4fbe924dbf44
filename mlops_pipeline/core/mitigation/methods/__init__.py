"""The methods of mitigation, one file each; context.py says what a method is."""
