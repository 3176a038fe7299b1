"""Synthetic conversations that teach one behavior each."""
