"""Scripts that made the bundled weights."""
