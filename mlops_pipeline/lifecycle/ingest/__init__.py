"""From delivered files to accepted tables."""
