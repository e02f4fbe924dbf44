"""Pages made by other libraries: frames in, HTML out."""
