"""All input and output: lake, ops database, model registry, files."""
