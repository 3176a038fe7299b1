"""Proof that the engine decodes what the formula says."""
