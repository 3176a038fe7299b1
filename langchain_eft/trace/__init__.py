"""Which words a behavior answers for."""
