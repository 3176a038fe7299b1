"""Synthetic conversations that teach one behaviour each."""
