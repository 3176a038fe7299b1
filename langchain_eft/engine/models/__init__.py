"""Transformers models over packed rows, and the layers that make them faster."""
