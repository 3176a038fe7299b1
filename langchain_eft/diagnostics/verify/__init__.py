"""Check that the engine decodes what the formula defines."""
