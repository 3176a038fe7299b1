"""Benchmarks against other ways to decode the same formula; see README.md."""
