"""Limits that requests, kernels and the command line share."""

LONGEST_DRAFT = 16
"""Most tokens that a round may draft for a request."""

MOST_TOP_LOGPROBS = 20
"""Most alternatives whose log-probabilities a request may ask for."""
