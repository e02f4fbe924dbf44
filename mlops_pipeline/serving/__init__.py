"""HTTP: translating requests into calls of stores/, and errors into status codes."""
